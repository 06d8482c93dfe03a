"""The HTTP door: the plain JSON request, and the Open Inference Protocol v2 over REST.

``GET /openapi.json`` describes it. A request that is refused gets a 4xx and ``{"error": reason}``.
The recommender's calls run on a bounded number of threads, so that a slow sender costs a connection
and nothing else; see ``serving.doors.settings.DoorSettings`` for every bound.

Metrics beside the recommender's: ``refit_shed_requests`` (answered 429), ``refit_cut_connections``
(by ``reason``), ``refit_unauthorized_requests``.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol, cast

from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, ExceptionHandler, Receive, Scope, Send

from refit import __version__
from refit.errors import ServiceUnreachable, UsageError
from serving import request as requests
from serving.answer import RecommendationAnswer, ServiceStatus, TakenLines
from serving.counters import Counters
from serving.doors import inference
from serving.doors.access import Certificates, Tokens
from serving.doors.admission import Admission, Overloaded
from serving.doors.body import find_header, read_body
from serving.doors.connections import ARRIVED, BoundedConnection
from serving.doors.openapi import Operation, describe_api
from serving.doors.readiness import Readiness
from serving.doors.servers import QuietServer, quiet_config
from serving.doors.settings import DoorSettings
from serving.feeds.intake import Intake
from serving.request import RequestError

OPEN_PATHS = ("/v2/health/live", "/v2/health/ready")
"""Probes send no token."""
MODEL_PATH = "/v2/models/{model}"
VERSION_PATH = MODEL_PATH + "/versions/{version}"
Ask = Callable[[Any, float | None], dict[str, Any]]
JSON_TYPE = b"application/json"
ASKS = (400, 401, 408, 413, 415, 429)
OPERATIONS = (
    Operation(
        "POST",
        "/recommend",
        "Recommend items",
        RecommendationAnswer,
        requests.Request,
        ASKS,
    ),
    Operation(
        "POST",
        "/similar",
        "Items similar to one",
        RecommendationAnswer,
        requests.SimilarRequest,
        ASKS,
    ),
    Operation("GET", "/status", "What is served now", ServiceStatus, refusals=(401, 429)),
    Operation("GET", "/v2/health/live", "Whether the server runs", None),
    Operation("GET", "/v2/health/ready", "Whether the server answers requests", None),
    Operation("GET", "/v2", "What this server is", inference.ServerMetadata, refusals=(401,)),
    Operation(
        "GET",
        MODEL_PATH,
        "What the model takes and gives",
        inference.ModelMetadata,
        refusals=(401, 404),
        parameters=("model",),
    ),
    Operation(
        "GET",
        f"{MODEL_PATH}/ready",
        "Whether the model answers requests",
        None,
        refusals=(401, 404),
        parameters=("model",),
    ),
    Operation(
        "POST",
        f"{MODEL_PATH}/infer",
        "Recommend items, as the Open Inference Protocol asks",
        inference.InferenceResponse,
        inference.InferenceRequest,
        (*ASKS, 404),
        ("model",),
    ),
)


class Answering(Protocol):
    """What a door needs of a recommender."""

    counters: Counters

    @property
    def bundle_id(self) -> str:
        """The bundle in service."""
        ...

    def recommend(self, body: Any, arrived: float | None = None) -> dict[str, Any]:
        """Answer one request; see ``serving.recommender.Recommender``."""
        ...

    def similar(self, body: Any, arrived: float | None = None) -> dict[str, Any]:
        """Items similar to one."""
        ...

    def is_ready(self) -> bool:
        """Whether it wants requests; asks no other process."""
        ...

    def status(self) -> dict[str, Any]:
        """What is served now."""
        ...


def _describe_intake(feed: str) -> Operation:
    summary = f"Lines of the {feed} feed; sending them again does no harm"
    refusals = (*ASKS, 503)
    return Operation("POST", f"/feeds/{feed}", summary, TakenLines, requests.FeedLines, refusals)


class HttpDoor:
    """The ASGI application around one recommender.

    Requests for recommendations take a way of their own past Starlette, whose routes and layers
    cost as much as reading the request; what they are answered with is the same.
    """

    def __init__(
        self,
        recommender: Answering,
        admission: Admission,
        settings: DoorSettings,
        readiness: Readiness,
        tokens: Tokens | None = None,
        intakes: Mapping[str, Intake] | None = None,
    ) -> None:
        self._recommender, self._admission, self._settings = recommender, admission, settings
        self._readiness, self._intakes = readiness, dict(intakes or {})
        operations = (*OPERATIONS, *map(_describe_intake, self._intakes))
        self._described = to_json(describe_api(operations, needs_token=tokens is not None))
        self._tokens = tokens
        self._handlers: dict[Any, ExceptionHandler] = {
            UsageError: partial(_refuse, 400),
            ServiceUnreachable: partial(_refuse, 503),
            Overloaded: self._shed,
            HTTPException: _refuse_http,
            ClientDisconnect: _forget,
            Exception: _fail,
        }
        self._starlette = Starlette(
            routes=self._routes(),
            middleware=self._middleware(tokens),
            exception_handlers=self._handlers,
        )
        self._starlette.router.redirect_slashes = False
        ways = {"/recommend": recommender.recommend, "/similar": recommender.similar}
        # Pages of another origin need headers that Starlette adds.
        self._ways = {} if settings.allowed_origins else ways

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI has it."""
        ask = self._ways.get(scope["path"]) if scope["method"] == "POST" else None
        if ask is None or not _may_enter(scope, self._tokens):
            await self._starlette(scope, receive, send)
            return
        try:
            body = await read_body(scope, receive, self._settings)
            arrived = scope["state"].get(ARRIVED)
            text = await self._admission.answer(self._answer, ask, body, arrived)
        except Exception as error:
            await self._answer_error(error, scope, receive, send)
            return
        headers = [(b"content-length", b"%d" % len(text)), (b"content-type", JSON_TYPE)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": text})

    async def _answer_error(
        self, error: Exception, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer an error as Starlette would; one that nobody expects is raised afterwards."""
        kind = next(kind for kind in type(error).__mro__ if kind in self._handlers)
        response = await cast(Any, self._handlers[kind])(None, error)
        await response(scope, receive, send)
        if kind is Exception:
            raise error

    def _routes(self) -> list[Route]:
        routes = [
            Route("/recommend", self._recommend, methods=["POST"]),
            Route("/similar", self._similar, methods=["POST"]),
            Route("/status", self._status),
            Route("/openapi.json", self._openapi),
            *(
                Route(f"/feeds/{feed}", partial(self._take, intake), methods=["POST"])
                for feed, intake in self._intakes.items()
            ),
            Route("/v2", self._server),
            Route("/v2/health/live", _live),
            Route("/v2/health/ready", self._ready),
        ]
        for path in (MODEL_PATH, VERSION_PATH):
            routes += [
                Route(path, self._model),
                Route(f"{path}/ready", self._model_ready),
                Route(f"{path}/infer", self._infer, methods=["POST"]),
            ]
        return routes

    def _middleware(self, tokens: Tokens | None) -> list[Middleware]:
        found = []
        if self._settings.allowed_origins:
            # A preflight has no token, so this comes before the tokens.
            found.append(
                Middleware(
                    CORSMiddleware,
                    allow_origins=self._settings.allowed_origins,
                    allow_methods=["GET", "POST"],
                    allow_headers=["authorization", "content-type"],
                )
            )
        if tokens:
            found.append(
                Middleware(_Gatekeeper, tokens=tokens, counters=self._recommender.counters)
            )
        return found

    async def _recommend(self, request: Request) -> Response:
        return await self._ask(request, self._recommender.recommend)

    async def _similar(self, request: Request) -> Response:
        return await self._ask(request, self._recommender.similar)

    async def _take(self, intake: Intake, request: Request) -> Response:
        body = await read_body(request.scope, request.receive, self._settings)

        def take() -> bytes:
            lines = requests.parse_lines(self._parse(body)).lines
            return to_json(intake.accept([to_json(line) for line in lines]))

        return _json(await self._admission.run(take))

    async def _ask(self, request: Request, ask: Ask) -> Response:
        body = await read_body(request.scope, request.receive, self._settings)
        arrived = request.scope["state"].get(ARRIVED)
        return _json(await self._admission.answer(self._answer, ask, body, arrived))

    def _answer(self, ask: Ask, body: bytes, arrived: float | None) -> bytes:
        return to_json(ask(self._parse(body), arrived))

    async def _infer(self, request: Request) -> Response:
        self._check_model(request)
        body = await read_body(request.scope, request.receive, self._settings)
        arrived = request.scope["state"].get(ARRIVED)
        return _json(await self._admission.answer(self._answer_inference, body, arrived))

    def _answer_inference(self, body: bytes, arrived: float | None) -> bytes:
        try:
            asked = inference.parse_inference(self._parse(body))
            bodies = inference.requests_of(asked)
        except RequestError:
            self._recommender.counters.add("refit_bad_requests")
            raise
        answers = [self._recommender.recommend(one, arrived) for one in bodies]
        tensor = inference.OutputTensor(
            name=inference.OUTPUT,
            shape=[len(answers)],
            datatype=inference.DATATYPE,
            data=[to_json(answer).decode() for answer in answers],
        )
        response = inference.InferenceResponse(
            model_name=self._settings.model,
            model_version=self._recommender.bundle_id,
            id=asked.id,
            outputs=[tensor],
        )
        return to_json(response, exclude_none=True)

    def _parse(self, body: bytes) -> Any:
        try:
            return inference.parse_json(body)
        except RequestError:
            self._recommender.counters.add("refit_bad_requests")
            raise

    async def _status(self, _: Request) -> Response:
        return _json(to_json(await self._admission.run(self._recommender.status)))

    async def _openapi(self, _: Request) -> Response:
        return _json(self._described)

    async def _server(self, _: Request) -> Response:
        return _json(to_json(inference.ServerMetadata(name="refit", version=__version__)))

    async def _model(self, request: Request) -> Response:
        self._check_model(request)
        described = inference.describe_model(self._settings.model, self._recommender.bundle_id)
        return _json(to_json(described))

    async def _model_ready(self, request: Request) -> Response:
        self._check_model(request)
        ready = self._readiness.ready
        return _json(to_json({"name": self._settings.model, "ready": ready}), _status_of(ready))

    async def _ready(self, _: Request) -> Response:
        ready = self._readiness.ready
        return _json(to_json({"live": True, "ready": ready}), _status_of(ready))

    def _check_model(self, request: Request) -> None:
        """Raise 404 unless the path names the model, and no version but the one in service."""
        named = request.path_params
        if named["model"] != self._settings.model:
            raise HTTPException(404, f"there is no such model; its name is {self._settings.model}")
        served = self._recommender.bundle_id
        if named.get("version", served) != served:
            raise HTTPException(404, f"this version is not served; {served} is")

    async def _shed(self, _: Request, error: Exception) -> Response:
        response = await _refuse(429, _, error)
        response.headers["retry-after"] = str(self._settings.retry_after_s)
        return response


def make_server(
    door: HttpDoor,
    settings: DoorSettings,
    counters: Counters,
    certificates: Certificates | None = None,
) -> QuietServer:
    """A server of the door, which leaves signals to its caller."""
    config = quiet_config(
        door.app,
        interface="asgi3",  # uvicorn takes a method for ASGI 2
        http=partial(BoundedConnection, settings=settings, counters=counters),
        timeout_keep_alive=settings.idle_seconds,
        timeout_graceful_shutdown=10,
        backlog=1024,
    )
    config.load()
    config.ssl = certificates.context if certificates else None
    return QuietServer(config)


class _Gatekeeper:
    """Lets requests with an accepted token through; others are answered 401."""

    def __init__(self, app: ASGIApp, tokens: Tokens, counters: Counters) -> None:
        self._app, self._tokens, self._counters = app, tokens, counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in OPEN_PATHS or _may_enter(scope, self._tokens):
            await self._app(scope, receive, send)
            return
        self._counters.add("refit_unauthorized_requests")
        headers = {"www-authenticate": "Bearer", "connection": "close"}
        reason = {"error": "send an accepted token: Authorization: Bearer ..."}
        response = _json(to_json(reason), 401, headers)
        await response(scope, receive, send)


def _may_enter(scope: Scope, tokens: Tokens | None) -> bool:
    return tokens is None or tokens.accept(find_header(scope["headers"], b"authorization"))


def _json(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(body, status, headers, media_type="application/json")


async def _refuse(status: int, _: Request, error: Exception) -> Response:
    return _json(to_json({"error": str(error)}), status)


async def _refuse_http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # Starlette chose this handler by the type
    reason = to_json({"error": str(error.detail)})
    return _json(reason, error.status_code, dict(error.headers or {}))


async def _forget(_: Request, __: Exception) -> Response:
    return Response(status_code=400)  # nobody reads it


async def _fail(_: Request, __: Exception) -> Response:
    return _json(to_json({"error": "internal error"}), 500)


async def _live(_: Request) -> Response:
    return _json(b'{"live":true}')


def _status_of(ready: bool) -> int:
    return 200 if ready else 503

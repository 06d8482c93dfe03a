"""Seldon's door: ``seldon-core-microservice serving.doors.seldon.RefitRecommender``.

Only this module depends on Seldon; the recommender does not. REST and gRPC accept a request as
``jsonData`` (REST also without it) and answer with ``jsonData``. An invalid request is answered
with HTTP 400 or INVALID_ARGUMENT, and the reason.

Metrics, on Seldon's metrics endpoint: ``refit_requests``, ``refit_bad_requests``, ``refit_errors``
(internal errors: HTTP 500), ``refit_fallbacks`` (by ``reason``), ``refit_holdout_answers``,
``refit_not_personalised_answers``, ``refit_shown_items`` (by ``source``), ``refit_slate_given_up``
(score that caps and diversity gave up, summed over answers), ``refit_empty_answers``,
``refit_ineligible_items`` (by eligibility ``rule``: items that it removed, of those that no earlier
rule had removed), ``refit_latency``, ``refit_bundle_in_service`` (by ``bundle_id``),
``refit_swaps``, ``refit_bundles_refused``, ``refit_follow_failures`` (by ``what``),
``refit_log_rows``, ``refit_log_dropped`` (by ``reason``), ``refit_log_failures``,
``refit_log_upload_failures``, ``refit_log_waiting_parts``, ``refit_log_staging_share``,
``refit_stock_fresh_listings``, ``refit_stock_waiting_listings``, ``refit_stock_dead_letters``,
``refit_stock_embedding_failures`` (by ``reason``), ``refit_stock_forgotten_listings``,
``refit_activity_people``, ``refit_activity_people_dropped``, ``refit_activity_dead_letters``; of an
engine on other machines ``refit_search_latency``, ``refit_search_failures`` (by ``reason``),
``refit_search_refills``, ``refit_search_removed_items``, ``refit_search_short_answers``; by
``feed``: ``refit_feed_lag_seconds``, ``refit_feed_behind``, ``refit_feed_newest_age_seconds``,
``refit_feed_answers``, ``refit_feed_gaps``. They are passed to Seldon with answers and health
checks, at most once a second.

REST and gRPC are processes of their own. ``/health/status`` (readiness) and ``/health/alive``
(liveness) fail while nothing listens on gRPC's port, because the process of REST is the only one
that Kubernetes watches.

If a deployment sets the annotation ``seldon.io/rest-timeout``, gunicorn kills a worker that takes
longer, also while it loads its bundle.
"""

import atexit
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from typing import Any

import grpc
from flask import Blueprint, g, jsonify, request  # type: ignore[import-not-found]
from google.protobuf import json_format
from seldon_core.flask_utils import SeldonMicroserviceException
from seldon_core.metrics import SeldonMetrics
from seldon_core.proto import prediction_pb2
from seldon_core.wrapper import SeldonModelGRPC
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from refit.errors import RefitError
from refit.progress import log_message, set_up_logging
from serving.recommender import Recommender
from serving.request import RequestError
from serving.settings import CANNOT_SERVE, RecommenderSettings

MAX_BODY_BYTES = 1 << 20
GRPC_PORT_VARIABLE, DEFAULT_GRPC_PORT = "PREDICTIVE_UNIT_GRPC_SERVICE_PORT", 5000
"""Seldon's own, of its server."""
GRPC_IS_DOWN = "nothing listens on gRPC's port"
METRICS_SECONDS = 1.0
"""Seldon keeps metrics in a separate process; passing them on takes as long as an answer."""


ARRIVED: ContextVar[float] = ContextVar("arrived")
"""When the request that this thread answers came to it; Seldon does not tell when it was read."""


class RefitRecommender:
    """The class that Seldon runs: one recommender in every worker process.

    Args:
        parameters: ``RecommenderSettings`` by name, from ``--parameters`` or the variable
            PREDICTIVE_UNIT_PARAMETERS.

    Raises:
        UsageError: A parameter is unknown or invalid.
    """

    def __init__(self, **parameters: Any) -> None:
        set_up_logging()
        self._settings = RecommenderSettings.parse(parameters)
        self._recommender: Recommender | None = None
        self._drained_at = -math.inf
        self.model_error_handler = _blueprint()
        """Seldon registers this blueprint with its Flask app."""

    def load(self) -> None:
        """Start the recommender; Seldon calls it in every worker process, after the fork."""
        try:
            self._recommender = Recommender(self._settings)
        except RefitError as error:
            log_message(f"{CANNOT_SERVE}{error}")
            raise
        except Exception as error:
            log_message(f"{CANNOT_SERVE}{type(error).__name__}: {error}")
            # Seldon takes an AttributeError here for a model without load().
            raise RuntimeError(str(error)) from error
        atexit.register(self._recommender.close)
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            # gunicorn's workers shut down by themselves; the gRPC worker needs a handler.
            signal.signal(signal.SIGTERM, self._stop)

    def predict_raw(self, message: Any) -> Any:
        """Answer a request: a SeldonMessage protobuf, or the parsed JSON of one.

        Raises:
            SeldonMicroserviceException: The request is invalid (400).
        """
        is_proto = isinstance(message, prediction_pb2.SeldonMessage)
        try:
            body = _body_of_proto(message) if is_proto else _body_of_json(message)
            answer = self._running().recommend(body, ARRIVED.get(None))
        except RequestError as error:
            raise SeldonMicroserviceException(str(error), reason="BAD_REQUEST") from None
        tags = {"bundle_id": answer["bundle_id"], "fallback": answer.get("fallback") or ""}
        metrics = self.metrics()
        if is_proto:
            response = prediction_pb2.SeldonMessage()
            if metrics:
                json_format.ParseDict({"metrics": metrics}, response.meta)
            for name, tag in tags.items():
                response.meta.tags[name].string_value = tag
            _fill(response.jsonData, answer)
            return response
        return {"jsonData": answer, "meta": {"tags": tags, "metrics": metrics}}

    def metrics(self) -> list[dict[str, Any]]:
        """The measurements since the last call; empty within ``METRICS_SECONDS`` of it."""
        now = time.monotonic()
        if now < self._drained_at + METRICS_SECONDS:
            return []
        self._drained_at = now
        return self._running().counters.drain()

    def health_status(self) -> dict[str, Any]:
        """Bundle in service, towers, stock and feeds; unavailable towers do not make it unhealthy.

        A server that has not read its feeds answers 503, so that its pod is not ready.

        Raises:
            SeldonMicroserviceException: It is still loading, or gRPC does not listen (503).
        """
        status = self._running().status()
        if not _grpc_listens():
            raise SeldonMicroserviceException(GRPC_IS_DOWN, 503, reason="NOT_READY")
        # Not an exception: Seldon takes the metrics, which say how far behind it is, afterwards.
        g.is_unready = not status["ready"]
        return status

    def init_metadata(self) -> dict[str, Any]:
        """The inputs and outputs of this model, in Seldon's format."""
        json_message = [{"messagetype": "jsonData", "schema": {}}]
        return {
            "name": "refit-recommender",
            "versions": ["1"],
            "platform": "refit",
            "inputs": json_message,
            "outputs": json_message,
        }

    def _running(self) -> Recommender:
        if self._recommender is None:
            raise SeldonMicroserviceException("still loading", 503, reason="NOT_READY")
        return self._recommender

    def _stop(self, *_: Any) -> None:
        self._running().close()
        sys.exit(0)


def _body_of_json(message: Any) -> Any:
    if isinstance(message, dict) and "jsonData" in message:
        return message["jsonData"]
    return message


def _body_of_proto(message: prediction_pb2.SeldonMessage) -> Any:
    if message.WhichOneof("data_oneof") != "jsonData":
        raise RequestError("a request is sent as jsonData")
    return _read(message.jsonData)


def _read(value: Any) -> Any:
    """The JSON in a protobuf Value; ``json_format`` takes several times as long."""
    kind = value.WhichOneof("kind")
    if kind is None or kind == "null_value":
        return None
    if kind == "struct_value":
        return {name: _read(part) for name, part in value.struct_value.fields.items()}
    if kind == "list_value":
        return [_read(part) for part in value.list_value.values]
    return getattr(value, kind)


def _fill(value: Any, data: Any) -> None:
    """Write JSON into a protobuf Value; ``json_format`` takes several times as long."""
    if data is None:
        value.null_value = 0
    elif isinstance(data, bool):
        value.bool_value = data
    elif isinstance(data, str):
        value.string_value = data
    elif isinstance(data, int | float):
        value.number_value = data
    elif isinstance(data, dict):
        value.struct_value.SetInParent()
        fields = value.struct_value.fields
        for name, part in data.items():
            _fill(fields[name], part)
    else:
        value.list_value.SetInParent()
        for part in data:
            _fill(value.list_value.values.add(), part)


def _grpc_listens() -> bool:
    port = int(os.environ.get(GRPC_PORT_VARIABLE, DEFAULT_GRPC_PORT))
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0):
            return True
    except OSError:
        return False


def _blueprint() -> Blueprint:
    """Answer bad requests with 400 where Flask and Seldon would answer with 500; and liveness."""
    blueprint = Blueprint("refit", __name__)

    @blueprint.get("/health/alive")
    def tell_whether_alive() -> Any:
        return jsonify({}) if _grpc_listens() else _failure(503, GRPC_IS_DOWN, "NOT_ALIVE")

    @blueprint.record
    def limit_body(state: Any) -> None:
        state.app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES

    @blueprint.app_errorhandler(HTTPException)
    def answer_http_error(error: HTTPException) -> Any:
        too_large = isinstance(error, RequestEntityTooLarge)
        return _failure(400 if too_large else error.code or 500, str(error.description))

    @blueprint.app_errorhandler(SeldonMicroserviceException)
    def answer_seldon_error(error: SeldonMicroserviceException) -> Any:
        return _failure(error.status_code, str(error.message), error.reason)

    @blueprint.before_app_request
    def begin() -> Any:
        ARRIVED.set(time.perf_counter())
        # Seldon also reads JSON from forms and from the URL, where bad JSON would be answered 500.
        if request.endpoint != "Predict" or (request.is_json and "json" not in request.args):
            return None
        return _failure(400, "send the request as a JSON body, as application/json")

    @blueprint.after_app_request
    def answer_unready(response: Any) -> Any:
        if g.pop("is_unready", False):
            response.status_code = 503
        return response

    @blueprint.app_errorhandler(RecursionError)
    def answer_nested(_: RecursionError) -> Any:
        return _failure(400, "the request is nested too deeply")

    return blueprint


def _failure(code: int, info: str, reason: str = "BAD_REQUEST") -> Any:
    status = {"status": "FAILURE", "code": code, "info": info, "reason": reason}
    response = jsonify({"status": status})
    response.status_code = code
    return response


def _with_grpc_codes(predict: Callable[..., Any]) -> Callable[..., Any]:
    """Note the time, and set gRPC's status codes.

    Seldon hides the context, so that every error would be UNKNOWN.
    """

    @wraps(predict)
    def answer(self: Any, request: Any, context: Any) -> Any:
        ARRIVED.set(time.perf_counter())
        try:
            return predict(self, request, context)
        except SeldonMicroserviceException as error:
            code = grpc.StatusCode.INVALID_ARGUMENT
            if error.status_code >= 500:
                code = grpc.StatusCode.UNAVAILABLE
            context.abort(code, str(error.message))

    return answer


def _one_at_a_time(update: Callable[..., None]) -> Callable[..., None]:
    """Serialise updates of Seldon's metrics, whose read-modify-write loses counts of other threads.

    It also restores values of 0, which Seldon drops in protobuf's JSON and then fails on.
    """
    lock = threading.Lock()

    @wraps(update)
    def locked(self: Any, metrics: list[dict[str, Any]], method: str) -> None:
        if not metrics:
            return
        with lock:
            update(self, [{"value": 0.0, **metric} for metric in metrics], method)

    return locked


SeldonModelGRPC.Predict = _with_grpc_codes(SeldonModelGRPC.Predict)
SeldonMetrics.update = _one_at_a_time(SeldonMetrics.update)

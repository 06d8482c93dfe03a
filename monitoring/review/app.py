"""The review application: what a person on call reads, and does.

Every page works without JavaScript; HTMX only saves reloads. A page never changes anything unless
a form of ours was sent by somebody of the role on-call, and each change is in the audit trail.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from monitoring.alerts import ON_CALL
from monitoring.metrics import StoreCollector
from monitoring.notifications import find_channels
from monitoring.orders import Means, assess
from monitoring.quarantines import release_and_publish
from monitoring.review.actions import DONE, list_actions, perform
from monitoring.review.listing import Wanted, find_alerts
from monitoring.review.rendering import ASSETS, render
from monitoring.review.settings import ReviewSettings
from monitoring.review.sign_in import (
    CSRF_COOKIE,
    SESSION_COOKIE,
    Gatekeeper,
    RequestForged,
    Reviewer,
    make_csrf,
    new_seed,
)
from monitoring.review.view import Picture, list_unchecked, read_view
from monitoring.review.worker import ReviewWorker
from monitoring.store import AlertStore, UnknownId, WrongState, open_store
from refit.errors import RefitError, ServiceUnreachable, UsageError
from refit.incident import Cause
from refit.progress import log_message

MOST_BYTES = 65_536
"""Of a form."""
NOTHING_YET = "No alert has been raised, and no monitor has run yet: refit monitor does."
PICTURE_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""Of a picture, whose shapes carry their own style; it can hold no script."""


@dataclass(frozen=True)
class ReviewPlace:
    """What the application works with.

    Attributes:
        store: Where the alert store is, as ``SqlStore`` takes it; it may not exist yet.
        pages: Folder in which the monitor keeps evidence and static pages; it may not exist yet.
        find_means: What requests are carried out with.
    """

    store: str
    pages: Path
    find_means: Callable[[AlertStore], Means]


class Forbidden(Exception):  # noqa: N818 - what happened
    """The role does not allow it."""


class NotSignedIn(Exception):  # noqa: N818 - what happened
    """Nobody says who is asking."""


class FormTooLarge(Exception):  # noqa: N818 - what happened
    """A form holds more than any of ours."""


class _Stores:
    """The store, opened once it exists."""

    def __init__(self, place: str) -> None:
        self._place, self._store = place, None

    def find(self) -> AlertStore | None:
        """The store; None where there is none yet."""
        if self._store is None:
            self._store = open_store(self._place, patience_seconds=10)  # type: ignore[assignment]
        return self._store

    def need(self) -> AlertStore:
        """The store.

        Raises:
            UnknownId: There is none yet.
        """
        store = self.find()
        if store is None:
            raise UnknownId(NOTHING_YET)
        return store


def make_app(place: ReviewPlace, settings: ReviewSettings, gatekeeper: Gatekeeper) -> FastAPI:
    """The application, ready for a server.

    Args:
        place: What it works with.
        settings: Its settings.
        gatekeeper: Says who is asking.
    """
    stores = _Stores(place.store)
    worker = ReviewWorker(
        stores.find,
        place.find_means,
        place.pages,
        find_channels(settings.notify),
        settings.notify,
        settings.base_url,
        settings.poll_seconds,
    )

    @asynccontextmanager
    async def living(app: FastAPI) -> AsyncIterator[None]:
        worker.start()
        yield
        worker.stop()

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=living)
    app.state.worker = worker
    app.mount("/assets", StaticFiles(directory=ASSETS))
    pages = _Pages(place, settings, gatekeeper, stores)
    _add_headers(app, settings)
    _add_errors(app, pages)
    _add_signing_in(app, pages)
    _add_reading(app, pages)
    _add_acting(app, pages, worker)
    _add_probes(app, place.store)
    return app


class _Pages:
    """Renders pages for somebody."""

    def __init__(
        self,
        place: ReviewPlace,
        settings: ReviewSettings,
        gatekeeper: Gatekeeper,
        stores: _Stores,
    ) -> None:
        self.place, self.settings, self.gatekeeper = place, settings, gatekeeper
        self.stores = stores

    def reader(self, request: Request) -> Reviewer:
        """Who is asking.

        Raises:
            NotSignedIn: Nobody says so.
        """
        me = self.gatekeeper.find(request)
        if me is None:
            raise NotSignedIn
        return me

    def show(
        self,
        request: Request,
        template: str,
        me: Reviewer | None,
        status: int = 200,
        **values: Any,
    ) -> Response:
        """A page, with what its forms are checked by."""
        seed = request.cookies.get(CSRF_COOKIE, "")
        fresh = seed or new_seed()
        text = render(
            template,
            links=self.settings.links,
            me=me,
            csrf=make_csrf(fresh, me),
            **({"message": DONE.get(request.query_params.get("done", ""), "")} | values),
        )
        response = HTMLResponse(text, status)
        if not seed:
            self.set_cookie(response, CSRF_COOKIE, fresh)
        return response

    def set_cookie(self, response: Response, name: str, value: str, **options: Any) -> None:
        """Set a cookie that only we get back."""
        secure = self.gatekeeper.is_secure
        response.set_cookie(
            name, value, httponly=True, samesite="strict", secure=secure, path="/", **options
        )

    def show_alert(
        self,
        request: Request,
        me: Reviewer,
        alert_id: str,
        status: int = 200,
        typed: dict[str, str] | None = None,
        action: str = "",
        **values: Any,
    ) -> Response:
        """An alert's page; ``action`` is the one whose form is open, with what was typed."""
        store = self.stores.need()
        view = read_view(store, self.place.pages, store.alert(alert_id))
        means = self.place.find_means(store)
        actions = list_actions(view.alert, list(view.quarantines), means, assess(store, means), me)
        if typed is not None:
            given = {"reason": typed.get("reason", ""), "until": typed.get("until", "")}
            actions = [
                replace(each, opened=True, typed=given) if each.url.endswith(action) else each
                for each in actions
            ]
        base = f"/alerts/{quote(alert_id, safe='')}/pictures"

        def locate(picture: Picture) -> str:
            return f"{base}/{quote(picture.name, safe='')}"

        return self.show(
            request,
            "alert.html",
            me,
            status,
            view=view,
            actions=actions,
            source=locate,
            until=f"{datetime.now(UTC) + timedelta(hours=12):%Y-%m-%dT%H:%M}",
            here="/alerts",
            **values,
        )


def _add_headers(app: FastAPI, settings: ReviewSettings) -> None:
    image = urlsplit(settings.links.image)
    pictures = f" {image.scheme}://{image.netloc}" if image.netloc else ""
    policy = (
        f"default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
        f"img-src 'self'{pictures}; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )

    @app.middleware("http")
    async def protect(
        request: Request, answer: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        response = await answer(request)
        response.headers.setdefault("Content-Security-Policy", policy)
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["X-Frame-Options"] = "DENY"
        # With "no-referrer" browsers would hide the origin of our own forms, too.
        response.headers["Referrer-Policy"] = "same-origin"
        response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
        is_asset = request.url.path.startswith("/assets/")
        response.headers["Cache-Control"] = "max-age=3600" if is_asset else "no-store"
        return response


def _add_errors(app: FastAPI, pages: _Pages) -> None:
    def tell(request: Request, status: int, heading: str, text: str) -> Response:
        me = pages.gatekeeper.find(request)
        return pages.show(request, "message.html", me, status, heading=heading, text=text)

    @app.exception_handler(NotSignedIn)
    def sign_in(request: Request, error: NotSignedIn) -> Response:
        if request.method == "GET":
            return pages.show(
                request, "login.html", None, 401, takes_tokens=bool(pages.gatekeeper.tokens)
            )
        return tell(request, 401, "Sign in first", "Your session has ended: sign in again.")

    @app.exception_handler(Forbidden)
    def forbid(request: Request, error: Forbidden) -> Response:
        return tell(request, 403, "Not allowed", "Only the role on-call may do this.")

    @app.exception_handler(RequestForged)
    def refuse(request: Request, error: RequestForged) -> Response:
        text = (
            "This form is not of a page that you have open in this session, so nothing was done. "
            "Go back, reload the page, and send it again."
        )
        return tell(request, 403, "Nothing was done", text)

    @app.exception_handler(FormTooLarge)
    def limit(request: Request, error: FormTooLarge) -> Response:
        return tell(request, 413, "Nothing was done", "The form is too large: write less.")

    @app.exception_handler(RefitError)
    def explain(request: Request, error: RefitError) -> Response:
        return tell(request, _status_of(error), "That did not work", str(error))

    @app.exception_handler(404)
    def miss(request: Request, error: Exception) -> Response:
        return tell(request, 404, "Not found", "There is no such page.")

    @app.exception_handler(500)
    def fail(request: Request, error: Exception) -> Response:
        log_message(f"review: {request.url.path}: {type(error).__name__}: {error}")
        return PlainTextResponse("An unexpected error; the log of refit review has it.", 500)


def _status_of(error: RefitError) -> int:
    """The HTTP status that stands for an error."""
    for kind, status in (
        (UnknownId, 404),
        (WrongState, 409),
        (UsageError, 400),
        (ServiceUnreachable, 503),
    ):
        if isinstance(error, kind):
            return status
    return 500


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form.

    Raises:
        FormTooLarge: It holds more than any of ours.
    """
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            raise FormTooLarge
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=20))
    except ValueError:
        raise UsageError("the form cannot be read") from None


_Form = Depends(read_form)


def _add_signing_in(app: FastAPI, pages: _Pages) -> None:
    gatekeeper = pages.gatekeeper

    @app.get("/login")
    def ask_for_token(request: Request) -> Response:
        me = gatekeeper.find(request)
        return pages.show(request, "login.html", me, takes_tokens=bool(gatekeeper.tokens))

    @app.post("/login")
    def sign_in(request: Request, form: dict[str, str] = _Form) -> Response:
        gatekeeper.check_form(request, gatekeeper.find(request), form.get("csrf", ""))
        token = gatekeeper.match(form.get("token", ""))
        if token is None:
            return pages.show(
                request,
                "login.html",
                None,
                401,
                takes_tokens=bool(gatekeeper.tokens),
                message="There is no such token.",
                failed=True,
            )
        response = RedirectResponse("/alerts", 303)
        seconds = int(3600 * gatekeeper.settings.session_hours)
        session = gatekeeper.make_session(token)
        pages.set_cookie(response, SESSION_COOKIE, session, max_age=seconds)
        return response

    @app.post("/logout")
    def sign_out(request: Request, form: dict[str, str] = _Form) -> Response:
        gatekeeper.check_form(request, pages.reader(request), form.get("csrf", ""))
        response = RedirectResponse("/login", 303)
        response.delete_cookie(SESSION_COOKIE, path="/")
        return response


def _add_reading(app: FastAPI, pages: _Pages) -> None:
    me_ = Depends(pages.reader)

    @app.get("/")
    def begin(me: Reviewer = me_) -> Response:
        return RedirectResponse("/alerts", 303)

    @app.get("/index.html")  # where the static pages begin
    def begin_as_before(me: Reviewer = me_) -> Response:
        return RedirectResponse("/alerts", 303)

    @app.get("/alerts")
    def list_alerts(request: Request, me: Reviewer = me_) -> Response:
        store, wanted = pages.stores.find(), Wanted.read(request.query_params)
        alerts = store.alerts() if store else []
        found = find_alerts(alerts, wanted, pages.settings.page_size)
        nothing = "No alert is like this." if alerts else "" if store else NOTHING_YET
        return pages.show(
            request,
            "alerts.html",
            me,
            alerts=found.alerts,
            total=found.total,
            known=len(alerts),
            page=found.page,
            last_page=found.last_page,
            query=wanted.query,
            wanted=vars(wanted),
            causes=[str(cause) for cause in Cause],
            bundles=sorted({alert.bundle_id for alert in alerts}, reverse=True),
            refits={each.alert_id: each for each in store.refits()} if store else {},
            nothing=nothing,
            unchecked=list_unchecked(store.newest_results()) if store else {},
            here="/alerts",
        )

    @app.get("/alerts/{alert_id}")
    def show_alert(request: Request, alert_id: str, me: Reviewer = me_) -> Response:
        return pages.show_alert(request, me, alert_id)

    @app.get("/alerts/{alert_id}/progress")
    def show_progress(request: Request, alert_id: str, me: Reviewer = me_) -> Response:
        store = pages.stores.need()
        view = read_view(store, pages.place.pages, store.alert(alert_id))
        return pages.show(request, "progress.html", me, view=view)

    @app.get("/alerts/{alert_id}/pictures/{name}")
    def show_picture(alert_id: str, name: str, me: Reviewer = me_) -> Response:
        store = pages.stores.need()
        view = read_view(store, pages.place.pages, store.alert(alert_id))
        picture = view.picture(name)
        if picture is None:
            raise UnknownId(f"there is no picture {name!r}")
        headers = {"Content-Security-Policy": PICTURE_POLICY}
        return Response(picture.to_svg(), media_type="image/svg+xml", headers=headers)

    @app.get("/quarantines")
    def list_quarantines(request: Request, me: Reviewer = me_) -> Response:
        store = pages.stores.find()
        found = store.quarantines(in_force=False) if store else []
        return pages.show(
            request, "quarantines.html", me, quarantines=found[::-1], here="/quarantines"
        )

    @app.get("/audit")
    def show_audit(request: Request, me: Reviewer = me_) -> Response:
        store = pages.stores.find()
        try:
            n = store.check_audit() if store else 0
            checked = (
                f"{n} {'entry' if n == 1 else 'entries'}, each checked against the one before."
            )
        except RefitError as error:
            checked = f"Warning: {error}."
        entries = store.entries() if store else []
        return pages.show(
            request, "audit.html", me, entries=entries, checked=checked, here="/audit"
        )


def _add_acting(app: FastAPI, pages: _Pages, worker: ReviewWorker) -> None:
    def actor(request: Request, form: dict[str, str] = _Form) -> Reviewer:
        me = pages.reader(request)
        pages.gatekeeper.check_form(request, me, form.get("csrf", ""))
        if me.role != ON_CALL:
            raise Forbidden
        return me

    me_ = Depends(actor)

    @app.post("/alerts/{alert_id}/release")
    def release_all(
        request: Request,
        alert_id: str,
        me: Reviewer = me_,
        form: dict[str, str] = _Form,
    ) -> Response:
        store = pages.stores.need()
        store.alert(alert_id)
        ids = [each.quarantine_id for each in store.quarantines() if each.alert_id == alert_id]
        if not ids:
            raise WrongState("every quarantine of this alert was released already")
        return _release(request, ids, alert_id, me, form, "/release")

    @app.post("/alerts/{alert_id}/{action}")
    def act(
        request: Request,
        alert_id: str,
        action: str,
        me: Reviewer = me_,
        form: dict[str, str] = _Form,
    ) -> Response:
        store = pages.stores.need()
        store.alert(alert_id)

        def find_means() -> Means:
            return pages.place.find_means(store)

        try:
            perform(action, store, find_means, alert_id, me, form)
        except UnknownId:
            raise
        except UsageError as error:
            return _show_failure(request, me, alert_id, error, form, f"/{action}")
        worker.wake(alert_id)
        return RedirectResponse(f"/alerts/{quote(alert_id, safe='')}?done={action}", 303)

    @app.post("/quarantines/{quarantine_id}/release")
    def release(
        request: Request,
        quarantine_id: str,
        me: Reviewer = me_,
        form: dict[str, str] = _Form,
    ) -> Response:
        known = pages.stores.need().quarantines(in_force=False)
        alert_id = next((q.alert_id for q in known if q.quarantine_id == quarantine_id), "")
        return _release(request, [quarantine_id], alert_id, me, form, "/release")

    def _release(
        request: Request,
        quarantine_ids: Sequence[str],
        alert_id: str,
        me: Reviewer,
        form: dict[str, str],
        action: str,
    ) -> Response:
        store = pages.stores.need()
        try:
            warning = release_and_publish(
                store,
                pages.place.find_means(store).registry,
                quarantine_ids,
                me.name,
                form.get("reason", ""),
                role=me.role,
            )
        except UnknownId:
            raise
        except UsageError as error:
            if not alert_id:
                raise
            return _show_failure(request, me, alert_id, error, form, action)
        worker.wake(alert_id)
        where = f"/alerts/{quote(alert_id, safe='')}" if alert_id else "/quarantines"
        done = "release-unpublished" if warning else "release"
        return RedirectResponse(f"{where}?done={done}", 303)

    def _show_failure(
        request: Request,
        me: Reviewer,
        alert_id: str,
        error: RefitError,
        form: dict[str, str],
        action: str,
    ) -> Response:
        """The alert's page as it is now, with what went wrong and what the person had typed."""
        return pages.show_alert(
            request,
            me,
            alert_id,
            _status_of(error),
            form,
            action,
            message=f"Nothing was done: {error}",
            failed=True,
        )


def _add_probes(app: FastAPI, store: str) -> None:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(StoreCollector(store))

    @app.get("/healthz")
    def answer() -> Response:
        return PlainTextResponse("ok\n")

    @app.get("/metrics")
    def scrape() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

"""Who is asking: a login proxy's header, a token of our own, or nobody but this machine.

Nothing is believed by default: without a login proxy or tokens the application does not start,
unless its settings ask nobody to sign in and it listens on this machine alone.
"""

import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from monitoring.alerts import ON_CALL, VIEWER
from monitoring.review.settings import ANYBODY, SignInSettings
from refit.errors import UsageError

TOKENS_VARIABLE = "REFIT_REVIEW_TOKENS"
"""Environment variable with tokens: lines of ``ROLE NAME TOKEN``."""
TOKENS_FILE_VARIABLE = "REFIT_REVIEW_TOKENS_FILE"
"""Environment variable with the path of a file of such lines."""
LEAST_LETTERS = 24
"""Of a token, so that nobody guesses it."""
SESSION_COOKIE, CSRF_COOKIE = "refit_session", "refit_csrf"
LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Reviewer:
    """Who is asking.

    Attributes:
        name: For the audit trail.
        role: ``viewer`` or ``on-call``.
        by_session: Whether a browser's session says so, which can be signed out of.
        by_bearer: Whether the request carries a token itself, which no other site can make it do.
    """

    name: str
    role: str
    by_session: bool = False
    by_bearer: bool = False


@dataclass(frozen=True)
class AccessToken:
    """A token, and whom it stands for."""

    role: str
    name: str
    secret: str


class RequestForged(Exception):  # noqa: N818 - what happened
    """A request that changes something did not come from one of our own pages."""


def read_tokens(environment: Mapping[str, str] = os.environ) -> tuple[AccessToken, ...]:
    """The tokens of the environment, and of the file that it names.

    Raises:
        UsageError: A line is not ``ROLE NAME TOKEN``, or a token is too short; none is repeated.
    """
    text = environment.get(TOKENS_VARIABLE, "")
    if file := environment.get(TOKENS_FILE_VARIABLE, ""):
        try:
            text += "\n" + Path(file).read_text("utf-8")
        except OSError as error:
            raise UsageError(f"{TOKENS_FILE_VARIABLE}: {file}: {error.strerror}") from None
    tokens = []
    for number, line in enumerate(filter(None, map(str.strip, text.splitlines())), 1):
        role, *rest = line.split()
        if role not in (VIEWER, ON_CALL) or len(rest) != 2:
            raise UsageError(
                f"{TOKENS_VARIABLE}: token {number} must be written ROLE NAME TOKEN, with the role "
                f"{VIEWER} or {ON_CALL}"
            )
        name, secret = rest
        if len(secret) < LEAST_LETTERS:
            raise UsageError(
                f"{TOKENS_VARIABLE}: the token of {name} has fewer than {LEAST_LETTERS} letters; "
                'make one with python -c "import secrets; print(secrets.token_urlsafe(32))"'
            )
        tokens.append(AccessToken(role, name, secret))
    return tuple(tokens)


class Gatekeeper:
    """Says who is asking, and whether a request was made on one of our own pages.

    Args:
        settings: Whose headers are believed, and who has which role.
        tokens: Tokens of our own.
        host: The address that the application listens on.
        no_auth: Ask nobody: whoever reaches the application from this machine is on call.
        base_url: The application's URL as people open it.

    Raises:
        UsageError: Nobody could sign in, or anybody could.
    """

    def __init__(
        self,
        settings: SignInSettings,
        tokens: tuple[AccessToken, ...],
        host: str,
        no_auth: bool = False,
        base_url: str = "",
    ) -> None:
        self.settings, self.tokens, self.no_auth = settings, tokens, no_auth
        self._origin = _origin_of(base_url)
        self.is_secure = base_url.startswith("https://")
        if no_auth and host not in LOOPBACK:
            raise UsageError(
                f"--no-auth asks nobody who they are, and is only for this machine: listen on "
                f"127.0.0.1, not on {host}"
            )
        if no_auth and (tokens or settings.user_header):
            raise UsageError("--no-auth contradicts the tokens or the login proxy: leave one out")
        if settings.user_header and not settings.trusted_proxies:
            raise UsageError(
                "sign_in.user_header is set: name the addresses of the login proxy in "
                "sign_in.trusted_proxies, since anybody can send a header"
            )
        if not (no_auth or tokens or settings.user_header):
            raise UsageError(
                f"nobody could sign in: name a login proxy's header in sign_in.user_header, put "
                f"tokens into {TOKENS_VARIABLE}, or give --no-auth for this machine alone"
            )

    def find(self, request: HTTPConnection) -> Reviewer | None:
        """Who is asking; None when nobody says so, or they have no role."""
        if self.no_auth:
            host = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
            # Another name that leads here is that of a page elsewhere, not of this machine.
            return (
                Reviewer(os.environ.get("USER") or "local", ON_CALL) if host in LOOPBACK else None
            )
        return self._by_header(request) or self._by_bearer(request) or self._by_session(request)

    def _by_header(self, request: HTTPConnection) -> Reviewer | None:
        settings = self.settings
        source = request.client.host if request.client else ""
        if not settings.user_header or not settings.trusts(source):
            return None
        name = request.headers.get(settings.user_header, "").strip()
        if not name:
            return None
        groups = set()
        if settings.groups_header:
            text = request.headers.get(settings.groups_header, "")
            groups = {group.strip() for group in text.split(",")} - {""}
        if name in settings.on_call or groups & set(settings.on_call_groups):
            return Reviewer(name, ON_CALL)
        may_read = name in settings.viewers or ANYBODY in settings.viewers
        if may_read or groups & set(settings.viewer_groups):
            return Reviewer(name, VIEWER)
        return None

    def _by_bearer(self, request: HTTPConnection) -> Reviewer | None:
        kind, _, secret = request.headers.get("authorization", "").partition(" ")
        found = self.match(secret) if kind.lower() == "bearer" else None
        return Reviewer(found.name, found.role, by_bearer=True) if found else None

    def _by_session(self, request: HTTPConnection) -> Reviewer | None:
        name, _, rest = request.cookies.get(SESSION_COOKIE, "").partition("|")
        until, _, signature = rest.partition("|")
        if not until.isdigit() or int(until) < time.time():
            return None
        for token in self.tokens:
            if token.name == name and _same(signature, _sign(token, until)):
                return Reviewer(token.name, token.role, by_session=True)
        return None

    def match(self, secret: str) -> AccessToken | None:
        """The token that equals a secret."""
        found = [token for token in self.tokens if _same(token.secret, secret)]
        return found[0] if found else None

    def make_session(self, token: AccessToken) -> str:
        """The value of the cookie of a new session; it ends with its token."""
        until = str(int(time.time() + 3600 * self.settings.session_hours))
        return f"{token.name}|{until}|{_sign(token, until)}"

    def check_form(self, request: HTTPConnection, me: Reviewer | None, given: str) -> None:
        """Check that a request that changes something came from one of our own pages.

        Raises:
            RequestForged: It did not, or its page is of another session.
        """
        if me is not None and me.by_bearer:
            return
        origin = request.headers.get("origin", "")
        if origin and origin not in (self._origin, f"{request.url.scheme}://{_host(request)}"):
            raise RequestForged
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise RequestForged
        seed = request.cookies.get(CSRF_COOKIE, "")
        if not seed or not _same(given, make_csrf(seed, me)):
            raise RequestForged


def new_seed() -> str:
    """A value for the cookie that forms are checked with."""
    return secrets.token_urlsafe(32)


def make_csrf(seed: str, me: Reviewer | None) -> str:
    """What a form carries: nobody can make it who does not see the cookie, or for another user."""
    return hmac.new(seed.encode(), (me.name if me else "").encode(), hashlib.sha256).hexdigest()


def _sign(token: AccessToken, until: str) -> str:
    text = f"{token.role}|{token.name}|{until}"
    return hmac.new(token.secret.encode(), text.encode(), hashlib.sha256).hexdigest()


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


def _host(request: HTTPConnection) -> str:
    return request.headers.get("host", "")


def _origin_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc else ""

"""Settings of the review application, in a file of their own; nothing in it is secret."""

from ipaddress import ip_address, ip_network
from typing import Literal

from pydantic import Field, field_validator

from refit.alert import Severity
from refit.settings import Settings

ANYBODY = "*"


class SignInSettings(Settings):
    """Who may sign in, and as what. Tokens come from the environment, see ``REFIT_REVIEW_TOKENS``.

    Attributes:
        user_header: Header in which a login proxy names the user, such as ``X-Forwarded-Email``.
            Empty: there is no login proxy.
        groups_header: Header in which it names the user's groups, separated by commas.
        trusted_proxies: Addresses, or networks such as ``10.0.0.0/8``, whose headers are believed;
            those of all others are ignored.
        on_call, on_call_groups: Users and groups who may act.
        viewers, viewer_groups: Users and groups who may read; ``*`` is everybody whom the proxy
            names.
        session_hours: How long a token's session lasts in a browser.
    """

    user_header: str = ""
    groups_header: str = ""
    trusted_proxies: tuple[str, ...] = ()
    on_call: tuple[str, ...] = ()
    on_call_groups: tuple[str, ...] = ()
    viewers: tuple[str, ...] = (ANYBODY,)
    viewer_groups: tuple[str, ...] = ()
    session_hours: float = Field(default=12.0, gt=0)

    @field_validator("trusted_proxies")
    @classmethod
    def _check_networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        for network in networks:
            ip_network(network, strict=False)
        return networks

    def trusts(self, address: str) -> bool:
        """Whether the headers that come from an address are believed."""
        try:
            source = ip_address(address)
        except ValueError:
            return False
        return any(source in ip_network(one, strict=False) for one in self.trusted_proxies)


class LinkSettings(Settings):
    """URLs that pages link to. An empty one shows no link.

    Attributes:
        image: Picture of a listing, such as ``https://img.example/{item_id}.jpg``.
        run: A run of a pipeline, with ``{run}`` for its name.
        report: The evaluation report of a bundle, with ``{bundle_id}``.
        evidently: Evidently's workspace.
    """

    image: str = ""
    run: str = ""
    report: str = ""
    evidently: str = ""

    @field_validator("image", "run", "report", "evidently")
    @classmethod
    def _check_scheme(cls, url: str) -> str:
        if url and not url.startswith(("https://", "http://")):
            raise ValueError("must begin with https:// or http://")
        return url

    @field_validator("image")
    @classmethod
    def _check_image(cls, url: str) -> str:
        if url and "{item_id}" not in url:
            raise ValueError("must contain {item_id}")
        return url


class MailSettings(Settings):
    """How e-mail is sent. The password comes from the environment: ``REFIT_SMTP_PASSWORD``.

    Attributes:
        host, port: The mail server.
        security: ``starttls`` begins in plain text and asks for TLS, ``tls`` begins with it, and
            ``none`` has neither; a user's password is never sent without TLS.
        user: User of the mail server; empty signs in as nobody.
        sender: Address that messages come from.
        recipients: Addresses that they go to.
    """

    host: str
    port: int = Field(default=587, ge=1, le=65535)
    security: Literal["starttls", "tls", "none"] = "starttls"
    user: str = ""
    sender: str
    recipients: tuple[str, ...] = Field(min_length=1)


class NotifySettings(Settings):
    """Which alerts are sent to people, and how often that is tried.

    Attributes:
        minimum_severity: Alerts below it are only on the page.
        mail: How e-mail is sent; null sends none. A webhook needs only its URL in the environment
            variable ``REFIT_ALERT_WEBHOOK``.
        lease_seconds: A message whose process died is sent again after this long.
        first_wait_seconds: Wait after a failed attempt; each further one waits twice as long.
        longest_wait_seconds: The longest wait; a message is tried until it is sent, or until its
            alert is resolved or muted.
    """

    minimum_severity: Severity = Severity.INFO
    mail: MailSettings | None = None
    lease_seconds: float = Field(default=120.0, gt=0)
    first_wait_seconds: float = Field(default=30.0, gt=0)
    longest_wait_seconds: float = Field(default=3600.0, gt=0)


class ReviewSettings(Settings):
    """All settings of the review application.

    Attributes:
        base_url: Its URL as people open it; messages link to it.
        sign_in: Who may sign in.
        links: What pages link to, and where pictures of listings are.
        notify: Which alerts are sent to people.
        page_size: Alerts on one page of the list.
        poll_seconds: Between two looks for requests to carry out and messages to send.
    """

    base_url: str = ""
    sign_in: SignInSettings = SignInSettings()
    links: LinkSettings = LinkSettings()
    notify: NotifySettings = NotifySettings()
    page_size: int = Field(default=25, ge=1, le=500)
    poll_seconds: float = Field(default=10.0, gt=0)

"""Settings of the plain door, Refit's own server without Seldon."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from refit.settings import Settings


class DoorSettings(Settings):
    """What the plain door accepts, from whom, and how much of it at once.

    Attributes:
        model: Name of the recommender in the Open Inference Protocol.
        threads: Number of requests that a worker process answers at the same time. Quick answers
            that need no other process are given one after another, without threads.
        queue: Number of requests that may wait for a thread; further ones are answered 429 (gRPC:
            RESOURCE_EXHAUSTED) at once.
        retry_after_s: What an answer 429 tells the client to wait.
        head_seconds: How long a connection may take until the headers of a request are there; for a
            new connection from its start, then from the first byte.
        body_seconds: How long the body of a request may take.
        idle_seconds: How long a connection may be silent between two requests.
        max_body_bytes: Size of the largest body, and of the largest gRPC message.
        max_connections: Number of HTTP connections that a worker keeps open; further ones are
            closed.
        token_file: File with the bearer tokens that are accepted, one in a line; read again when it
            changes. None lets everybody in.
        certificate, key: PEM files for TLS, read again when they change.
        client_authority: PEM file of the authorities whose client certificates are accepted (mTLS);
            without a certificate nobody gets in.
        allowed_origins: Web pages that may call from a browser (CORS), such as
            ``https://shop.example.org``; by default none may.
        intake: Take lines of the feeds as requests, at ``/feeds/stock`` and ``/feeds/activity``.
            They change what everybody is shown, so that this needs ``token_file`` or
            ``client_authority``.
        stuck_seconds: A worker process that shows no sign of life for so long is replaced.
    """

    model: str = Field("refit", pattern=r"^[A-Za-z0-9_.-]+$")
    threads: int = Field(4, ge=1)
    queue: int = Field(64, ge=0)
    retry_after_s: int = Field(1, ge=1)
    head_seconds: float = Field(5.0, gt=0)
    body_seconds: float = Field(10.0, gt=0)
    idle_seconds: float = Field(75.0, gt=0)
    max_body_bytes: int = Field(1 << 20, ge=1)
    max_connections: int = Field(4000, ge=1)
    token_file: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    client_authority: Path | None = None
    allowed_origins: tuple[str, ...] = ()
    intake: bool = False
    stuck_seconds: float = Field(20.0, gt=2)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key need each other")
        if self.client_authority and not self.certificate:
            raise ValueError("client_authority needs certificate and key")
        if self.intake and not (self.token_file or self.client_authority):
            raise ValueError("intake needs token_file or client_authority")
        if "*" in self.allowed_origins:
            raise ValueError("allowed_origins names the pages that may call; '*' is not one")
        return self

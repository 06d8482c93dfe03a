"""Settings of the recommender inside the microservice, and of starting it all on one machine."""

import tempfile
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from refit.settings import Settings

SERVING_PYTHON = Path(".venv-serving/bin/python")
CANNOT_SERVE = "cannot serve: "
"""Starts the line in which a worker of the microservice tells why it gave up."""


class RecommenderSettings(Settings):
    """How a recommender answers; Seldon passes them as the microservice's parameters.

    Attributes:
        registry: Registry folder or fsspec URL; its champion is what is served.
        bundle: Serve this bundle and no other; empty serves the champion and follows it.
        model_server: ``host:port`` of the gRPC API of TensorFlow Serving or its stand-in.
        towers_wait_s: How long the start waits for a model server that does not answer yet; after
            it, popularity answers until the towers are there.
        log_folder: Where the prediction log goes: a folder, or an fsspec URL, whose parts are
            written in ``log_staging`` first.
        log_staging: A local folder for that.
        stock_folder: Where the stock feed's files arrive; None serves the bundle's stock as it is.
        cache: Where bundles of a remote registry are kept; must be visible to the model server.
        allow_replay: Take a request's own ``time`` for now; for simulations and back-tests.
        tower_deadline_ms: How long an answer waits for the query tower before it falls back.
        load_timeout_s: How long the model server may take to load a bundle's towers.
        breaker_failures: After this many failures in a row the tower is left alone ...
        breaker_seconds: ... for this long, then tried with one request.
        poll_seconds: How often stock feed, champion and model server are looked at.
        unload_after_seconds: How long the towers of the bundle before stay loaded after a swap.
        log_rows, log_seconds: A part of the prediction log is closed after so many rows or seconds.
        log_queue: Answers waiting to be logged; beyond it they are dropped and counted.
    """

    registry: str
    bundle: str = ""
    model_server: str = "127.0.0.1:8500"
    towers_wait_s: float = Field(0.0, ge=0)
    log_folder: str = Field(min_length=1)
    log_staging: Path = Path(tempfile.gettempdir()) / "refit-predictions"
    stock_folder: Path | None = None
    cache: Path | None = None
    allow_replay: bool = False
    tower_deadline_ms: float = Field(250.0, gt=0)
    load_timeout_s: float = Field(120.0, gt=0)
    breaker_failures: int = Field(3, ge=1)
    breaker_seconds: float = Field(2.0, gt=0)
    poll_seconds: float = Field(1.0, gt=0)
    unload_after_seconds: float = Field(30.0, ge=0)
    log_rows: int = Field(1000, ge=1)
    log_seconds: float = Field(5.0, gt=0)
    log_queue: int = Field(10_000, ge=1)

    @field_validator("log_folder", mode="before")
    @classmethod
    def _take_paths(cls, value: Any) -> Any:
        return str(value) if isinstance(value, Path) else value

    @property
    def log_url(self) -> str:
        """Where closed parts of the prediction log are uploaded; empty leaves them in place."""
        return self.log_folder if "://" in self.log_folder else ""

    @property
    def local_log(self) -> Path:
        """The folder that the prediction log is written in."""
        return self.log_staging if self.log_url else Path(self.log_folder)


class ServeSettings(Settings):
    """How ``launch`` starts the microservice and the model server as local processes.

    Attributes:
        recommender: Settings of the recommender; its ``model_server`` is filled in by ``launch``.
        host: Where the model server listens and clients connect; Seldon itself binds to all.
        http_port, grpc_port, metrics_port, model_server_port: 0 takes a free one.
        python: Python of the serving environment.
        run_folder: Where both processes write their output; None writes beside the log folder.
        workers: REST worker processes; each holds its own copy of the index.
        threads: Threads per REST worker; more than one keeps a slow client from blocking others.
        ready_timeout_s: How long the start may take.
    """

    recommender: RecommenderSettings
    host: str = "127.0.0.1"
    http_port: int = Field(9000, ge=0, le=65535)
    grpc_port: int = Field(5000, ge=0, le=65535)
    metrics_port: int = Field(6000, ge=0, le=65535)
    model_server_port: int = Field(8500, ge=0, le=65535)
    python: Path = SERVING_PYTHON
    run_folder: Path | None = None
    workers: int = Field(1, ge=1)
    threads: int = Field(4, ge=1)
    ready_timeout_s: float = Field(120.0, gt=0)

"""Settings of the recommender, and of starting the servers on one machine."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from refit.errors import UsageError
from refit.setting_values import Places
from refit.settings import Settings
from serving.doors.settings import DoorSettings
from serving.engines.settings import EngineSettings
from serving.feeds.settings import LiveFeedSettings, PeopleSettings
from serving.stage_settings import ExperimentSettings, RetrievalSettings, SlateSettings

SERVING_PYTHON = Path(".venv-serving/bin/python")
CANNOT_SERVE = "cannot serve: "
"""Prefix of the log line with the reason why a worker could not start."""


class RecommenderSettings(Settings):
    """Settings of a recommender; Seldon passes them as the parameters of the microservice.

    Attributes:
        registry: Registry folder or fsspec URL; its champion is served.
        bundle: Serve this bundle and no other; empty serves the champion and follows it.
        query_tower: Where a query is embedded: on the ``model_server``, or ``in_process``, which is
            faster and needs a bundle that was trained with ``train.in_process_tower``.
        model_server: ``host:port`` of the gRPC API of TensorFlow Serving or its stand-in. With the
            query tower in process it only embeds listings that are newer than the bundle. Where
            there are none it may be empty: then no model server is needed, and such listings wait.
        towers_wait_s: How long the start waits for a model server that does not answer; after it,
            popularity answers until the towers are loaded.
        log_folder: Folder of the prediction log, or an fsspec URL, whose parts are written to
            ``log_staging`` first.
        log_staging: Local staging folder of a remote prediction log.
        log_staging_mib: MiB that parts may take there while the store is away; beyond it new
            answers are dropped and counted. Of a pod it must fit into its ``emptyDir``, else the
            pod is evicted.
        feeds: The feeds of stock and activity.
        people: What is kept of the activity feed.
        cache: Folder for bundles of a remote registry; the model server must be able to read it.
        allow_replay: Use the ``time`` of a request as now; for simulations and back-tests.
        holdout_share: Share of people who always get popularity, so that the monitor can tell a
            fall of the market from one of the model. Whose turn it is follows from a hash of the
            person, the same in every process; people who are not known get the model.
        holdout_salt: Another text draws other people.
        engine: What searches the live items' vectors; by default this process.
        retrieval: Where the candidates of an answer come from.
        slate: Which candidates are shown, and which slots are drawn at random.
        experiment: Buckets of people whose answers differ.
        tower_deadline_ms: How long an answer waits for a query tower on the model server before it
            falls back.
        load_timeout_s: How long the model server may take to load a bundle's towers.
        breaker_failures: Number of consecutive failures after which the breaker opens.
        breaker_seconds: How long the breaker stays open before it lets one request through.
        poll_seconds: Interval at which champion and model server are polled.
        unload_after_seconds: How long the towers of the previous bundle stay loaded after a swap.
        log_rows, log_seconds: A part of the prediction log is closed after so many rows or seconds.
        log_queue: Maximum number of answers that wait to be logged, also while the disk is full;
            further ones are dropped and counted.
    """

    registry: str
    bundle: str = ""
    query_tower: Literal["model_server", "in_process"] = "model_server"
    model_server: str = "127.0.0.1:8500"
    towers_wait_s: float = Field(0.0, ge=0)
    log_folder: str = Field(min_length=1)
    log_staging: Path = Path(tempfile.gettempdir()) / "refit-predictions"
    log_staging_mib: int = Field(512, ge=1)
    feeds: LiveFeedSettings = LiveFeedSettings()
    people: PeopleSettings = PeopleSettings()
    cache: Path | None = None
    allow_replay: bool = False
    holdout_share: float = Field(0.0, ge=0, le=0.5)
    holdout_salt: str = "refit"
    engine: EngineSettings = EngineSettings()
    retrieval: RetrievalSettings = RetrievalSettings()
    slate: SlateSettings = SlateSettings()
    experiment: ExperimentSettings = ExperimentSettings()
    tower_deadline_ms: float = Field(250.0, gt=0)
    load_timeout_s: float = Field(120.0, gt=0)
    breaker_failures: int = Field(3, ge=1)
    breaker_seconds: float = Field(2.0, gt=0)
    poll_seconds: float = Field(1.0, gt=0)
    unload_after_seconds: float = Field(30.0, ge=0)
    log_rows: int = Field(1000, ge=1)
    log_seconds: float = Field(5.0, gt=0)
    log_queue: int = Field(10_000, ge=1)

    @classmethod
    def parse(
        cls, values: Mapping[str, Any], places: Places | None = None, source: str = ""
    ) -> Self:
        """Read settings; nested ones may be given as JSON, since Seldon's parameters are flat."""
        read = {name: _read_nested(cls, name, value) for name, value in values.items()}
        return super().parse(read, places, source)

    @model_validator(mode="after")
    def _check_model_server(self) -> Self:
        if not self.model_server and self.query_tower == "model_server":
            raise ValueError("model_server: give its address, or set query_tower to in_process")
        return self

    @field_validator("log_folder", mode="before")
    @classmethod
    def _take_paths(cls, value: Any) -> Any:
        return str(value) if isinstance(value, Path) else value

    @property
    def log_url(self) -> str:
        """URL that closed parts of the prediction log are moved to; empty for a local log."""
        return self.log_folder if "://" in self.log_folder else ""

    @property
    def local_log(self) -> Path:
        """The local folder that the prediction log is written to."""
        return self.log_staging if self.log_url else Path(self.log_folder)


def _read_nested(cls: type[Settings], name: str, value: Any) -> Any:
    field = cls.model_fields.get(name)
    if not isinstance(value, str) or field is None or not _is_settings(field.annotation):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise UsageError(f"{name} must be a JSON object: {error}") from None


def _is_settings(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Settings)


class PlainServerSettings(Settings):
    """What ``python -m serving.doors`` runs.

    Attributes:
        recommender: Settings of the recommender.
        door: Settings of the door.
        host: Address that HTTP and gRPC listen on.
        http_port, grpc_port: Ports for requests.
        health_port: Port for liveness, readiness and metrics.
        workers: Number of processes that answer; they share the memory of the index.
    """

    recommender: RecommenderSettings
    door: DoorSettings = DoorSettings()
    host: str = "0.0.0.0"
    http_port: int = Field(9000, ge=1, le=65535)
    grpc_port: int = Field(9500, ge=1, le=65535)
    health_port: int = Field(6000, ge=1, le=65535)
    workers: int = Field(1, ge=1)


class ServeSettings(Settings):
    """How ``launch`` starts the recommender and the model server as local processes.

    Attributes:
        recommender: Settings of the recommender; its ``model_server`` is filled in by ``launch``.
        door: ``seldon`` runs Seldon's server, ``plain`` Refit's own.
        plain: Settings of the plain door.
        host: Address of the model server, the plain door and clients; Seldon's server listens on
            all addresses.
        http_port, grpc_port, metrics_port, model_server_port: 0 uses a free port.
        python: Python of the serving environment.
        run_folder: Folder for the output of both processes; None uses ``processes`` in the local
            folder of the prediction log.
        workers: Number of worker processes (Seldon: of REST); they share the memory of the index.
        threads: Threads per worker of Seldon's server; with more than one, a slow client does not
            block others. The plain door's are ``plain.threads``.
        ready_timeout_s: How long the start may take.
    """

    recommender: RecommenderSettings
    door: Literal["seldon", "plain"] = "seldon"
    plain: DoorSettings = DoorSettings()
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

"""Settings of the engine that searches the live items' vectors."""

import tempfile
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from refit.settings import Settings
from serving.feeds.settings import LiveFeedSettings


class WeaviateSettings(Settings):
    """A Weaviate cluster of version 1.33 or later.

    Attributes:
        http: ``host:port`` of the HTTP API of each node; changes go there.
        grpc: ``host:port`` of the gRPC API of each node, or of a headless Service; searches go
            there, to each in turn, and to the next where one does not answer.
        tls: Whether both are spoken over TLS.
        api_key: File with the key; mount it from a Secret. None: the cluster wants none.
        collections: What the names of Refit's collections begin with.
        deadline_ms: How long an answer waits for its search before it falls back.
        attempt_ms: How long for one node, before the next is asked.
    """

    http: tuple[str, ...] = Field(min_length=1)
    grpc: tuple[str, ...] = Field(min_length=1)
    tls: bool = False
    api_key: Path | None = None
    collections: str = Field("Refit", pattern=r"^[A-Z][0-9A-Za-z]{0,63}$")
    deadline_ms: float = Field(250.0, gt=0)
    attempt_ms: float = Field(120.0, gt=0)

    @model_validator(mode="after")
    def _check_attempt(self) -> Self:
        if self.attempt_ms > self.deadline_ms:
            raise ValueError("attempt_ms is longer than deadline_ms")
        return self


class EngineSettings(Settings):
    """What searches the live items' vectors.

    Attributes:
        weaviate: A Weaviate cluster; null searches in the server's own process.
        most: So many items at most are asked for at once, where rules remove much of what is
            found; an answer that is short after that is counted.
    """

    weaviate: WeaviateSettings | None = None
    most: int = Field(2000, ge=1, le=10_000)


class CollectionSettings(Settings):
    """How a collection is made, filled and kept.

    Attributes:
        replicas: On how many nodes each item is.
        shards: Into how many parts a collection is split; 0: one for each node.
        ef: How many candidates a search keeps; more find more, and take longer. -1: Weaviate
            chooses, between 100 and 500.
        exact_below: Filters that leave fewer items than this are searched exactly.
        batch: So many items are written at once.
        threads: So many batches are written at the same time.
        min_recall: A collection that finds a smaller share of the exact 100 nearest items is not
            used.
        recall_people: Of so many people the nearest items are compared.
        keep_seconds: How long a collection is kept after another took its place.
    """

    replicas: int = Field(3, ge=1)
    shards: int = Field(0, ge=0)
    ef: int = Field(-1, ge=-1)
    exact_below: int = Field(40_000, ge=0)
    batch: int = Field(500, ge=1, le=10_000)
    threads: int = Field(4, ge=1)
    min_recall: float = Field(0.9, ge=0, le=1)
    recall_people: int = Field(100, ge=1)
    keep_seconds: float = Field(60.0, ge=0)


class IndexWriterSettings(Settings):
    """What ``python -m serving.engines`` runs: the one process that writes to a Weaviate cluster.

    Attributes:
        registry: Registry folder or fsspec URL; its champion and its candidate are written.
        bundles: Further bundles, which a recommender serves by its setting ``bundle``.
        weaviate: The cluster; a search of the writer may take longer than an answer's.
        collection: How collections are made, filled and kept.
        model_server: ``host:port`` of a model server of its own, which embeds new listings.
        feeds: The stock feed.
        cache: Folder for bundles of a remote registry; the model server must be able to read it.
        letters: Folder for lines of the feed that cannot be used.
        load_timeout_s: How long the model server may take to load a bundle's towers.
        poll_seconds: Interval at which the champion and the feed are looked at.
        health_port: Port for liveness and metrics.
    """

    registry: str
    bundles: tuple[str, ...] = ()
    weaviate: WeaviateSettings
    collection: CollectionSettings = CollectionSettings()
    model_server: str = "127.0.0.1:8500"
    feeds: LiveFeedSettings = LiveFeedSettings()
    cache: Path | None = None
    letters: Path = Path(tempfile.gettempdir()) / "refit-index-writer"
    load_timeout_s: float = Field(120.0, gt=0)
    poll_seconds: float = Field(0.5, gt=0)
    health_port: int = Field(6000, ge=0, le=65535)

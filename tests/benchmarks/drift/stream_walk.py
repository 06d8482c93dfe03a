"""A stream under the monitor: every window is answered, measured and decided on.

Serving is simulated. Nobody saw these lists: the model in service answers every visit, and what the
visit bought counts as bought from the list where the list holds it. So live rates say how often the
model finds what people choose; they are no sales that it caused. A person resolves each alert some
windows later and keeps what the monitor did.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from monitoring.alerts import resolve
from monitoring.monitor import MonitorInputs, monitor
from monitoring.reference import Reference, build_reference
from monitoring.settings import MonitorSettings
from monitoring.store import SqlStore
from monitoring.windows import MonitoredData, daily_windows
from refit.alert import Action, Alert, AlertStatus
from refit.dataset import Split
from refit.errors import GateRefused
from refit.incident import Incident
from refit.prediction import build_predictions
from tests.benchmarks.drift.operated import without_pictures
from tests.benchmarks.drift.stream_data import Stream
from tests.benchmarks.drift.stream_models import StreamModels
from tests.benchmarks.drift.towers import Ints
from tests.benchmarks.drift.written import write_dataset, write_index, write_table

REFERENCE_WINDOWS = 4
"""A reference needs so many windows, to know how they differ."""
WAIVED = ("listing-embedding/*",)
"""As in the shipped configs: no source says when an item was listed."""
RESOLVED_AFTER = 4
"""Windows until a person resolves an alert."""


@dataclass(frozen=True)
class Watched:
    """One window under the monitor.

    Attributes:
        window: Which one.
        model: The window before which the model in service was fitted.
        action: The decision.
        is_raised: Whether an alert was raised.
        is_open: Whether there was an unresolved alert after it.
        drifting: What the alert is about.
        incident: The story.
        reasons: Of the decision.
    """

    window: int
    model: int
    action: Action
    is_raised: bool
    is_open: bool
    drifting: tuple[str, ...]
    incident: Incident | None
    reasons: tuple[str, ...]


def choose_settings(stream: Stream) -> MonitorSettings:
    """The defaults, but for the length of a window, references of four, and what has no data."""
    measure = MonitorSettings().measure
    known = max(measure.reference_days, float(REFERENCE_WINDOWS * stream.days))
    own = {"window_days": float(stream.days), "reference_days": known}
    policy = MonitorSettings().policy.model_copy(update={"waived": WAIVED})
    return MonitorSettings(measure=measure.model_copy(update=own), policy=policy)


@dataclass
class StreamWalk:
    """A stream, its model in service, and its alert store.

    Attributes:
        models: Models of the stream.
        folder: Everything is written below it.
        refits: Whether a refit that the monitor starts is carried out, without a gate; otherwise
            its gate refuses, and the first model stays.
    """

    models: StreamModels
    folder: Path
    refits: bool
    watched: list[Watched] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stream = self.models.stream
        self.settings = choose_settings(self.stream)
        self.folder.mkdir(parents=True)
        self.store = SqlStore(self.folder / "alerts.sqlite")
        events = self.stream.events.num_rows
        self.request: NDArray[Any] = np.full(events, None, dtype=object)
        self._next = self.stream.first
        self._deploy(self._next)

    def run(self) -> list[Watched]:
        """Go through all windows."""
        while (window := self.stream.first + len(self.watched)) < self.stream.count:
            self.step(window)
        return self.watched

    def step(self, window: int) -> Watched:
        """Go through one window."""
        with without_pictures():
            self.watched.append(self._watch(window))
        return self.watched[-1]

    def _watch(self, window: int) -> Watched:
        if self._next != self.model:
            self._deploy(self._next)
        stream = self.stream
        self._answer(self.model, window, self.folder / "log", "live")
        end = stream.begin(window + 1)
        index = self._write_index(window + 1)
        known = self._events(max(window - 7, 0), window + 1)
        write_table(self.folder / "events.parquet", known)
        write_table(self.folder / "items.parquet", self._items(window + 1))
        inputs = MonitorInputs(
            bundle_id=self._bundle(window + 1),
            reference=self._reference,
            data=MonitoredData(
                log=self.folder / "log",
                events=self.folder / "events.parquet",
                items=self.folder / "items.parquet",
                index=index,
            ),
            windows=daily_windows(end, 1, float(stream.days)),
        )
        pages = self.folder / "pages"
        outcome = monitor(self.settings, inputs, self.store, pages, end, launch=self._launch)
        is_open = any(a.status is not AlertStatus.RESOLVED for a in self.store.alerts())
        for alert in self.store.alerts():
            age = end - alert.created_at
            late = age >= timedelta(days=RESOLVED_AFTER * stream.days)
            if late and alert.status is not AlertStatus.RESOLVED:
                resolve(self.store, alert.alert_id, "on call", "seen")
        return Watched(
            window,
            self.model,
            outcome.decision.action,
            any(alert.created_at == end for alert in self.store.alerts()),
            is_open,
            tuple(r.name for r in outcome.alert.results) if outcome.alert else (),
            outcome.incident,
            outcome.decision.reasons,
        )

    def _launch(self, refit: object, alert: Alert) -> str:
        if not self.refits:
            raise GateRefused("the bench keeps its model")
        self._next = self.stream.first + len(self.watched) + 1
        return self.models.fit(self._next).embedding_version

    def _deploy(self, model: int) -> None:
        """Put the model in service that was fitted before a window, and build its reference."""
        self.model = self._next = model
        stream = self.stream
        version = self.models.fit(model).embedding_version
        home = self.folder / f"fit-{model}"
        span = round(self.settings.measure.reference_days / stream.days)
        for window in range(model - span, model):
            self._answer(model, window, home / "predictions", "offline")
        end = stream.begin(model)
        events = self._events(0, model)
        tables = {
            "events": events,
            "items": self._items(model),
            "users": pa.table({"user_id": pc.unique(events["user_id"])}),
        }
        split = Split(
            start=stream.begin(0),
            validation_start=stream.begin(model - span - 1),
            test_start=stream.begin(model - span),
            end=end,
        )
        write_dataset(home / "dataset", tables, split, stream.context_columns, source=stream.name)
        build_reference(
            self.settings.measure,
            home / "predictions",
            self._write_index(model),
            home / "dataset",
            version,
            home / "reference",
        )
        self._reference = Reference.read(home / "reference")

    def _bundle(self, window: int) -> str:
        version = self.models.fit(self.model).embedding_version
        return f"{self.stream.begin(window):%Y%m%dT%H%M%S}000Z-{version}"

    def _write_index(self, window: int) -> Path:
        """The index that serves a window."""
        folder = self.folder / f"index-{self.model}-{window}"
        rows = np.flatnonzero(self.models.stock(window))
        vectors = self.models.item_vectors(self.model, window)[rows]
        stock = self.stream.items.take(pa.array(rows)).drop_columns(["listed_at"])
        version = self.models.fit(self.model).embedding_version
        write_index(folder, vectors, stock, version, self.stream.begin(window))
        return folder

    def _items(self, window: int) -> pa.Table:
        return self.stream.items.filter(pa.array(self.models.stock(window))).drop_columns(
            ["listed_at"]
        )

    def _events(self, first: int, before: int) -> pa.Table:
        """The events of some windows, with the answers that they followed from."""
        low, high = np.searchsorted(self.stream.event_window, [first, before])
        rows = self.stream.events.slice(low, high - low).drop_columns(["visit"])
        requests = pa.array(self.request[low:high], pa.string())
        return rows.append_column("request_id", requests)

    def _answer(self, model: int, window: int, log: Path, prefix: str) -> None:
        """Answer all visits of a window; what was bought from a list gets the answer's id."""
        visits, bought = self.models.purchases(window)
        queries, lists, scores = self.models.answer(model, window, visits)
        self._note_purchases(visits, bought, lists, prefix)
        first = self.stream.first_event[visits]
        rows = self.stream.events.take(pa.array(first))
        ids = self.stream.items["item_id"].combine_chunks()
        n, k = lists.shape
        offsets = pa.array(np.arange(n + 1) * k, pa.int32())
        version = self.models.fit(model).embedding_version
        bundle = self._bundle(window) if prefix == "live" else "offline"
        answers = build_predictions(
            {
                "request_id": [f"{prefix}-{visit}" for visit in visits],
                "bundle_id": [bundle] * n,
                "embedding_version": [version] * n,
                "user_id": rows["user_id"],
                "time": rows["event_time"],
                "context": self._contexts(rows),
                "query_embedding": pa.array(list(queries), pa.list_(pa.float32())),
                "item_ids": pa.ListArray.from_arrays(offsets, ids.take(pa.array(lists.ravel()))),
                "scores": pa.ListArray.from_arrays(offsets, pa.array(scores.ravel(), pa.float32())),
                "latency_ms": [2.0] * n,
            },
            n,
        )
        write_table(log / f"{window}.parquet", answers)

    def _contexts(self, rows: pa.Table) -> list[str]:
        named = rows.select(list(self.stream.context_columns)).to_pylist()
        return [json.dumps(row) for row in named] or [json.dumps({})] * rows.num_rows

    def _note_purchases(
        self, visits: Ints, bought: Sequence[Ints], lists: Ints, prefix: str
    ) -> None:
        found = {
            (int(visit), int(item))
            for visit, items, listed in zip(visits, bought, lists, strict=True)
            for item in np.intersect1d(items, listed)
        }
        low, high = np.searchsorted(self.stream.event_visit, [visits[0], visits[-1] + 1])
        for event in range(low, high):
            pair = (int(self.stream.event_visit[event]), int(self.stream.event_item[event]))
            if pair in found and self.request[event] is None:
                self.request[event] = f"{prefix}-{pair[0]}"

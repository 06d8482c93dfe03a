"""What remains of the drift without one value: the newest window, measured again without its rows.

A value is a candidate when its share grew most, at most ``MOST_VALUES`` of them; a column is one
when drift may be a matter of how much there is of each of its values, and of nothing within them.
Rows of other tables follow: events on items of the value, answers that recommend them.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import NDArray

from monitoring import tables
from monitoring.calibration import CalibratedMetric, find_ages, find_slot
from monitoring.expectation import Days, Variogram, compare, fit_variogram
from monitoring.explain.context import WithoutValue
from monitoring.frame import Frame, combine, is_list, share_values
from monitoring.measure import to_earlier_days
from monitoring.reference import Reference
from monitoring.settings import MeasureSettings
from monitoring.subjects import IDENTIFIERS
from monitoring.summary import WindowSummary
from monitoring.windows import MonitoredData
from refit.drift import DriftResult, DriftState, Window

MOST_VALUES = 9
MOST_COLUMNS = 3
_LEAST_GROWTH = 0.02
_MIX_COLUMNS = ("category_2", "category_1")
Weights = NDArray[np.float64]


def measure_without(
    settings: MeasureSettings,
    reference: Reference,
    data: MonitoredData,
    frames: Mapping[str, Frame],
    newest: Window,
    results: Sequence[DriftResult],
    earlier: Sequence[WindowSummary] = (),
) -> tuple[WithoutValue, ...]:
    """Measure the drifting results of the newest window again without each candidate.

    Cost: every drifting metric encodes the window once, and a candidate takes a weighted mean of
    it and a comparison: 2 s for 40 drifting results on 5,000 rows, most of it comparisons.

    Args:
        settings: As for ``measure``.
        reference: The reference of the towers in service.
        data: Where the items are, which say what events and answers are about.
        frames: The rows of the newest window by table.
        newest: The newest window.
        results: Of which those of the newest window that drift are measured again.
        earlier: Summaries of windows before the drift, as for ``measure``.
    """
    drifting = {r.name for r in results if r.window == newest and r.state is DriftState.DRIFT}
    metrics = [
        metric
        for metric in reference.metrics
        if metric.entry.name in drifting and metric.entry.table in frames
    ]
    if not metrics:
        return ()
    encoded = [_Encoded.of(settings, metric, frames, newest, earlier) for metric in metrics]
    weigh = _Weigher(reference, data, frames)
    names = tuple(each.metric.entry.name for each in encoded)
    found = []
    for candidate, weights in _list_candidates(weigh):
        gone = tuple(
            each.metric.entry.name
            for each in encoded
            if each.is_gone(settings, weights(each.metric.entry.table))
        )
        found.append(candidate.model_copy(update={"measured": names, "gone": gone}))
    return tuple(found)


@dataclass(frozen=True)
class _Encoded:
    """A drifting metric with the newest window's features, dense or sparse, and earlier days."""

    metric: CalibratedMetric
    features: Any
    positions: NDArray[np.int64]
    days: Days
    variogram: Variogram
    window: Days

    @classmethod
    def of(
        cls,
        settings: MeasureSettings,
        metric: CalibratedMetric,
        frames: Mapping[str, Frame],
        newest: Window,
        earlier: Sequence[WindowSummary],
    ) -> "_Encoded":
        frame = frames[metric.entry.table]
        features, positions = metric.encode(frame)
        days = metric.reference.joined_with(to_earlier_days(settings, metric, earlier))
        start = newest.start.timestamp() / tables.SECONDS_A_DAY
        window = Days(
            np.empty((1, metric.axes.shape[1])),
            np.array([metric.count_effective(frame, positions)]),
            np.array([start]),
            np.array([find_slot(start, settings)]),
            find_ages(frame, positions).mean(keepdims=True),
        )
        return cls(metric, features, positions, days, fit_variogram(days, metric.noise), window)

    def is_gone(self, settings: MeasureSettings, weights: Weights | None) -> bool:
        """Whether the metric no longer drifts with weights of its table's rows."""
        if weights is None:
            return False
        own = weights[self.positions]
        total, square = float(own.sum()), float(np.square(own).sum())
        if not square or total**2 / square < settings.minimum_rows:
            return False
        mean = (own @ self.features.astype(np.float64)) / total
        n = self.window.n * (total**2 / square / len(own))
        here = Days(
            self.metric.place(mean)[None], n, self.window.at, self.window.slot, self.window.age
        )
        compared = compare(self.days, self.metric.noise, self.variogram, here)
        return (
            compared.p_value >= settings.false_alarm_rate
            or compared.value < self.metric.entry.floor
        )


@dataclass(frozen=True)
class _Weigher:
    """Weights of the rows of every table, as a value of one of them is left out."""

    reference: Reference
    data: MonitoredData
    frames: Mapping[str, Frame]

    def columns(self, table: str) -> list[str]:
        """Columns of a table whose values are measured: categories, not identifiers."""
        entries = self.reference.manifest.metrics
        own = [e.column for e in entries if e.table == table and e.statistic == "value_shares"]
        names = self.frames[table].names if table in self.frames else []
        return [c for c in dict.fromkeys(own) if c in names and c not in IDENTIFIERS]

    @cached_property
    def _items(self) -> pa.Table | None:
        """The items that events, answers and listings of the window are about."""
        if self.data.items is None:
            return None
        ids = [pa.array([], pa.string())]
        for frame in self.frames.values():
            for name in ("item_id", "item_ids"):
                if name in frame.names:
                    cells = frame.column(name)
                    ids.append(combine(pc.list_flatten(cells)) if is_list(cells) else cells)
        wanted = pc.unique(pa.concat_arrays(ids))
        source = ds.dataset(str(self.data.items), format="parquet")
        columns = {"item_id", *self.columns("items")}
        names = [name for name in source.schema.names if name in columns]
        return source.to_table(columns=names, filter=pc.is_in(ds.field("item_id"), wanted))

    def values(self, table: str, column: str) -> tuple[pa.Array, NDArray[np.int64]] | None:
        """Values of a column of ``items`` or ``events`` in a table's rows, and their rows."""
        frame = self.frames[table]
        home, _, name = column.partition(".")
        if home == table:
            return frame.column(name), np.arange(len(frame))
        if home == "events":
            return self._asked(frame, name) if table == "answers" else None
        return self._joined(frame, name)

    def _asked(self, frame: Frame, name: str) -> tuple[pa.Array, NDArray[np.int64]] | None:
        """What requests asked for, from their contexts."""
        found = [
            json.loads(text).get(name) if text else None
            for text in frame.column("context").to_pylist()
        ]
        return pa.array([None if v is None else str(v) for v in found], pa.string()), np.arange(
            len(frame)
        )

    def _joined(self, frame: Frame, name: str) -> tuple[pa.Array, NDArray[np.int64]] | None:
        """A column of the items that rows are about; an answer is about all that it lists."""
        if self._items is None or name not in self._items.column_names:
            return None
        key = "item_ids" if "item_ids" in frame.names else "item_id"
        if key not in frame.names:
            return None
        ids, rows = frame.column(key), np.arange(len(frame))
        if is_list(ids):
            rows = pc.list_parent_indices(ids).to_numpy(zero_copy_only=False)
            ids = combine(pc.list_flatten(ids))
        place = pc.index_in(ids, value_set=combine(self._items["item_id"]))
        return combine(self._items[name]).take(place), rows

    def weigh(self, table: str, column: str, factor: Mapping[str, float]) -> Weights | None:
        """[n] mean factor of a row's values; 1 for a value without one. None where unknown."""
        found = self.values(table, column)
        if found is None:
            return None
        values, rows = found
        keys = pa.array(list(factor), pa.string())
        code = np.asarray(pc.fill_null(pc.index_in(_as_text(values), value_set=keys), -1)).astype(
            np.int64
        )
        factors = np.append(np.array(list(factor.values())), 1.0)[code]
        count = np.bincount(rows, minlength=len(self.frames[table]))
        total = np.bincount(rows, weights=factors, minlength=len(self.frames[table]))
        weights: Weights = np.where(count > 0, total / np.maximum(count, 1), 1.0)
        return weights

    def spread(
        self, column: str, factor: Mapping[str, float], aliases: Mapping[str, Sequence[str]]
    ) -> Callable[[str], Weights | None]:
        """Weights of any table: by the column itself, and by what is asked for where it says so."""
        kept: dict[str, Weights | None] = {}

        def find(table: str) -> Weights | None:
            if table not in kept:
                kept[table] = self._combine(table, column, factor, aliases)
            return kept[table]

        return find

    def _combine(
        self,
        table: str,
        column: str,
        factor: Mapping[str, float],
        aliases: Mapping[str, Sequence[str]],
    ) -> Weights | None:
        weights = self.weigh(table, column, factor)
        if weights is None or table not in ("events", "answers"):
            return weights
        own = {alias: factor[value] for value, names in aliases.items() for alias in names}
        if own and column.startswith("items."):
            for name in self.columns("events"):
                asked = self.weigh(table, f"events.{name}", own)
                weights = weights if asked is None else np.minimum(weights, asked)
        return weights

    def find_aliases(self, column: str, value: str) -> list[str]:
        """The value, and values of other columns that came with it and with nothing else."""
        found = [value]
        home, _, name = column.partition(".")
        if home != "items":
            return found
        now, before = self.frames["items"], self.reference.frames["items"]
        own = np.asarray(pc.fill_null(pc.equal(_as_text(now.column(name)), value), False))
        for other in self.columns("items"):
            if other == name:
                continue
            cells = _as_text(now.column(other))
            inside = set(pc.unique(cells.filter(pa.array(own))).to_pylist())
            outside = set(pc.unique(cells.filter(pa.array(~own))).to_pylist())
            if other in before.names:
                outside |= set(pc.unique(_as_text(before.column(other))).to_pylist())
            found += sorted(v for v in inside - outside if v)
        return found


def _as_text(cells: pa.Array) -> pa.Array:
    return cells if pa.types.is_string(cells.type) else pc.cast(cells, pa.string())


def _list_candidates(
    weigh: _Weigher,
) -> Iterator[tuple[WithoutValue, Callable[[str], Weights | None]]]:
    grown: list[WithoutValue] = []
    shares: dict[str, tuple[dict[str, float], dict[str, float]]] = {}
    for table in ("items", "events"):
        if table not in weigh.frames:
            continue
        for name in weigh.columns(table):
            before, now = (
                share_values(side[table].column(name))
                for side in (weigh.reference.frames, weigh.frames)
            )
            shares[f"{table}.{name}"] = before, now
            grown += [
                WithoutValue(
                    column=f"{table}.{name}",
                    value=value,
                    before=before.get(value, 0.0),
                    now=share,
                    is_new=value not in before,
                )
                for value, share in now.items()
                if share - before.get(value, 0.0) >= _LEAST_GROWTH
            ]
    grown.sort(key=lambda each: (each.before - each.now, each.column, each.value))
    for candidate in grown[:MOST_VALUES]:
        aliases = {candidate.value: weigh.find_aliases(candidate.column, candidate.value)}
        yield candidate, weigh.spread(candidate.column, {candidate.value: 0.0}, aliases)
    mixes = [f"items.{c}" for c in _MIX_COLUMNS if f"items.{c}" in shares][:1]
    mixes += [c for c in shares if c.startswith("events.")]
    for column in mixes[:MOST_COLUMNS]:
        before, now = shares[column]
        factor = {value: before.get(value, 0.0) / share for value, share in now.items() if share}
        yield WithoutValue(column=column), weigh.spread(column, factor, {})

"""Inverse propensity: rates of shown items that do not depend on what exploration preferred."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import NDArray

from monitoring import tables
from monitoring.quality.intervals import Floats, Integers, PersonSums
from monitoring.quality.join import (
    HOUR,
    EventFeed,
    number_people,
    once,
    within,
)
from monitoring.quality.settings import QualitySettings
from refit.drift import Window
from refit.prediction import PREDICTION_SCHEMA

COLUMNS = ["request_id", "user_id", "time", "item_ids", "propensities", "positions", "sources"]


@dataclass(frozen=True)
class ShownItems:
    """Shown items with a logged propensity, one row for each slot of an answer.

    Attributes:
        person: [R] number of the person.
        time: [R] when, microseconds since 1970.
        slot: [R] place in the list, from 0.
        source: [R] what the item comes from, such as ``towers`` or ``exploration``; "" in logs that
            do not name it.
        weight: [R] 1 divided by the propensity.
        hits: By kind of outcome, [R] 1 if it was this item's.
        unusable: Items left out because their propensity is not in (0, 1].
    """

    person: Integers
    time: Integers
    slot: Integers
    source: NDArray[np.object_]
    weight: Floats
    hits: Mapping[str, Floats]
    unusable: int

    def sums(self, kind: str, period: Window) -> PersonSums | None:
        """The self-normalised estimate of a period as sums by person; None without items.

        It estimates the rate that the items would have if each were shown equally often. Source:
        Swaminathan and Joachims, "The self-normalized estimator", 2015.
        """
        inside = within(self.time, period)
        if not inside.any():
            return None
        weight = self.weight[inside]
        return PersonSums.of(self.person[inside], weight * self.hits[kind][inside], weight)

    def effective_size(self, period: Window) -> float:
        """Number of equally weighted items that would vary as much. Source: Kish, 1965."""
        weight = self.weight[within(self.time, period)]
        return float(weight.sum() ** 2 / (weight**2).sum()) if len(weight) else 0.0

    def rates_by_slot(self, kind: str, period: Window, slots: int = 3) -> list[float]:
        """The estimate for each of the first slots that have items."""
        inside = within(self.time, period)
        parts = (inside & (self.slot == slot) for slot in range(slots))
        return [self._rate(kind, rows) for rows in parts if rows.any()]

    def rates_by_source(self, kind: str, period: Window) -> dict[str, float]:
        """The estimate for the items of each source that the log names."""
        inside = within(self.time, period)
        names = sorted(set(self.source[inside].tolist()) - {""})
        return {name: self._rate(kind, inside & (self.source == name)) for name in names}

    def _rate(self, kind: str, rows: NDArray[np.bool_]) -> float:
        weight = self.weight[rows]
        return float((weight * self.hits[kind][rows]).sum() / weight.sum())


def read_shown_items(
    settings: QualitySettings,
    log: Path,
    feed: EventFeed,
    embedding_version: str,
    period: Window,
) -> ShownItems | None:
    """Read the shown items of a period with their propensities; None if none is logged."""
    answers = _read_explored(log, embedding_version, period)
    if not answers.num_rows:
        return None
    shown = pc.list_value_length(answers["item_ids"]).to_numpy().astype(np.int64)
    logged = pc.list_value_length(answers["propensities"]).to_numpy().astype(np.int64)
    answers = answers.filter(pa.array(shown == logged))
    shown = shown[shown == logged]
    row = np.repeat(np.arange(len(shown)), shown)
    slot = np.arange(len(row)) - np.repeat(np.cumsum(shown) - shown, shown)
    slot = _flat(answers, "positions", shown, slot).astype(np.int64)
    source = _flat(answers, "sources", shown, np.full(len(row), "", dtype=object))
    flat = pc.list_flatten(answers["propensities"])
    propensity = np.asarray(flat.to_numpy(zero_copy_only=False), dtype=np.float64)
    usable = (propensity > 0) & (propensity <= 1)
    time = np.asarray(pc.cast(answers["time"], pa.int64()).to_numpy())
    person, _ = number_people(answers["user_id"])
    hits = _find_hits(settings, feed, answers, row, time)
    return ShownItems(
        person=person[row][usable],
        time=time[row][usable],
        slot=slot[usable],
        source=source[usable],
        weight=1 / propensity[usable],
        hits={kind: flags[usable] for kind, flags in hits.items()},
        unusable=int((~usable).sum()) + int(logged.sum() - shown.sum()),
    )


def _flat(answers: pa.Table, name: str, shown: Integers, absent: NDArray[Any]) -> NDArray[Any]:
    """[R] the values of a list column, one for each shown item; ``absent`` where it has none."""
    logged = pc.fill_null(pc.list_value_length(answers[name]), -1).to_numpy() == shown
    values = pc.list_flatten(answers.filter(pa.array(logged))[name])
    found = absent.copy()
    found[np.repeat(logged, shown)] = values.to_numpy(zero_copy_only=False)
    return found


def _read_explored(log: Path, embedding_version: str, period: Window) -> pa.Table:
    files = tables.log_files(log, period)
    if not files:
        return PREDICTION_SCHEMA.empty_table().select(COLUMNS)
    start, end = (pa.scalar(t, pa.timestamp("us", tz="UTC")) for t in (period.start, period.end))
    explored = (ds.field("time") >= start) & (ds.field("time") < end)
    explored &= ds.field("embedding_version") == embedding_version
    explored &= ds.field("propensities").is_valid()
    parts = ds.dataset(files, schema=PREDICTION_SCHEMA, format="parquet")
    if not parts.count_rows(filter=explored):  # then the lists of all answers need not be read
        return PREDICTION_SCHEMA.empty_table().select(COLUMNS)
    found = parts.to_table(columns=COLUMNS, filter=explored)
    return found.take(pa.array(once(found["request_id"])))


def _find_hits(
    settings: QualitySettings, feed: EventFeed, answers: pa.Table, row: Integers, time: Integers
) -> dict[str, Floats]:
    """By kind, [R] whether an outcome in time was about the item of the slot."""
    items = pc.list_flatten(answers["item_ids"]).combine_chunks().dictionary_encode()
    codes = items.indices.to_numpy().astype(np.int64)
    size = len(items.dictionary) + 1
    outcomes = feed.outcomes
    at = pc.index_in(outcomes.request, value_set=answers["request_id"].combine_chunks())
    item = pc.index_in(outcomes.item, value_set=items.dictionary)
    at, item = (np.asarray(pc.fill_null(one, -1)).astype(np.int64) for one in (at, item))
    delay = outcomes.time - time[at]
    in_time = (at >= 0) & (item >= 0) & (delay <= settings.outcome_hours * HOUR)
    found = {}
    kinds = {"click": settings.click_events, "purchase": settings.purchase_events}
    for kind, types in kinds.items():
        flags = in_time & np.asarray(pc.is_in(outcomes.kind, pa.array(types, pa.string())))
        found[kind] = np.isin(row * size + codes, at[flags] * size + item[flags]).astype(float)
    return found

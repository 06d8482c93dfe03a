"""Choices: what people like of what they look at, day by day, whatever there is to look at.

Taste is not what is listed, asked for or recommended: it is what people choose among what they see.
Events without a request id count. For each item that was liked, put in a cart or bought, the
features are its vector less the mean vector of the items of its category that were viewed on that
day, one block for each main category, and likewise a mark for each frequent value of a column. A
change of supply, season or prices moves what is viewed and chosen alike, and leaves these alone.

One day of a shop shows little of taste, so that several windows are pooled; see
``DriftResult.pooled_windows`` and ``monitoring.pooled``.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from monitoring import tables
from monitoring.closings import find_closing
from monitoring.frame import (
    code_values,
    combine,
    find_frequent_values,
    find_vector_length,
    is_vector,
    list_values,
    read_vectors,
)
from monitoring.pooled import compare_pooled, count_needed, has_enough_days, sum_by
from monitoring.settings import MeasureSettings
from monitoring.summary import WindowSummary
from monitoring.windows import MonitoredData
from refit.contract import INTEREST, EventType
from refit.drift import DriftResult, DriftState, Window

PREFIX = "choice:"
STATISTIC = "mean_shift"
CATEGORIES = ("category_2", "category_1")
"""The first of them that the items have says which items compete with each other."""
VALUE_COLUMNS = ("brand",)
_CHOSEN = tuple(kind for kind in INTEREST if kind is not EventType.VIEW)
_MOST_DIMENSIONS = 32
"""Of vectors so many main axes of what is looked at are compared, at most."""
_MOST_VALUES = 40
_MOST_BLOCKS = 4
_FEWEST_SEEN = 5
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class _ComparedColumn:
    """What was chosen, beside what was seen with it, of one column.

    Attributes:
        name: The column.
        rows: [m, p] features of each choice, less the mean of what was seen.
        day: [m] number of the window, negative before the first that is measured.
    """

    name: str
    rows: NDArray[np.float32]
    day: Ints


@dataclass(frozen=True)
class Choices:
    """All choices of some windows and of the days before them, read once.

    Attributes:
        settings: Sizes, days, the rate of a single result.
        start: Start of the first window that is measured.
        columns: Vectors, and ``VALUE_COLUMNS``.
    """

    settings: MeasureSettings
    start: datetime
    columns: tuple[_ComparedColumn, ...]

    @classmethod
    def read(
        cls, settings: MeasureSettings, data: MonitoredData, start: datetime, end: datetime
    ) -> "Choices":
        """Read the choices from ``reference_days`` before ``start`` to ``end``.

        Cost: one pass over these events, of which at most ``reference_rows`` count.
        """
        found = _read(settings, data, start, end)
        columns = []
        if found is not None:
            for name, features, blocks in _list_features(found):
                rows, events = _relate(found, features, blocks)
                day = found.day[events]
                kept = ~np.isin(day, _list_closed(settings, start, day))
                columns.append(_ComparedColumn(name, rows[kept], day[kept]))
        return cls(settings, start, tuple(columns))

    def compare(
        self,
        period: Window,
        embedding_version: str = "",
        left_out: Collection[tuple[str, datetime]] = (),
    ) -> list[DriftResult]:
        """Compare what people chose of what they saw in a period with the days before it.

        Args:
            period: One or several windows.
            embedding_version: Reported with the results.
            left_out: Subjects with the starts of windows that are not what to expect.

        Returns:
            ``choice:<column>/mean_shift`` for each column; none where earlier days have too few
            choices, so that it cannot be measured here.
        """
        length = timedelta(days=self.settings.window_days)
        first, end = (round((t - self.start) / length) for t in (period.start, period.end))
        oldest = first - round(self.settings.reference_days / self.settings.window_days)
        results = []
        with threadpool_limits(1):
            for column in self.columns:
                subject = PREFIX + column.name
                unlike = [round((t - self.start) / length) for s, t in left_out if s == subject]
                now = (column.day >= first) & (column.day < end)
                before = (column.day >= oldest) & (column.day < first)
                before &= ~np.isin(column.day, unlike)
                kept = now | before
                result = _compare(
                    self.settings,
                    column.rows[kept],
                    column.day[kept] - first,
                    period,
                )
                if result is not None:
                    update = {"subject": subject, "embedding_version": embedding_version}
                    results.append(result.model_copy(update=update))
        return results


def _list_closed(settings: MeasureSettings, start: datetime, day: Ints) -> list[int]:
    """Numbers of the windows that a planned closing touches."""
    length = timedelta(days=settings.window_days)
    begins = {int(i): start + int(i) * length for i in np.unique(day)}
    return [i for i, t in begins.items() if find_closing(settings.closings, t, t + length)]


def measure_choices(
    settings: MeasureSettings,
    data: MonitoredData,
    windows: Sequence[Window],
    embedding_version: str,
    history: Sequence[WindowSummary] = (),
) -> tuple[list[DriftResult], list[WindowSummary]]:
    """Compare the choices of the ``choice_windows`` up to each window with the days before.

    Args:
        settings: Sizes and days.
        data: Events and items.
        windows: What to measure, oldest first.
        embedding_version: Reported with the results.
        history: Of windows that were measured before: those that drifted are not what to expect.
    """
    count = settings.choice_windows
    length = windows[0].end - windows[0].start
    start = windows[0].end - count * length
    choices = Choices.read(settings, data, start, windows[-1].end)
    results: list[DriftResult] = []
    summaries: list[WindowSummary] = []
    for window in windows:
        drifted = {
            (s.subject, s.window.start)
            for s in (*history, *summaries)
            if s.subject.startswith(PREFIX) and s.drifted
        }
        period = Window(start=window.end - count * length, end=window.end)
        for result in choices.compare(period, embedding_version, drifted):
            update = {"window": window, "pooled_windows": count}
            results.append(result.model_copy(update=update))
            summaries.append(
                WindowSummary(
                    subject=result.subject,
                    statistic=result.statistic,
                    window=window,
                    mean=(),
                    n=result.n_current,
                    drifted=result.state is DriftState.DRIFT,
                )
            )
    return results, summaries


@dataclass(frozen=True)
class _Seen:
    """Organic events on known items, in order of their rows.

    Attributes:
        day: [n] number of the window, negative before the period that is measured.
        item: [n] row of ``items``.
        chosen, seen: [n] whether the event is a choice, or a view.
        items: The items table, one row each.
        group, block: [items] competing category and main category; -1 for unknown.
    """

    day: Ints
    item: Ints
    chosen: NDArray[np.bool_]
    seen: NDArray[np.bool_]
    items: pa.Table
    group: Ints
    block: Ints


def _read(
    settings: MeasureSettings, data: MonitoredData, start: datetime, end: datetime
) -> "_Seen | None":
    if data.events is None or data.items is None or {"events", "items"} & data.unreadable.keys():
        return None
    stock = ds.dataset(str(data.items), format="parquet")
    column = next((name for name in CATEGORIES if name in stock.schema.names), None)
    if column is None:
        return None
    since = start - timedelta(days=settings.reference_days)
    low, high = (pa.scalar(t, pa.timestamp("us", tz="UTC")) for t in (since, end))
    source = ds.dataset(str(data.events), format="parquet")
    kinds = [*_CHOSEN, EventType.VIEW]
    wanted = (ds.field("event_time") >= low) & (ds.field("event_time") < high)
    wanted &= ds.field("event_type").isin([str(kind) for kind in kinds])
    if "request_id" in source.schema.names:
        wanted &= ds.field("request_id").is_null()
    events = source.to_table(
        columns=["user_id", "event_time", "event_type", "item_id"], filter=wanted
    )
    events = _thin(events, settings.reference_rows)
    items = _read_items(stock, pc.unique(combine(events["item_id"])))
    row = pc.index_in(combine(events["item_id"]), value_set=combine(items["item_id"]))
    known = np.flatnonzero(np.asarray(pc.is_valid(row)))
    origin = start.timestamp() / tables.SECONDS_A_DAY
    day = np.floor((tables.to_days(events["event_time"]) - origin) / settings.window_days + 1e-9)
    kind = events["event_type"].take(pa.array(known))
    seen = np.asarray(pc.equal(kind, str(EventType.VIEW)))
    main = "category_1" if "category_1" in items.column_names else column
    return _Seen(
        day=day[known].astype(np.int64),
        item=np.asarray(row.take(pa.array(known))).astype(np.int64),
        chosen=~seen,
        seen=seen,
        items=items,
        group=_code(items, column),
        block=_code(items, main),
    )


def _thin(events: pa.Table, most: int) -> pa.Table:
    """All events of some people, so that about ``most`` are left."""
    if events.num_rows <= most:
        return events
    person = _code(events, "user_id")
    drawn = np.random.default_rng(0).random(int(person.max()) + 2) < most / events.num_rows
    return events.filter(pa.array(drawn[person]))


def _read_items(stock: ds.Dataset, ids: pa.Array) -> pa.Table:
    """The columns that are compared, of some items."""
    names = [
        field.name
        for field in stock.schema
        if field.name in ("item_id", *CATEGORIES, *VALUE_COLUMNS)
        or is_vector(pa.array([], field.type))
    ]
    return stock.to_table(columns=names, filter=pc.is_in(ds.field("item_id"), value_set=ids))


def _code(items: pa.Table, column: str) -> Ints:
    codes = combine(items[column]).dictionary_encode().indices
    return np.asarray(pc.fill_null(codes, -1).to_numpy(zero_copy_only=False)).astype(np.int64)


def _list_features(choices: _Seen) -> Iterator[tuple[str, NDArray[np.float32], bool]]:
    """Each column that is measured, [items, p] its features, and whether blocks are apart."""
    items = choices.items
    for name in items.column_names:
        cells = combine(items[name])
        if length := find_vector_length(cells):
            features = np.full((len(cells), length), np.nan, dtype=np.float32)
            vectors, positions = read_vectors(cells, length)
            features[positions] = vectors
            yield name, _find_main_axes(features, choices), True
    for name in VALUE_COLUMNS:
        if name in items.column_names:
            cells = combine(items[name])
            known = np.unique(choices.item[choices.day < 0])
            values = find_frequent_values(cells.take(pa.array(known)), _MOST_VALUES)
            if len(values) < 2:
                continue
            features = np.zeros((len(cells), len(values)), dtype=np.float32)
            there, positions = list_values(cells)
            code = code_values(there, np.array(values))
            features[positions[code >= 0], code[code >= 0]] = 1.0
            yield name, features, False


def _find_main_axes(features: NDArray[np.float32], choices: _Seen) -> NDArray[np.float32]:
    """[items, at most 32] the axes along which what was looked at before varies most.

    Those with more than the average variance (Guttman, 1954; Kaiser, 1960): each further one adds
    its chance to every comparison, and little that people could tell apart.
    """
    seen = np.unique(choices.item[choices.seen & (choices.day < 0)])
    known = features[seen[np.isfinite(features[seen]).all(axis=1)]]
    if len(known) < 2:
        return features[:, :_MOST_DIMENSIONS]
    covariance = np.cov(known, rowvar=False, dtype=np.float64).reshape(features.shape[1], -1)
    variances, axes = np.linalg.eigh(covariance)
    above = int((variances >= variances.mean() * (1 - 1e-9)).sum())
    main = axes[:, -min(above, _MOST_DIMENSIONS) :].astype(np.float32)
    return np.asarray(features @ main)


def _relate(
    choices: _Seen, features: NDArray[np.float32], blocks: bool
) -> tuple[NDArray[np.float32], Ints]:
    """[m, p] features of what was chosen less the mean of what was seen beside it; [m] events."""
    usable = np.isfinite(features).all(axis=1) & (choices.group >= 0) & (choices.block >= 0)
    here = usable[choices.item]
    group = choices.group[choices.item] if blocks else np.zeros(len(choices.item), np.int64)
    groups = int(group.max(initial=0)) + 1
    key = (choices.day - choices.day.min(initial=0)) * groups + group
    seen = here & choices.seen
    size = int(key.max(initial=0)) + 1
    count = np.bincount(key[seen], minlength=size)
    sums = sum_by(key[seen], features[choices.item[seen]], size)
    chosen = here & choices.chosen & (count[key] >= _FEWEST_SEEN)
    block = choices.block[choices.item]
    known = np.bincount(block[chosen & (choices.day < 0)], minlength=int(block.max(initial=0)) + 1)
    order = np.argsort(-known, kind="stable")[:_MOST_BLOCKS]
    kept = [int(b) for b in order if known[b] > 0] if blocks else []
    if blocks:
        chosen &= np.isin(block, kept)
    means = sums[key[chosen]] / count[key[chosen], None]
    rows = (features[choices.item[chosen]] - means).astype(np.float32)
    if blocks and kept:
        place = np.searchsorted(np.sort(kept), block[chosen])
        wide = np.zeros((len(rows), len(kept), rows.shape[1]), dtype=np.float32)
        wide[np.arange(len(rows)), place] = rows
        rows = wide.reshape(len(rows), -1)
    return rows, np.flatnonzero(chosen)


def _compare(
    settings: MeasureSettings,
    rows: NDArray[np.float32],
    day: Ints,
    period: Window,
) -> DriftResult | None:
    if not has_enough_days(settings, day):
        return None
    before = day < 0
    found = DriftResult(
        subject="",
        statistic=STATISTIC,
        value=None,
        threshold=None,
        n_reference=int(before.sum()),
        n_current=int((~before).sum()),
        window=period,
        state=DriftState.INSUFFICIENT_DATA,
    )
    needed = count_needed(rows.shape[1])
    if found.n_reference < needed:
        why = f"{found.n_reference} earlier choices, {needed} are needed"
        return found.model_copy(update={"why": why})
    if found.n_current < settings.minimum_rows:
        why = f"{found.n_current} choices, {settings.minimum_rows} are needed"
        return found.model_copy(update={"why": why})
    compared = compare_pooled(settings, rows, day, period.start)
    drifts = compared.p_value < settings.false_alarm_rate
    return found.model_copy(
        update={
            "value": compared.value,
            "threshold": compared.threshold,
            "p_value": compared.p_value,
            "detail": f"judged by {compared.periods} earlier periods of as many days",
            "state": DriftState.DRIFT if drifts else DriftState.OK,
        }
    )

"""The features folder as arrays: catalogue, log of examples, queries and candidate snapshots."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from refit.columns import Column, Labels, expand, read_column
from refit.contract import EventType
from refit.eligibility import Rules
from refit.errors import DataValidationError
from refit.feature_tables import (
    HIDES_FILE,
    HISTORY_COLUMNS,
    PURCHASES_FILE,
    REQUESTS,
    SPLITS,
    Away,
    ItemVersions,
    PaddedHistories,
    examples_file,
    pad_histories,
    pad_lists,
    read_away,
    read_contents,
    read_snapshot,
    read_versions,
)
from refit.features import FeaturesManifest, FeatureSpec
from refit.item_lists import UserItems

DAY = 86_400_000_000
"""Microseconds of a day; all times here are microseconds since 1970, UTC."""
NEVER = np.iinfo(np.int64).max

Ints = NDArray[np.int32]
Longs = NDArray[np.int64]
Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Coded:
    """A column encoded as integers: ``values[codes]`` restores its values."""

    codes: Ints
    values: tuple[str, ...]


@dataclass(frozen=True)
class ItemCatalogue:
    """All items; row number = item index.

    Attributes:
        table: Every column of the catalogue, in the latest version of each item.
        contents: [R] ``table`` with the older versions after it; N rows where there are none.
        versions: Which row of ``contents`` describes an item at the time of a snapshot.
        item_id: [N] ids.
        sellers: [N] the user id of each item's seller.
        known_at, gone_at: [N] first and last time at which the item is live, in microseconds.
        away: When items were not live in between.
    """

    table: pa.Table
    contents: pa.Table
    versions: ItemVersions
    item_id: NDArray[Any]
    sellers: Labels
    known_at: Longs
    gone_at: Longs
    away: Away
    _columns: dict[str, Column] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Number of items."""
        return len(self.item_id)

    def column(self, name: str) -> Column:
        """[R] a column of ``contents`` in the form that eligibility rules read."""
        if name not in self._columns:
            self._columns[name] = read_column(self.contents[name])
        return self._columns[name]


@dataclass(frozen=True)
class ExampleLog:
    """The examples of all splits, in order of time.

    Attributes:
        table: Context and user columns that the towers or the eligibility rules read.
        user_ids: Ids by user number.
        user, item, time, weight, snapshot: [M] one entry per example.
        event_type: [M] the type of each example's event.
        last_item: [M] the latest item of the history, -1 if the history is empty.
        content: [M] row of ``ItemCatalogue.contents`` with each example's item as it was then.
        last_content: [M] the same of ``last_item``.
        starts: First row of each split, then the number of rows.
    """

    table: pa.Table
    user_ids: NDArray[Any]
    user: Ints
    item: Ints
    time: Longs
    weight: Floats
    snapshot: Ints
    event_type: Coded
    last_item: Ints
    content: Longs
    last_content: Longs
    starts: tuple[int, int, int, int]

    def before(self, time: int) -> int:
        """Number of examples strictly before ``time``; these are the first rows."""
        return int(np.searchsorted(self.time, time, side="left"))


@dataclass(frozen=True)
class Positives:
    """The positive items of n queries, one or several each, query by query.

    Attributes:
        rows: [E] rows of the log, each with one of the items.
        starts: [n + 1] first entry of each query, then E.
    """

    rows: Longs
    starts: Longs

    @classmethod
    def one_each(cls, rows: Longs) -> "Positives":
        """One item for each of n queries."""
        return cls(rows, np.arange(len(rows) + 1, dtype=np.int64))

    @property
    def owner(self) -> Longs:
        """[E] number of the query of each entry."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    def find(self, queries: Longs) -> tuple[Longs, Longs]:
        """The entries of some queries: [P] the place of the query among them, and [P] entries."""
        return expand(self.starts[queries], self.starts[queries + 1])

    def take(self, which: NDArray[Any]) -> "Positives":
        """Those of the queries at the given positions."""
        queries = np.arange(len(self.starts) - 1)[which]
        starts = np.concatenate([[0], np.cumsum(np.diff(self.starts)[queries])])
        return Positives(self.rows[self.find(queries)[1]], starts)


@dataclass(frozen=True)
class Queries:
    """The queries of one split, each with what was known at its time.

    Attributes:
        rows: [n] rows of the log, each with a positive item of its query, the first of several.
        positives: The positive items of each query.
        history: The latest earlier events of each query.
        new_user, new_item: [n] whether the user, or the first positive item, has no event before
            the split began.
    """

    rows: Longs
    positives: Positives
    history: PaddedHistories
    new_user: Flags
    new_item: Flags

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, which: NDArray[Any]) -> "Queries":
        """The queries at the given positions."""
        past = self.history
        return Queries(
            self.rows[which],
            self.positives.take(which),
            PaddedHistories(past.item[which], past.event_type[which], past.age_days[which]),
            self.new_user[which],
            self.new_item[which],
        )

    def without(self, removed: Flags) -> "Queries":
        """The queries without some of their positive items, and without those that have no other.

        Args:
            removed: [E] which items are left out.
        """
        kept, n_kept = np.unique(self.positives.owner[~removed], return_counts=True)
        starts = np.concatenate([[0], np.cumsum(n_kept)])
        positives = Positives(self.positives.rows[~removed], starts)
        return replace(self.take(kept), rows=positives.rows[starts[:-1]], positives=positives)


@dataclass(frozen=True)
class CandidateSnapshot:
    """The candidates at a snapshot, with what was known about them then.

    Attributes:
        snapshot: Number of the snapshot.
        time: Time of the snapshot; only earlier events are known.
        items: [C] candidates, as ascending item indices.
        age_days: [C] days since listing.
        popularity: [C, P] decayed counts; see ``FeaturesManifest.popularity_size``.
    """

    snapshot: int
    time: int
    items: Ints
    age_days: Floats
    popularity: Floats

    def take(self, which: NDArray[Any]) -> "CandidateSnapshot":
        """The same snapshot with only some of its candidates."""
        return CandidateSnapshot(
            self.snapshot,
            self.time,
            self.items[which],
            self.age_days[which],
            self.popularity[which],
        )

    def positions(self, items: Longs | Ints) -> Longs:
        """[...] positions of item indices among the candidates, -1 of one that is not there."""
        if not len(self.items):
            return np.full(items.shape, -1, dtype=np.int64)
        position = np.minimum(np.searchsorted(self.items, items), len(self.items) - 1)
        return np.where(self.items[position] == items, position, -1)


Relevant = Literal["each", "together"]
"""Whether each event is a query of its own, or those of a user at one time are one together."""


class EvaluationData:
    """The part of a features folder that evaluation reads.

    Args:
        folder: The features folder.
        relevant: How events become queries.

    Attributes:
        folder: The features folder.
        relevant: How events became queries.
        manifest: Its features manifest.
        rules: The eligibility rules of its market.
        catalogue: All items.
        log: All examples.
        purchases, hides: Items that users of the log have bought or hidden, with the first time.
        queries: The queries of ``validation`` and ``test``.

    Raises:
        DataValidationError: A split is missing or empty.
        UsageError: An eligibility rule cannot be loaded, or reads a column that does not exist.
    """

    def __init__(self, folder: Path, relevant: Relevant = "each") -> None:
        self.folder, self.relevant = folder, relevant
        self.manifest = FeaturesManifest.read(folder)
        self.rules = Rules.load(self.manifest.market)
        tables = [_read_split(folder, split) for split in SPLITS]
        self.catalogue = _read_catalogue(folder, self.rules)
        self._read_log(tables)
        length = self.manifest.spec.history_length
        self.queries = {
            split: _read_queries(tables[i], self.log, self.log.starts[i], length, relevant)
            for i, split in enumerate(SPLITS)
            if split != "train"
        }

    @property
    def spec(self) -> FeatureSpec:
        """The feature spec."""
        return self.manifest.spec

    def of_requests(self) -> "EvaluationData":
        """The same catalogue and snapshots, with the first event of each visit as the log.

        Its only queries are ``requests``.

        Raises:
            DataValidationError: The features hold no requests.
        """
        table = _read_split(self.folder, REQUESTS)
        requests = copy(self)
        requests._read_log([table[:0], table[:0], table])
        requests.queries = {
            REQUESTS: _read_queries(table, requests.log, 0, self.spec.history_length, "each")
        }
        return requests

    def _read_log(self, tables: Sequence[pa.Table]) -> None:
        self.log = _read_log(
            tables, self.spec, self.rules, self.catalogue.versions, self.snapshot_times
        )
        purchases, hides = (
            _read_user_items(self.folder / name, self.log.user_ids)
            for name in (PURCHASES_FILE, HIDES_FILE)
        )
        self.purchases, self.hides = purchases, hides

    @cached_property
    def snapshot_times(self) -> Longs:
        """[S] time of each snapshot."""
        return self.manifest.snapshot_times

    def split_start(self, split: str) -> int:
        """Time of a split's first snapshot; ``seen`` items have an event before it."""
        rows = self.queries[split].rows
        return int(self.snapshot_times[self.log.snapshot[rows].min()])

    def read_candidates(self, snapshot: int, keep: Flags | None = None) -> CandidateSnapshot:
        """Read a snapshot; a mask ``keep`` [N] restricts its candidates."""
        items, age, popularity = read_snapshot(self.folder, snapshot)
        time = int(self.snapshot_times[snapshot])
        candidates = CandidateSnapshot(snapshot, time, items, age, popularity)
        return candidates if keep is None else candidates.take(keep[items])

    def content_rows(self, snapshot: CandidateSnapshot) -> Longs:
        """[C] rows of ``catalogue.contents`` with a snapshot's candidates as they were then."""
        return self.catalogue.versions.rows_at(snapshot.items, snapshot.time)

    def rows_of_items(self, items: Ints, queries: "Queries") -> Longs:
        """[n, L] rows of ``catalogue.contents`` with items [n, L] as they were for each query."""
        times = self.snapshot_times[self.log.snapshot[queries.rows]]
        return self.catalogue.versions.rows_at(items, times[:, None])


def code_strings(column: pa.ChunkedArray, most: int, counted: int | None = None) -> Coded:
    """Encode a string column; the most frequent values get their own codes, others share one.

    Args:
        column: Strings; null is read as "".
        most: Maximum number of values with their own codes.
        counted: Number of leading rows that decide which values are frequent; None takes all.
    """
    encoded = pc.fill_null(column.cast(pa.string()), "").combine_chunks().dictionary_encode()
    raw = encoded.indices.to_numpy(zero_copy_only=False)
    names = encoded.dictionary.to_pylist()
    frequency = np.bincount(raw[:counted], minlength=len(names))
    order = np.argsort(-frequency, kind="stable")[:most]
    code_of = np.full(len(names), len(order), dtype=np.int32)
    code_of[order] = np.arange(len(order), dtype=np.int32)
    return Coded(code_of[raw], (*(names[i] for i in order), "other"))


def code_numbers(values: NDArray[Any], bins: int, counted: int | None = None) -> Coded:
    """Encode numbers by quantile bins; NaN has its own code."""
    numbers = np.asarray(values, dtype=np.float64)
    known = numbers[:counted]
    known = known[np.isfinite(known)]
    edges = np.empty(0)
    if len(known):
        edges = np.unique(np.quantile(known, np.linspace(0, 1, bins + 1)[1:-1]))
    codes = np.searchsorted(edges, numbers, side="right").astype(np.int32)
    codes[~np.isfinite(numbers)] = len(edges) + 1
    bounds = ["", *(f"{edge:g}" for edge in edges), ""]
    names = [f"{low} to {high}".strip() for low, high in pairwise(bounds)]
    return Coded(codes, (*names, ""))


def code_column(column: pa.ChunkedArray, most: int, bins: int, counted: int | None = None) -> Coded:
    """Encode a column with ``code_numbers`` if it is numeric, else with ``code_strings``."""
    if pa.types.is_floating(column.type) or pa.types.is_integer(column.type):
        return code_numbers(column.to_numpy(), bins, counted)
    return code_strings(column, most, counted)


def _read_split(folder: Path, split: str) -> pa.Table:
    path = folder / examples_file(split)
    if not path.is_file():
        raise DataValidationError(f"{path} does not exist; run the feature step again")
    table = pq.read_table(path)
    if table.num_rows == 0:
        raise DataValidationError(f"the {split} split of {folder} is empty; widen the time split")
    return table


def _read_log(
    tables: Sequence[pa.Table],
    spec: FeatureSpec,
    rules: Rules,
    versions: ItemVersions,
    snapshot_times: Longs,
) -> ExampleLog:
    rules.check_columns("query", tables[-1].column_names)
    context = (
        *spec.context_categorical,
        *spec.context_numeric,
        *spec.popularity_by,
        *spec.user_categorical,
        *spec.user_numeric,
        *rules.query_columns,
    )
    names = tuple(dict.fromkeys(context))
    base = ("user_id", "item_index", "event_time", "event_type", "weight", "snapshot")
    joined = pa.concat_tables([t.select([*base, *names]) for t in tables])
    user = joined["user_id"].cast(pa.string()).combine_chunks().dictionary_encode()
    time = _times(joined["event_time"])
    if np.any(np.diff(time) < 0):
        raise DataValidationError(
            "the examples are not in order of time; run the feature step again"
        )
    bounds = np.cumsum([0, *(t.num_rows for t in tables)])
    item, snapshot = _array(joined["item_index"], np.int32), _array(joined["snapshot"], np.int32)
    last_item = np.concatenate(
        [pad_lists(t[HISTORY_COLUMNS[0]], 1, np.int32(-1))[:, 0] for t in tables]
    )
    read_at = snapshot_times[snapshot]
    return ExampleLog(
        table=joined.select(names),
        user_ids=np.array(user.dictionary.to_pylist(), dtype=object),
        user=user.indices.to_numpy(zero_copy_only=False).astype(np.int32),
        item=item,
        time=time,
        weight=_array(joined["weight"], np.float32),
        snapshot=snapshot,
        event_type=code_strings(joined["event_type"], len(EventType)),
        last_item=last_item,
        content=versions.rows_at(item, read_at),
        last_content=versions.rows_at(last_item, read_at),
        starts=(int(bounds[0]), int(bounds[1]), int(bounds[2]), int(bounds[3])),
    )


def _read_catalogue(folder: Path, rules: Rules) -> ItemCatalogue:
    contents, versions = read_contents(folder).table, read_versions(folder)
    items = contents.slice(0, versions.n_items)
    rules.check_columns("item", items.column_names)
    return ItemCatalogue(
        table=items,
        contents=contents,
        versions=versions,
        item_id=np.array(items["item_id"].to_pylist(), dtype=object),
        sellers=Labels.of(items["seller_id"]),
        known_at=_times(items["known_at"], null=0),
        gone_at=_times(items["gone_at"], null=NEVER),
        away=read_away(folder),
    )


def _read_user_items(path: Path, user_ids: NDArray[Any]) -> UserItems:
    """Purchases or hides of the users in a log; those of other users are skipped."""
    table = pq.read_table(path)
    numbers = pc.index_in(table["user_id"], value_set=pa.array(user_ids, pa.string()))
    table = table.append_column("user", numbers).filter(numbers.is_valid())
    return UserItems(
        _array(table["user"], np.int32),
        _array(table["item_index"], np.int32),
        len(user_ids),
        _times(table["event_time"]),
    )


def _read_queries(
    table: pa.Table, log: ExampleLog, first_row: int, length: int, relevant: Relevant
) -> Queries:
    rows = np.arange(first_row, first_row + table.num_rows, dtype=np.int64)
    positives = Positives.one_each(rows)
    if relevant == "together":
        positives = _join_events(log, rows)
        rows = positives.rows[positives.starts[:-1]]
        table = table.take(rows - first_row)
    return Queries(
        rows=rows,
        positives=positives,
        history=pad_histories(table, length),
        new_user=_array(table["is_new_user"], np.bool_),
        new_item=_array(table["is_new_item"], np.bool_),
    )


def _join_events(log: ExampleLog, rows: Longs) -> Positives:
    """The events [E] of each user at one time together, in the order of each one's first event."""
    keys = np.stack([log.user[rows].astype(np.int64), log.time[rows]])
    _, first, number = np.unique(keys, axis=1, return_index=True, return_inverse=True)
    query = np.argsort(np.argsort(first))[number.ravel()]
    starts = np.concatenate([[0], np.cumsum(np.bincount(query))])
    return Positives(rows[np.argsort(query, kind="stable")], starts)


def _array(column: pa.ChunkedArray, dtype: Any) -> NDArray[Any]:
    return np.ascontiguousarray(column.to_numpy(), dtype=dtype)


def _times(column: pa.ChunkedArray, null: int | None = None) -> Longs:
    times = column.cast(pa.timestamp("us", "UTC")).cast(pa.int64())
    return _array(times if null is None else pc.fill_null(times, null), np.int64)

"""The tables of the features folder as ibis expressions: catalogue, examples, histories.

To prevent leaks, events are numbered for each user in order of time: ``earlier`` is the number of a
user's events strictly before a time, and a history is the ``history_length`` events before that
position.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import reduce
from pathlib import Path

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir
import numpy as np

from components.features.listings import Listings, find_listings
from components.features.visits import mark_visits
from refit.contract import KNOWN_AFTER, VALID_FROM, EventType
from refit.dataset import (
    EARLIER_FILE,
    EVENTS_FILE,
    ITEM_VERSIONS_FILE,
    ITEMS_FILE,
    USERS_FILE,
    DatasetManifest,
)
from refit.eligibility import MarketSettings, Rules
from refit.encoding import ITEM_VECTORS
from refit.errors import DataValidationError, UsageError
from refit.feature_tables import HISTORY_COLUMNS
from refit.features import FeatureSpec

DISPLAYED = ("price", "size", "brand", "colour", "condition")
"""Item columns for filters, slices and pages, kept beyond those of the spec (and category_*)."""

RESERVED = {
    *("user_id", "item_index", "event_type", "event_time", "weight", "snapshot"),
    *("is_new_user", "is_new_item", *HISTORY_COLUMNS),
}
"""Names of columns that examples or histories always have."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
DAY_US = timedelta(days=1) // MICROSECOND
EVER_US = np.iinfo(np.int64).min


def microseconds(time: datetime) -> int:
    """Microseconds since 1970, exact."""
    return (time - EPOCH) // MICROSECOND


@ibis.udf.scalar.builtin
def epoch_us(time: dt.Timestamp(timezone="UTC")) -> dt.int64:  # type: ignore[valid-type]
    """DuckDB's function; ibis has epoch seconds only, which would not keep the order of events."""


@dataclass(frozen=True)
class DatasetTables:
    """A dataset folder opened as tables; events end where the split ends.

    Attributes:
        rules: The eligibility rules of the market; the columns that they read are kept.
        purchases, hides: Who bought or hid which item, and when, also before the window.
            ``events`` does not contain the hides.
        versions: Every version of the items; None where each item has one row.
        context: Event columns that the examples hold, those of the spec first.
        user: User columns that the examples and histories hold.
    """

    con: ibis.BaseBackend
    spec: FeatureSpec
    rules: Rules
    manifest: DatasetManifest
    events: ir.Table
    purchases: ir.Table
    hides: ir.Table
    items: ir.Table
    users: ir.Table
    versions: ir.Table | None
    context: tuple[str, ...]
    user: tuple[str, ...]


def open_dataset(
    con: ibis.BaseBackend,
    spec: FeatureSpec,
    rules: Rules,
    folder: Path,
    encoded: tuple[Path, str] | None = None,
) -> DatasetTables:
    """Open a dataset folder and check that it has the columns of the spec and of the rules.

    Args:
        con: Where the tables are opened.
        spec: The feature spec.
        rules: The eligibility rules.
        folder: The dataset folder.
        encoded: A folder of the encoding step, and the item column that it has vectors for.

    Raises:
        UsageError: The spec or a rule names a column that does not exist, a rule reads one that is
            not known at the request, or the spec names one that two tables share.
    """
    manifest = DatasetManifest.read(folder)
    events, items, users = (
        con.read_parquet(folder / name) for name in (EVENTS_FILE, ITEMS_FILE, USERS_FILE)
    )
    path = folder / ITEM_VERSIONS_FILE
    versions = con.read_parquet(path) if path.exists() else None
    if encoded:
        items = _with_vectors(con, items, *encoded)
        versions = None if versions is None else _with_vectors(con, versions, *encoded)
    spec.check_columns(items.columns, events.columns, users.columns)
    rules.check_columns("item", items.columns)
    rules.check_columns("query", {*events.columns, *users.columns})
    if after := sorted(KNOWN_AFTER & {*rules.query_columns}):
        raise UsageError(
            f"an eligibility rule reads {after[0]!r} of a query, which is known only because the"
            " event happened, not at the request"
        )
    of_events = [name for name in rules.query_columns if name in events.columns]
    of_users = [name for name in rules.query_columns if name not in events.columns]
    in_spec = (*spec.context_categorical, *spec.context_numeric, *spec.popularity_by)
    context = tuple(dict.fromkeys((*in_spec, *manifest.context_columns, *of_events)))
    user = tuple(dict.fromkeys((*spec.user_categorical, *spec.user_numeric, *of_users)))
    taken = {*context} & {*user} | {*context, *user} & RESERVED
    if taken:
        raise UsageError(
            f"the examples need one column for each name, but {', '.join(sorted(taken))} would be"
            " there twice: rename it in events or users, or leave it out of the spec"
        )
    events = events.mutate(at_us=epoch_us(events.event_time))
    events = events.filter(events.at_us < microseconds(manifest.split.end))
    earlier = con.read_parquet(folder / EARLIER_FILE)
    ever = earlier.union(events.select(*earlier.columns))
    purchases, hides = (
        ever.filter(ever.event_type == kind.value) for kind in (EventType.PURCHASE, EventType.HIDE)
    )
    events = events.filter(events.event_type != EventType.HIDE.value)
    return DatasetTables(
        con, spec, rules, manifest, events, purchases, hides, items, users, versions, context, user
    )


def _with_vectors(con: ibis.BaseBackend, items: ir.Table, folder: Path, column: str) -> ir.Table:
    """Add the column of vectors that the encoding step wrote."""
    vectors = con.read_parquet(folder / ITEM_VECTORS)
    keys = [name for name in vectors.columns if name != column]
    joined = items.left_join(vectors, keys)
    return joined.select(*items.columns, column)


def find_all_listings(source: DatasetTables, market: MarketSettings) -> Listings:
    """When the listings of the dataset began and ended."""
    end = source.manifest.split.end
    items = source.items if source.versions is None else source.versions
    return find_listings(source.con, market, items, source.events, source.purchases, end)


def content_kinds(source: DatasetTables) -> dict[str, str]:
    """The type of each item column that the catalogue keeps."""
    items, spec = source.items, source.spec
    levels = tuple(name for name in items.columns if name.startswith("category_"))
    numeric = {*spec.item_numeric, "price"}
    numeric |= {name for name in source.rules.item_columns if items[name].type().is_numeric()}
    kept = (*spec.item_categorical, *spec.item_numeric, *spec.item_text, *DISPLAYED, *levels)
    # Filters compare numbers with those of a request, so that they keep every digit here.
    kinds = {
        name: "float64" if name in numeric else "string"
        for name in dict.fromkeys((*kept, *source.rules.item_columns))
        if name in items.columns
    }
    return kinds | ({spec.item_vector: "array<float32>"} if spec.item_vector else {})


def catalogue(source: DatasetTables, listings: Listings) -> ir.Table:
    """Materialise the catalogue: the kept item columns, with ``item_index``.

    Items are numbered in the order in which they became known, so that later data does not change
    the number of an item. An item becomes known when it is listed, or at its first event if that is
    earlier (an item that was listed again, or has no time); without either, at the end.
    """
    items = source.items
    first = source.events.group_by("item_id").agg(
        first_event=lambda t: t.event_time.min(),
        first_us=lambda t: t.at_us.min(),
        last_event=lambda t: t.event_time.max(),
    )
    times = listings.items.select("item_id", began_at="listed_at", ended_at="gone_at")
    table = items.left_join(first, "item_id").drop("item_id_right")
    table = table.left_join(times, "item_id").drop("item_id_right")
    columns = {name: table[name].cast(kind) for name, kind in content_kinds(source).items()}
    seller = table.seller_id if "seller_id" in items.columns else ibis.null("string")
    table = table.select(
        item_id=table.item_id.cast("string"),
        seller_id=seller.cast("string"),
        **columns,
        known_at=ibis.least(table.began_at, table.first_event).fill_null(source.manifest.split.end),
        gone_at=table.ended_at,
        first_us=table.first_us,
        last_event=table.last_event,
    )
    order = ibis.window(order_by=[table.known_at, table.item_id])
    table = table.mutate(item_index=ibis.row_number().over(order).cast("int32"))
    return source.con.create_table("catalogue", table, temp=True)


def numbered_events(source: DatasetTables, items: ir.Table) -> ir.Table:
    """Materialise the events with ``item_index``, and their ``position`` and ``earlier`` per user.

    ``opens_visit`` marks the first event of a visit, see ``visits.mark_visits``.
    ``follows_answer`` marks events that follow a recommendation.

    Raises:
        DataValidationError: The items table does not have the item of an event.
    """
    events = source.events
    unknown = events.anti_join(items, "item_id")
    if n := int(unknown.count().execute()):
        example = unknown.limit(1).item_id.execute().iloc[0]
        raise DataValidationError(
            f"{n} events are on items that the items table does not have, such as {example!r}:"
            " ingest items and events of the same day together"
        )
    by_time = [events.event_time, events.item_id, events.event_type]
    of_user = ibis.window(group_by=events.user_id, order_by=events.event_time)
    ranked = events.select(
        "user_id",
        "item_id",
        "event_type",
        "event_time",
        "at_us",
        **{name: events[name].cast(_kind(source, name)) for name in source.context},
        weight=_weight(events, source.spec),
        position=ibis.row_number().over(group_by=events.user_id, order_by=by_time),
        earlier=ibis.rank().over(of_user),
        session_key=_session(events),
        follows_answer=_follows_answer(events),
        user_first_us=events.at_us.min().over(group_by=events.user_id),
    )
    ranked = mark_visits(ranked, source.spec)
    known = items.select("item_id", "item_index", item_first_us="first_us")
    return source.con.create_table(
        "numbered", ranked.inner_join(known, "item_id").drop("item_id"), temp=True
    )


def history_blocks(source: DatasetTables, events: ir.Table) -> ir.Table:
    """Materialise each user's events, newest first, in blocks of ``history_length``.

    A history is then part of two adjacent blocks, so that the cost is proportional to the number of
    events times the history length, even for a user with many events.
    """
    newest_first = events.position.desc()
    blocks = events.group_by(
        "user_id", block=(events.position // source.spec.history_length).cast("int64")
    ).agg(
        size=events.count(),
        **{name: events[name].collect(order_by=newest_first) for name in HISTORY_PARTS},
    )
    return source.con.create_table("blocks", blocks, temp=True)


HISTORY_PARTS = ("item_index", "event_type", "event_time", "at_us")


def with_history(rows: ir.Table, blocks: ir.Table, length: int) -> ir.Table:
    """Add the history of each row's user before its ``earlier``: one list column per part."""
    rows = rows.mutate(
        last=ibis.ifelse(rows.earlier > 0, (rows.earlier - 1) // length, -1).cast("int64")
    )
    rows = rows.mutate(before=rows["last"] - 1)
    joined = _join_block(_join_block(rows, blocks, "last"), blocks, "before")
    # The last block also holds events that are not earlier; they are skipped.
    later = joined.last_size - (joined.earlier - joined["last"] * length)
    lists = {}
    for name in HISTORY_PARTS:
        kind = joined[f"last_{name}"].type()
        newest, older = (
            joined[f"{side}_{name}"].fill_null(ibis.literal([], kind))
            for side in ("last", "before")
        )
        lists[f"history_{name}"] = newest[later.fill_null(0) :].concat(older)[:length]
    return joined.mutate(**lists)


def examples(
    source: DatasetTables,
    events: ir.Table,
    blocks: ir.Table,
    start: datetime,
    end: datetime,
    snapshot: "SnapshotOf",
) -> ir.Table:
    """The examples of one window: each event, with what was known strictly before it."""
    start_us, end_us = microseconds(start), microseconds(end)
    rows = events.filter(events.at_us >= start_us, events.at_us < end_us)
    rows = with_history(rows, blocks, source.spec.history_length)
    rows = _with_user_columns(source, rows)
    item, event_type, age = HISTORY_COLUMNS
    rows = rows.select(
        "user_id",
        "item_index",
        "event_type",
        "event_time",
        "weight",
        snapshot=snapshot.index_of(rows.at_us),
        **{name: rows[name] for name in (*source.context, *source.user)},
        **{
            item: rows.history_item_index,
            event_type: rows.history_event_type,
            age: _ages(rows.at_us, rows.history_at_us),
        },
        is_new_user=rows.user_first_us >= start_us,
        is_new_item=rows.item_first_us >= start_us,
    )
    return rows.order_by("event_time", "user_id", "item_index", "event_type")


def requests(events: ir.Table, start: datetime, end: datetime, limit: int) -> ir.Table:
    """The first events of visits, at most ``limit``, evenly spread over time."""
    start_us, end_us = microseconds(start), microseconds(end)
    visits = events.filter(events.opens_visit, events.at_us >= start_us, events.at_us < end_us)
    order = [visits.at_us, visits.user_id, visits.position]
    number = ibis.row_number().over(order_by=order)
    # The n visits are mapped to 0..limit; the last visit of each number is kept.
    n = visits.count().over(ibis.window())
    ranked = visits.mutate(before=number * limit // n, upto=(number + 1) * limit // n)
    return ranked.filter(ranked.upto > ranked.before).drop("before", "upto")


@dataclass(frozen=True)
class SnapshotOf:
    """The numbers of the snapshots of one window: from ``first`` on, one for each ``every_us``."""

    first: int
    start_us: int
    every_us: int | None

    def index_of(self, at_us: ir.IntegerColumn) -> ir.IntegerColumn:
        """The latest snapshot at or before a time in the window."""
        if self.every_us is None:
            return ibis.literal(self.first, "int32")
        return (self.first + (at_us - self.start_us) // self.every_us).cast("int32")

    def count_until(self, at_us: ir.IntegerValue, n: int) -> ir.IntegerValue:
        """How many of the window's ``n`` snapshots are at or before any time."""
        every_us = self.every_us or DAY_US  # without steps n is 1, and any step will do
        return ((at_us - self.start_us) // every_us + 1).clip(0, n).cast("int64")


def histories(
    source: DatasetTables, events: ir.Table, blocks: ir.Table, others: ir.Table
) -> ir.Table:
    """One row a user, as of the end: user columns and the latest events, newest first.

    Args:
        source: The dataset.
        events: From ``numbered_events``.
        blocks: From ``history_blocks``.
        others: ``user_id`` of users who have a row even if they have no event.
    """
    counts = events.group_by("user_id").agg(earlier=events.count())
    without_events = others.distinct().anti_join(counts, "user_id")
    counts = counts.union(without_events.mutate(earlier=ibis.literal(0, "int64")))
    versions = _user_columns(source)
    latest = versions.filter(versions.until_us.isnull()).drop("since_us", "until_us")
    users = latest.outer_join(counts, "user_id")
    users = users.mutate(user_id=ibis.coalesce(users.user_id, users.user_id_right))
    users = users.mutate(earlier=users.earlier.fill_null(0)).drop("user_id_right")
    rows = with_history(users, blocks, source.spec.history_length)
    lists = {name: rows[f"history_{name}"] for name in HISTORY_PARTS[:3]}
    return rows.select("user_id", *source.user, **lists).order_by("user_id")


def first_times(events: ir.Table, items: ir.Table) -> ir.Table:
    """When each user first did something with an item, for every user and item of ``events``."""
    known = items.select("item_id", "item_index")
    pairs = events.inner_join(known, "item_id").group_by("user_id", "item_index")
    return pairs.agg(event_time=lambda t: t.event_time.min()).order_by("user_id", "item_index")


def popularity_values(source: DatasetTables) -> dict[str, tuple[str, ...]]:
    """The counted values of each ``popularity_by`` column.

    They are the bins of a binned column, otherwise the most frequent values in training events.
    """
    spec = source.spec
    train = source.events.filter(
        source.events.at_us < microseconds(source.manifest.split.validation_start),
        _weight(source.events, spec) > 0,
    )
    found = {}
    for column in spec.popularity_by:
        if column in spec.popularity_bins:
            found[column] = tuple(str(i) for i in range(len(spec.popularity_bins[column]) + 1))
            continue
        values = train.select(value=train[column].cast("string"))
        counts = values.filter(values.value != "").value_counts(name="n")
        top = counts.order_by(counts.n.desc(), counts.value).limit(spec.popularity_values)
        found[column] = tuple(str(value) for value in top.value.to_pyarrow().to_pylist())
    return found


def weighted_events(
    source: DatasetTables, events: ir.Table, values: Mapping[str, Sequence[str]]
) -> ir.Table:
    """Events with a weight, in order of time: time, item, weight, and a code for each column."""
    rows = events.filter(events.weight > 0)
    codes = {}
    for column in source.spec.popularity_by:
        name = f"code_{column}"
        if edges := source.spec.popularity_bins.get(column):
            code = _bin_of(rows[column], edges)
        else:
            known = {value: i for i, value in enumerate(values[column])}
            code = rows[column].cases(*known.items()) if known else ibis.null("int32")
        codes[name] = code.fill_null(-1).cast("int32")
    return rows.select("at_us", "item_index", "weight", **codes).order_by(
        # Sums of floats depend on the order, which must be the same in every run.
        ["at_us", "item_index", "weight"]
    )


def away_items(items: ir.Table, listings: Listings) -> ir.Table:
    """When items were not on sale in between, see ``AWAY_FILE``."""
    numbers = items.select("item_id", "item_index")
    away = listings.away.inner_join(numbers, "item_id")
    columns = ("item_index", "gone_at", "back_at")
    return away.select(*columns).order_by(*columns)


def orphans(items: ir.Table, away: ir.Table, written: Sequence[ir.Table]) -> ir.Table:
    """Items of examples that are not live at the time, by snapshot, which must contain them."""
    rows = reduce(
        lambda left, right: left.union(right),
        [table.select("snapshot", "item_index", "event_time") for table in written],
    )
    columns = ("snapshot", "item_index")
    while_away = rows.inner_join(
        away,
        [
            rows.item_index == away.item_index,
            rows.event_time >= away.gone_at,
            rows.event_time <= away.back_at,
        ],
    )
    rows = rows.inner_join(items.select("item_index", "known_at", "gone_at"), "item_index")
    outside = (rows.event_time < rows.known_at) | (rows.event_time >= rows.gone_at)
    return rows.filter(outside).select(*columns).union(while_away.select(*columns)).distinct()


def _join_block(rows: ir.Table, blocks: ir.Table, side: str) -> ir.Table:
    names = {f"{side}_{name}": name for name in (*HISTORY_PARTS, "size")}
    named = blocks.select(
        **{f"{side}_user": blocks.user_id, f"{side}_block": blocks.block},
        **{name: blocks[part] for name, part in names.items()},
    )
    keys = [
        rows.user_id == named[f"{side}_user"],
        rows[side] == named[f"{side}_block"],
    ]
    return rows.left_join(named, keys).drop(f"{side}_user", f"{side}_block")


def find_undeclared(source: DatasetTables, versioned: Collection[str]) -> tuple[str, ...]:
    """See ``FeatureSpec.find_undeclared``; what changes between versions needs no word."""
    changing = {"items": _changing(source.items), "users": _changing(source.users)}
    found = source.spec.find_undeclared(changing)
    return tuple(name for name in found if name not in versioned)


def _changing(table: ir.Table) -> set[str]:
    """The columns that hold numbers or times."""
    kinds = table.schema().items()
    return {name for name, kind in kinds if kind.is_numeric() or kind.is_temporal()}


def _user_columns(source: DatasetTables) -> ir.Table:
    users = source.users

    def kind(name: str) -> str:
        if name in source.spec.user_numeric:
            return "float32"
        is_number = name not in source.spec.user_categorical and users[name].type().is_numeric()
        return "float64" if is_number else "string"

    columns = {name: users[name].cast(kind(name)) for name in source.user}
    if VALID_FROM not in users.columns:
        never = ibis.null("int64")
        return users.select("user_id", **columns, since_us=never, until_us=never)
    # Without valid_from a row holds ever since.
    since_us = epoch_us(users[VALID_FROM].cast("timestamp('UTC')")).fill_null(EVER_US)
    versions = users.select("user_id", **columns, since_us=since_us)
    versions = versions.filter(versions.since_us < microseconds(source.manifest.split.end))
    of_user = ibis.window(group_by="user_id", order_by="since_us")
    return versions.mutate(until_us=versions.since_us.lead().over(of_user))


def _with_user_columns(source: DatasetTables, rows: ir.Table) -> ir.Table:
    """Add the user columns as they were strictly before each row's ``at_us``."""
    versions = _user_columns(source)
    joined = rows.left_join(
        versions,
        [
            rows.user_id == versions.user_id,
            versions.since_us.isnull() | (versions.since_us < rows.at_us),
            versions.until_us.isnull() | (versions.until_us >= rows.at_us),
        ]
        if VALID_FROM in source.users.columns
        else "user_id",
    )
    return joined.drop("user_id_right", "since_us", "until_us")


def _kind(source: DatasetTables, column: str) -> str:
    if column in (*source.spec.context_numeric, *source.spec.popularity_bins):
        return "float32"
    if column in (*source.spec.context_categorical, *source.spec.popularity_by):
        return "string"
    return "float32" if source.events[column].type().is_numeric() else "string"


def _session(events: ir.Table) -> ir.Value:
    """The session of each event; null where it is not known."""
    if "session_id" not in events.columns:
        return ibis.null("string")
    return events.session_id.cast("string").nullif("")


def _follows_answer(events: ir.Table) -> ir.Value:
    """Whether an event follows a recommendation: it has a ``request_id``."""
    if "request_id" not in events.columns:
        return ibis.literal(False)
    return events.request_id.fill_null("") != ""


def _weight(events: ir.Table, spec: FeatureSpec) -> ir.Value:
    if not spec.event_weights:
        return ibis.literal(0.0, "float32")
    return events.event_type.cases(*spec.event_weights.items(), else_=0.0).cast("float32")


def _bin_of(value: ir.Value, edges: Sequence[float]) -> ir.Value:
    """The same as ``refit.features.bin_of``, which compares float32 with float32."""
    exact = [float(np.float32(edge)) for edge in edges]
    number = ibis.ifelse(value.isnan(), None, value.cast("float64"))
    return number.bucket(exact, include_under=True, include_over=True, close_extreme=False)


def _ages(now_us: ir.Value, then_us: ir.Value) -> ir.Value:
    return then_us.map(lambda then: ((now_us - then) / DAY_US).cast("float32"))

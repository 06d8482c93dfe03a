"""Checks of rows and columns: what is absent, and what that means for the following steps."""

import math
from collections.abc import Iterator, Sequence

import ibis
import ibis.expr.types as ir

from components.ingestion.health.data import (
    HealthData,
    inform,
    is_given,
    make_line,
    make_share_line,
    measure,
)
from components.ingestion.health.settings import HealthLimits
from refit.contract import EVENTS, ITEMS, VALID_FROM, Column
from refit.health import HealthCheck, count_share

_DECISIVE = {
    ("events", "session_id"): "visits can only be guessed from gaps between events: where a guess "
    "is wrong, a purchase is predicted from its own view a minute before",
    ("items", "seller_id"): "nobody is kept from seeing their own listing, and the exposure of "
    "sellers is not measured",
    ("items", "listed_at"): "an item counts as live from its first event on; its age is not known",
    (
        "items",
        "delisted_at",
    ): "when an item is gone is not known, at best assumed from a purchase or "
    "from silence: the evaluation and the index may offer what was sold long ago",
    ("items", "category_1"): "filters, popularity and similar items have no category to go by",
    ("items", "price"): "the towers do not see the price, and no filter by price is possible",
}
"""Columns whose absence changes what is trained or measured."""
_HELPFUL = {
    ("events", "request_id"): "live quality cannot be measured; whether an event follows a "
    "recommendation is not known",
    ("events", "surface"): "all requests look alike, wherever on the site they are made",
    ("events", "price"): "price changes are not known; only the price of the item is",
    ("items", "title"): "the item tower has no words of the seller",
    ("items", "description"): "the item tower has the title only",
    ("items", "brand"): "brand cannot be learned or filtered by",
    ("items", "category_2"): "the category has one level less",
    ("items", "category_3"): "the category has one level less",
    ("items", "colour"): "colour cannot be learned or filtered by",
    ("items", "size"): "size cannot be learned or filtered by",
    ("items", "condition"): "condition cannot be learned or filtered by",
    ("items", "image_embedding"): "the item tower does not see pictures",
}
_NOT_MISSED = ("currency", VALID_FROM)
"""Optional columns whose absence means nothing by itself."""
_SEVERAL_CURRENCIES = "prices in several currencies are compared as numbers: set ingestion.currency"
_MEANT_FOR_ALL = {"currency", "event_type"}
"""Columns that are often constant for a good reason."""


def check_rows(data: HealthData) -> Iterator[HealthCheck]:
    """Show what happened to the rows of each table."""
    for topic, counts in data.counts.items():
        if topic != "events" and not (data.has_items if topic == "items" else data.has_users):
            continue
        yield make_share_line(
            topic,
            "duplicates",
            counts.duplicates,
            counts.rows_in,
            data.limits.duplicates,
            "one of each is kept; is the table exported twice?",
        )
        limits = data.limits.rejected
        if limits.stop is None and data.max_rejected[topic] < 1:
            # A run stops above max_rejected, a line at its threshold.
            above = math.nextafter(data.max_rejected[topic], 1)
            limits = limits.model_copy(update={"stop": above})
        line = make_share_line(
            topic,
            "rejected rows",
            counts.rejected,
            counts.checked,
            limits,
            f"they are in rejected/{topic}.parquet, with their reasons",
        )
        reasons = "; ".join(f"{reason} {n:,}" for reason, n in counts.reasons.items())
        yield line.model_copy(
            update={"shown": f"{line.shown}: {reasons}" if reasons else line.shown}
        )
        if counts.outside:
            total = counts.rows_in + counts.outside
            yield inform(topic, "rows outside the window", count_share(counts.outside, total))


def check_columns(data: HealthData) -> Iterator[HealthCheck]:
    """Check which columns are there, filled, and not constant."""
    yield from _check_tables(data)
    for topic, contract in (("events", EVENTS), ("items", ITEMS)):
        yield from _check_missing(data, topic, contract)
    yield from _check_text(data)
    yield from _check_prices(data)
    yield from _check_lifetimes(data)
    for topic, table in data.tables().items():
        yield from _check_constant(data, topic, table)


def _check_tables(data: HealthData) -> Iterator[HealthCheck]:
    for topic, given, advice in (
        (
            "items",
            data.has_items,
            "the items are those of the events: an item without an event is not known, and an "
            "item's columns are those that the source finds in the events",
        ),
        ("users", data.has_users, "the users are those of the events, without any feature"),
    ):
        yield make_line(
            topic,
            "table",
            "given" if given else "not given",
            float(not given),
            data.limits.missing_table,
            "" if given else advice,
        )


def _check_missing(
    data: HealthData, topic: str, contract: Sequence[Column]
) -> Iterator[HealthCheck]:
    """One line for each optional column of the contract: the share of rows without a value."""
    table, total = data.tables()[topic], data.size(topic)
    there = [c.name for c in contract if not c.required and c.name in table.columns]
    filled = measure(table, rows=table.count(), **{n: is_given(table[n]).sum() for n in there})
    for column in contract:
        name = column.name
        if column.required or name in _NOT_MISSED:
            continue
        n_missing = total - (filled[name] or 0) if name in there else total
        share = n_missing / max(total, 1)
        meaning = _DECISIVE.get((topic, name)) or _HELPFUL[topic, name]
        yield make_line(
            topic,
            name,
            f"no value in {count_share(n_missing, total)}" if name in there else "absent",
            share,
            _find_limits(data, topic, name),
            meaning if n_missing else "",
        )


def _find_limits(data: HealthData, topic: str, name: str) -> HealthLimits:
    limits = data.limits
    if name == "image_embedding":
        return limits.items_without_picture
    if (topic, name) not in _DECISIVE:
        return HealthLimits()
    if name == "delisted_at" and limits.missing_column.look is not None:
        # Items that are still live have none.
        return limits.missing_column.model_copy(update={"look": 1.0})
    return limits.missing_column


def _check_text(data: HealthData) -> Iterator[HealthCheck]:
    items, total = data.items, data.size("items")
    texts = [is_given(items[name]) for name in ("title", "description") if name in items.columns]
    told = measure(items, n=ibis.or_(*texts).sum())["n"] or 0 if texts else 0
    yield make_share_line(
        "items",
        "items without text",
        total - told,
        total,
        data.limits.items_without_text,
        "new listings are known by their attributes only",
    )


def _check_prices(data: HealthData) -> Iterator[HealthCheck]:
    items = data.items
    if "price" not in items.columns:
        return
    found = measure(items, n=items.price.count(), free=(items.price == 0).sum())
    yield make_share_line(
        "items",
        "prices of zero",
        found["free"] or 0,
        found["n"],
        data.limits.free_items,
        "is zero the price, or a missing one? Export a missing price as null",
    )
    if "currency" not in items.columns:
        yield make_line(
            "items", "currencies", "not known", None, data.limits.currencies, _SEVERAL_CURRENCIES
        )
        return
    rows = items.currency.value_counts(name="n").order_by(ibis.desc("n"), "currency")
    counts = {row["currency"]: row["n"] for row in rows.to_pyarrow().to_pylist()}
    yield make_line(
        "items",
        "currencies",
        ", ".join(f"{name or 'none'} {n:,}" for name, n in list(counts.items())[:5]),
        float(len(counts)),
        data.limits.currencies,
        _SEVERAL_CURRENCIES,
    )


def _check_lifetimes(data: HealthData) -> Iterator[HealthCheck]:
    """Count the events outside the lifetime of their item."""
    items = data.items
    for column, name, limits, advice in (
        (
            "listed_at",
            "events before the listing",
            data.limits.before_listing,
            "listed_at is another time, such as that of the last change, or in another zone; an "
            "item counts as live from its first event on",
        ),
        (
            "delisted_at",
            "events after the delisting",
            data.limits.after_delisting,
            "delisted_at is another time, or in another zone, or pages of sold items are visited; "
            "such events are no test queries on live items",
        ),
    ):
        if column not in items.columns:
            continue
        dated = data.events.select("item_id", "event_time").inner_join(
            items.filter(items[column].notnull()).select("item_id", column), "item_id"
        )
        early = dated.event_time < dated[column]
        late = dated.event_time > dated[column]
        wrong = early if column == "listed_at" else late
        found = measure(dated, n=dated.count(), wrong=wrong.sum())
        yield make_share_line("events", name, found["wrong"] or 0, found["n"], limits, advice)


def _check_constant(data: HealthData, topic: str, table: ir.Table) -> Iterator[HealthCheck]:
    """Name the columns that have one value in all rows, which tell nothing."""
    names = [name for name in table.columns if name not in _MEANT_FOR_ALL]
    values = {}
    for name in names:
        column = table[name].hash() if table[name].type().is_nested() else table[name]
        values[f"{name}_same"] = (column.min() == column.max()) & (table[name].count() > 1)
    found = measure(table, **values)
    constant = sorted(name for name in names if found[f"{name}_same"])
    yield make_line(
        topic,
        "constant columns",
        ", ".join(constant) or "none",
        float(len(constant)),
        data.limits.constant_columns,
        "a column with one value tells a model nothing: leave it out of features.spec",
    )

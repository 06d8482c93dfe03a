"""Items in versions: the rows of content beside the latest of each item, and when each is read.

Items are read at the times of snapshots only. A version that no snapshot reads is left out, and so
is one that says the same as the next.
"""

from collections.abc import Callable, Sequence

import ibis
import ibis.expr.types as ir
import numpy as np

from components.features.listings import Listings
from components.features.tables import (
    DatasetTables,
    content_kinds,
    epoch_us,
    microseconds,
)
from refit.contract import VALID_FROM
from refit.feature_tables import VERSION_UNTIL
from refit.tabular.versions import mark_changes

LATEST_US = np.iinfo(np.int64).max


def find_versioned(source: DatasetTables) -> tuple[str, ...]:
    """The columns of the spec that differ between two versions of an item, or of a user."""
    spec, found = source.spec, list[str]()
    vector = (spec.item_vector,) if spec.item_vector else ()
    if source.versions is not None:
        read = (*spec.item_categorical, *spec.item_numeric, *spec.item_text, *vector)
        found += [f"items.{c}" for c in _find_changing(source.versions, "item_id", read)]
    if VALID_FROM in source.users.columns:
        read = (*spec.user_categorical, *spec.user_numeric)
        found += [f"users.{c}" for c in _find_changing(source.users, "user_id", read)]
    return tuple(found)


def _find_changing(versions: ir.Table, key: str, read: Sequence[str]) -> list[str]:
    columns = list(dict.fromkeys(read))
    if not columns:
        return []
    changes = mark_changes(versions, key, columns)
    row = changes.agg(**{name: changes[name].any() for name in columns})
    (found,) = row.to_pyarrow().to_pylist()
    return [name for name in columns if found[name]]


def older_versions(
    source: DatasetTables,
    items: ir.Table,
    listings: Listings,
    count_snapshots: Callable[[ir.IntegerValue], ir.IntegerValue],
) -> ir.Table:
    """The older versions that a snapshot reads: rows as in the catalogue, see ``VERSIONS_FILE``.

    What was valid before an item's first version is not known: its content is null, unless the
    first version begins no later than the listing.

    Args:
        source: The dataset, with versions.
        items: From ``tables.catalogue``.
        listings: From ``tables.find_all_listings``.
        count_snapshots: From a time in microseconds to the number of snapshots at or before it.
    """
    kinds = content_kinds(source)
    rows = _find_spans(source, items, listings)
    before = rows.since_us.notnull().ifelse(count_snapshots(rows.since_us), 0)
    is_read = rows.until_us.isnull() | (count_snapshots(rows.until_us) > before)
    rows = rows.filter(is_read)
    content = ibis.struct({name: rows[name] for name in kinds})
    in_order = ibis.window(
        group_by="item_index", order_by=rows.until_us.fill_null(ibis.literal(LATEST_US, "int64"))
    )
    rows = rows.mutate(is_same=content.identical_to(content.lead().over(in_order)))
    rows = rows.filter(rows.until_us.notnull(), ~rows.is_same)
    rows = rows.inner_join(
        items.select("item_index", "seller_id", "known_at", "gone_at"), "item_index"
    )
    order = ("item_index", VERSION_UNTIL)
    columns = ("item_id", "seller_id", *kinds, "known_at", "gone_at")
    return rows.select(*order, *columns).order_by(*order)


def _find_spans(source: DatasetTables, items: ir.Table, listings: Listings) -> ir.Table:
    """Every version with the time after which, and until which, it is read; null is unlimited."""
    versions, kinds = source.versions, content_kinds(source)
    assert versions is not None  # a dataset without versions has no older ones
    listed = listings.items.select("item_id", "listed_at")
    known = items.select("item_id", "item_index", "known_at").left_join(listed, "item_id")
    known = known.select("item_id", "item_index", "known_at", "listed_at")
    rows = versions.select(
        "item_id",
        valid_from=versions[VALID_FROM].cast("timestamp('UTC', 6)"),
        **{name: versions[name].cast(kind) for name, kind in kinds.items()},
    )
    rows = rows.filter(epoch_us(rows.valid_from) < microseconds(source.manifest.split.end))
    rows = rows.inner_join(known, "item_id")
    by_time = ibis.window(group_by="item_index", order_by="valid_from")
    rows = rows.mutate(
        number=ibis.row_number().over(by_time),
        **{VERSION_UNTIL: rows.valid_from.lead().over(by_time)},
    )
    as_listed = (rows.valid_from == rows.known_at) & (rows.listed_at == rows.known_at)
    from_start = (rows.valid_from < rows.known_at) | as_listed.fill_null(False)
    is_first = rows.number == 0
    unknown = rows.filter(is_first & ~from_start)
    unknown = unknown.select(
        "item_index",
        "item_id",
        **{name: ibis.null(kind) for name, kind in kinds.items()},
        valid_from=ibis.null(rows.valid_from.type()),
        **{VERSION_UNTIL: unknown.valid_from},
    )
    known_rows = rows.select(
        "item_index",
        "item_id",
        *kinds,
        valid_from=ibis.ifelse(is_first & from_start, None, rows.valid_from),
        **{VERSION_UNTIL: rows[VERSION_UNTIL]},
    )
    spans = known_rows.union(unknown)
    return spans.mutate(
        since_us=epoch_us(spans.valid_from), until_us=epoch_us(spans[VERSION_UNTIL])
    )

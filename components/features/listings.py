"""When each listing began and ended, stated by the data or assumed.

An item is on sale from ``known_at`` to ``gone_at``, except while it is *away*: from the end of a
listing to the time at which it was listed again, or was seen again after a long silence. What ends
a listing at one time never depends on later data.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import reduce

import ibis
import ibis.expr.types as ir

from refit.contract import VALID_FROM, EventType
from refit.eligibility import MarketSettings
from refit.health import HealthCheck, count_share

TIME = "timestamp('UTC', 6)"
SILENT_DAYS = 14
LOOK_SILENT, STOP_SILENT = 0.2, 0.5
LOOK_ASSUMED = LOOK_SOLD_TWICE = 0.01


@dataclass(frozen=True)
class Listings:
    """The times of all listings.

    Attributes:
        items: One row an item: ``listed_at`` (the first), ``gone_at`` (null while it is on sale),
            and ``stated``, ``bought`` and ``silent``: the ends that were found, of which
            ``gone_at`` is the first.
        away: ``item_id``, ``gone_at``, ``back_at``; an item may have several rows.
        states_ends: Whether the data say when an item was sold or withdrawn.
    """

    items: ir.Table
    away: ir.Table
    states_ends: bool


def find_listings(
    con: ibis.BaseBackend,
    market: MarketSettings,
    items: ir.Table,
    events: ir.Table,
    purchases: ir.Table,
    end: datetime,
) -> Listings:
    """Find the beginning and the end of every listing.

    A listing ends at ``delisted_at``; where stock is one of a kind also at its purchase; with
    ``gone_after_days`` also when it has had no event for that long. It begins again at a later
    ``listed_at``; one that only fell silent also at its next event. Where items come in versions,
    an end counts if its version still held then, and a later version without an end is a new
    beginning.

    Args:
        con: An ibis connection to DuckDB.
        market: Settings of the market.
        items: The items; an item may have several rows with different times, or versions.
        events: All events before the end that show interest.
        purchases: All purchases, also those from before the window.
        end: The end of the data.
    """
    nothing = items.select("item_id", at=ibis.null(TIME)).limit(0)

    def times(name: str) -> ir.Table:
        if name not in items.columns:
            return nothing
        return items.select("item_id", at=items[name].cast(TIME)).filter(lambda t: t.at.notnull())

    states_ends, in_versions = "delisted_at" in items.columns, VALID_FROM in items.columns
    listed = con.create_table("listed", times("listed_at").distinct(), temp=True)
    starts, stated = listed, times("delisted_at")
    if states_ends and in_versions:
        starts = con.create_table(
            "starts", listed.union(_find_returns(items)).distinct(), temp=True
        )
        stated = _find_stated_ends(items)
    bought = purchases.select("item_id", at=purchases.event_time.cast(TIME))
    ends = {
        "stated": stated,
        "bought": bought.semi_join(items, "item_id") if market.ends_when_bought else nothing,
    }
    named = [table.mutate(why=ibis.literal(why)) for why, table in ends.items()]
    every = reduce(lambda left, right: left.union(right), named).distinct()
    later = every.left_join(starts, ["item_id", every["at"] < starts["at"]])
    later = later.group_by("item_id", "at", "why").agg(back_at=lambda t: t.at_right.min())
    later = con.create_table("ends", later, temp=True)
    pauses = later.filter(later.back_at.notnull()).group_by("item_id", "back_at")
    away = pauses.agg(gone_at=lambda t: t["at"].min()).select("item_id", "gone_at", "back_at")
    last = later.filter(later.back_at.isnull())
    final = last.group_by("item_id").agg(
        **{why: last["at"].min(where=last.why == why) for why in ends}
    )
    silent = nothing.select("item_id", silent="at")
    if market.gone_after_days is not None:
        silences = _find_silences(starts, events, market.gone_after_days)
        silences = con.create_table("silences", silences, temp=True)
        ended = silences.filter(silences.back_at.isnull(), silences.gone_at <= end)
        silent = ended.select("item_id", silent="gone_at")
        away = away.union(silences.filter(silences.back_at.notnull()))
    found = items.select("item_id").distinct()
    first = listed.group_by("item_id").agg(listed_at=listed["at"].min())
    for table in (first, final, silent):
        found = found.left_join(table, "item_id").drop("item_id_right")
    found = found.mutate(gone_at=ibis.least(found.stated, found.bought, found.silent))
    return Listings(
        con.create_table("listings", found, temp=True),
        con.create_table("away", away.distinct(), temp=True),
        states_ends,
    )


def _find_stated_ends(versions: ir.Table) -> ir.Table:
    """The ends that versions state: an end that was moved before it came is none."""
    by_time = ibis.window(group_by="item_id", order_by=VALID_FROM)
    dated = versions.mutate(until=versions[VALID_FROM].lead().over(by_time))
    came = dated.until.isnull() | (dated.delisted_at <= dated.until)
    return dated.filter(dated.delisted_at.notnull() & came).select(
        "item_id", at=dated.delisted_at.cast(TIME)
    )


def _find_returns(versions: ir.Table) -> ir.Table:
    """When a version is on sale again after the end of the one before, without a new listing."""
    by_time = ibis.window(group_by="item_id", order_by=VALID_FROM)
    dated = versions.mutate(ended=versions.delisted_at.lag().over(by_time))
    since = dated[VALID_FROM]
    is_back = (dated.ended <= since) & (dated.delisted_at.isnull() | (dated.delisted_at > since))
    if "listed_at" in versions.columns:
        is_back &= dated.listed_at.isnull() | (dated.listed_at <= dated.ended)
    return dated.filter(is_back).select("item_id", at=since.cast(TIME))


def _find_silences(starts: ir.Table, events: ir.Table, days: float) -> ir.Table:
    """When each item had had no event for so many days, and when it had one again, if ever."""
    active = events.select("item_id", at=events.event_time.cast(TIME)).union(starts).distinct()
    of_item = ibis.window(group_by="item_id", order_by="at")
    silence = ibis.interval(timedelta(days=days) // timedelta(microseconds=1), unit="us")
    active = active.mutate(
        gone_at=active["at"] + silence, back_at=active["at"].lead().over(of_item)
    )
    ended = active.back_at.isnull() | (active.gone_at < active.back_at)
    return active.filter(ended).select("item_id", "gone_at", "back_at")


def check_listings(
    found: Listings, market: MarketSettings, catalogue: ir.Table, events: ir.Table, end: datetime
) -> tuple[HealthCheck, ...]:
    """Say how many ends are assumed, and what the assumption leaves open.

    Args:
        found: From ``find_listings``.
        market: Settings of the market.
        catalogue: ``item_id``, ``known_at``, ``gone_at`` and ``last_event`` of every item.
        events: All events before the end that show interest.
        end: The end of the data.
    """
    checks = [_count_assumed_ends(found, market), _count_silent(found, market, catalogue, end)]
    if market.ends_when_bought:
        checks.append(_count_sold_twice(found, events))
    return tuple(checks)


def _count_assumed_ends(found: Listings, market: MarketSettings) -> HealthCheck:
    items = found.items
    is_stated = (items.stated <= items.gone_at).fill_null(False)
    is_bought = ~is_stated & (items.bought <= items.gone_at).fill_null(False)
    counts = items.agg(
        n=items.count(),
        stated=is_stated.sum(),
        bought=is_bought.sum(),
        silent=(items.gone_at.notnull() & ~is_stated & ~is_bought).sum(),
    )
    row = {name: int(value or 0) for name, value in counts.to_pyarrow().to_pylist()[0].items()}
    assumed = row["bought"] + row["silent"]
    parts = [f"{row['bought']:,} at the purchase"] if market.ends_when_bought else []
    if market.gone_after_days is not None:
        parts.append(f"{row['silent']:,} without an event for {market.gone_after_days:g} days")
    shown = count_share(assumed, row["n"])
    return HealthCheck(
        topic="assumptions",
        name="items whose end is assumed",
        shown=f"{shown}: {', '.join(parts)}" if parts else shown,
        measured=assumed / row["n"] if row["n"] else None,
        look=LOOK_ASSUMED,
        advice="delisted_at in the items says when an item was sold or withdrawn",
    )


def _count_silent(
    found: Listings, market: MarketSettings, catalogue: ir.Table, end: datetime
) -> HealthCheck:
    """The items on sale that nobody has touched for long; where they are many, many are gone."""
    is_live = (catalogue.known_at < end) & (catalogue.gone_at.isnull() | (catalogue.gone_at > end))
    live = catalogue.filter(is_live)
    since = end - timedelta(days=SILENT_DAYS)
    counts = live.agg(
        n=live.count(), silent=(ibis.greatest(live.known_at, live.last_event) < since).sum()
    )
    row = {name: int(value or 0) for name, value in counts.to_pyarrow().to_pylist()[0].items()}
    nothing_ends = not found.states_ends and market.gone_after_days is None
    if nothing_ends:
        how = "is never withdrawn" if market.ends_when_bought else "never ends"
        advice = (
            f"the items have no delisted_at, so a listing {how}: add it, or set"
            " features.market.gone_after_days, after which an item without an event is taken for"
            " gone (a large number: items do stay on sale that long)"
        )
    else:
        advice = "items that are gone may still count as on sale"
    return HealthCheck(
        topic="assumptions",
        name=f"items on sale without an event for {SILENT_DAYS} days",
        shown=count_share(row["silent"], row["n"]),
        measured=row["silent"] / row["n"] if row["n"] else None,
        look=0.0 if nothing_ends else LOOK_SILENT,
        stop=STOP_SILENT if nothing_ends and market.ends_when_bought else None,
        advice=advice,
    )


def _count_sold_twice(found: Listings, events: ir.Table) -> HealthCheck:
    bought = events.filter(events.event_type == EventType.PURCHASE.value)
    ends = found.items.select("item_id", "gone_at", back_at=ibis.null(TIME))
    ends = ends.filter(ends.gone_at.notnull()).union(found.away)
    after = bought.inner_join(ends, "item_id")
    after = after.filter(
        after.event_time > after.gone_at,
        after.back_at.isnull() | (after.event_time <= after.back_at),
    ).distinct()
    n, total = (int(table.count().to_pyarrow().as_py()) for table in (after, bought))
    return HealthCheck(
        topic="assumptions",
        name="purchases of items that were sold or gone already",
        shown=count_share(n, total),
        measured=n / total if total else None,
        look=LOOK_SOLD_TWICE if total else None,
        advice="such purchases are not evaluated; where an item can be bought again, set"
        " features.market.stock: replenishable, or give each new listing an item_id or a listed_at"
        " of its own",
    )

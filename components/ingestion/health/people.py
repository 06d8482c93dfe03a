"""Checks of who acts, on what: known users and items, large users and sellers, visits."""

from collections.abc import Iterator, Sequence

import ibis
import ibis.expr.types as ir

from components.ingestion.cleaning import REASON
from components.ingestion.health.data import (
    HealthData,
    inform,
    is_given,
    make_line,
    make_share_line,
    measure,
)
from components.ingestion.matching import IdMatch, describe_ids, match_ids, plain_id
from refit.contract import EventType
from refit.health import HealthCheck, count_share
from refit.tabular.parsing import NULL_SPELLING, NULL_SPELLINGS

NULL_LIKE = (*NULL_SPELLINGS, "-", "--")
"""Spellings of a null, in lower case."""
IDS = {
    "events": ("user_id", "item_id", "session_id"),
    "items": ("item_id", "seller_id"),
    "users": ("user_id",),
}
UNKNOWN_ITEM = "item_id: not among the items"
MOST_NAMED = 3
FEW = 30
_SCIENTIFIC = r"^\d([.,]\d+)?[eE]\+?\d{2,}$"


def check_people(data: HealthData) -> Iterator[HealthCheck]:
    """Check whose events these are, and whether their ids are real."""
    yield from _check_items_known(data)
    yield from _check_users_known(data)
    yield from _check_null_like(data)
    yield from _check_spellings(data)
    yield from _check_largest_users(data)
    yield from _check_largest_seller(data)
    yield _check_bought_twice(data)
    yield from _check_visits(data)
    yield from _check_without_events(data)


def _check_items_known(data: HealthData) -> Iterator[HealthCheck]:
    if not data.has_items:
        return
    unknown = data.counts["events"].reasons.get(UNKNOWN_ITEM, 0)
    advice = "these events are rejected; export items and events of the same day"
    rejected = data.rejected["events"]
    if unknown and "item_id" in rejected.columns:
        match = match_ids(rejected.item_id.cast("string"), data.items.item_id)
        advice += _describe_match(match, "items")
    rows_in = data.counts["events"].rows_in
    yield make_share_line(
        "events", "events without a known item", unknown, rows_in, data.limits.unknown_items, advice
    )


def _check_users_known(data: HealthData) -> Iterator[HealthCheck]:
    if not data.has_users:
        return
    events, users = data.events, data.users
    total = data.counts["events"].kept
    n = int(events.anti_join(users, "user_id").count().to_pyarrow().as_py())
    match = match_ids(events.user_id, users.user_id)
    advice = "these users have no features: check how the ids are written in both tables"
    examples = _describe_match(match, "users") if n else ""
    yield make_share_line(
        "events",
        "events without a known user",
        n,
        total,
        data.limits.unknown_users,
        advice + examples,
    )
    yield make_share_line(
        "events",
        "users known in another spelling only",
        match.similar,
        match.ids,
        data.limits.misspelt_users,
        "they differ in case, spaces, leading zeros or a trailing .0: spell them alike" + examples,
    )
    features = [name for name in users.columns if name != "user_id"]
    if not features:
        yield inform("users", "columns", "none but user_id", "the query tower has no user column")
        return
    told = [is_given(users[name]) for name in features]
    described = users.filter(ibis.or_(*told))
    bare = total - int(events.semi_join(described, "user_id").count().to_pyarrow().as_py())
    yield make_share_line(
        "events",
        "events of users without features",
        bare,
        total,
        data.limits.users_without_features,
        f"of these users none of {', '.join(features)} is known",
    )


def _describe_match(match: IdMatch, table: str) -> str:
    """Examples of both sides, and how many unknown ids would match in another spelling."""
    text = f"; {describe_ids(match, table)}"
    if match.similar:
        text += (
            f"; {count_share(match.similar, match.ids)} of the ids are the same but for case, "
            "spaces, leading zeros or a trailing .0"
        )
    return text


def _check_null_like(data: HealthData) -> Iterator[HealthCheck]:
    """Count the ids that are spelled like nulls, kept or rejected, and name them."""
    for topic, table in data.tables().items():
        for column in (name for name in IDS[topic] if name in table.columns):
            counts = _count_null_like(data, topic, column)
            line = make_share_line(
                topic,
                f"{column} spelled like a null",
                sum(counts.values()),
                data.counts[topic].rows_in,
                data.limits.null_like_ids,
                "ingestion.null_values names the texts that mean null; with an empty list, each "
                "of them is one user, item or visit",
            )
            named = ", ".join(f"{name!r} {n:,}" for name, n in list(counts.items())[:MOST_NAMED])
            shown = f"{line.shown}: {named}" if counts else line.shown
            yield line.model_copy(update={"shown": shown})


def _check_spellings(data: HealthData) -> Iterator[HealthCheck]:
    """Count ids that are probably the same as another one, and those that were rounded."""
    for topic, column in (("events", "user_id"), ("items", "item_id"), ("items", "seller_id")):
        table = data.tables()[topic]
        if column not in table.columns:
            continue
        ids = table.filter(table[column].notnull()).group_by(column).agg(n=ibis._.count())
        ids = ids.mutate(plain=plain_id(ids[column]), rounded=ids[column].re_search(_SCIENTIFIC))
        found = measure(
            ids,
            ids=ids.count(),
            plain=ids.plain.nunique(),
            rows=ids.n.sum(),
            rounded=ids.n.sum(where=ids.rounded),
        )
        yield make_share_line(
            topic,
            f"{column} in several spellings",
            found["ids"] - found["plain"],
            found["ids"],
            data.limits.ids_in_several_spellings,
            "they differ from another one in case, spaces, Unicode form, leading zeros or a "
            "trailing .0 only: are they the same?",
        )
        yield make_share_line(
            topic,
            f"{column} in scientific notation",
            found["rounded"] or 0,
            found["rows"] or 0,
            data.limits.rounded_ids,
            "a spreadsheet rounds long numbers, and different ids become the same: export anew",
        )


def _count_null_like(data: HealthData, topic: str, column: str) -> dict[str, int]:
    """How often each spelling of a null is an id of a kept row, or the cause of a rejected one."""
    counts = _count_values(data.kept_rows(topic)[column], NULL_LIKE)
    if f"{column}: {NULL_SPELLING}" in data.counts[topic].reasons:
        rows = data.rejected[topic]
        causes = rows.filter(rows[REASON].contains(f"{column}: {NULL_SPELLING}"))
        rejected = _count_values(causes[column].cast("string").name(column), NULL_LIKE)
        counts = {id_: counts.get(id_, 0) + rejected.get(id_, 0) for id_ in counts | rejected}
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def _count_values(values: ir.StringColumn, spellings: Sequence[str]) -> dict[str, int]:
    """How often each value occurs that is one of some spellings, in lower case."""
    name = values.get_name()
    counts = values.value_counts(name="n")  # first, since few values are many rows
    rows = counts.filter(counts[name].strip().lower().isin(spellings))
    return {row[name]: row["n"] for row in rows.to_pyarrow().to_pylist()}


def _check_largest_users(data: HealthData) -> Iterator[HealthCheck]:
    """Name the user with the most events: of all, in train, and in test."""
    events, split = data.events, data.split
    in_train = events.event_time < split.validation_start
    in_test = events.event_time >= split.test_start
    advice = (
        "is it a bot, a shop's own account, or one id for all who are not signed in? Leave it out "
        "of the export, or set ingestion.max_user_events_per_day"
    )
    if data.most_per_day:
        advice += f" lower than {data.most_per_day:,}"
    for part, rows, meaning in (
        ("", events, advice),
        (" in train", events.filter(in_train), "most of what the model learns is this user's"),
        (" in test", events.filter(in_test), "most of what the gate judges by is this user's"),
    ):
        yield _name_largest("events", f"largest user{part}", rows.user_id, data, meaning)
    if data.most_per_day:
        counts = data.counts["events"]
        yield inform(
            "events",
            "events over the cap",
            f"{count_share(counts.capped, counts.rows_in)}, of more than {data.most_per_day:,} "
            "of one user and day",
            "left out; they are in rejected/events_over_cap.parquet",
        )


def _name_largest(
    topic: str, name: str, owners: ir.StringColumn, data: HealthData, advice: str
) -> HealthCheck:
    """One line with the most frequent value of a column, and its share of those not null.

    Of fewer than ``FEW`` rows a share says little, and stops nothing.
    """
    of_users = owners.get_name() == "user_id"
    limits = data.limits.largest_user if of_users else data.limits.largest_seller
    column = owners.get_name()
    counts = owners.value_counts(name="n").filter(lambda t: t[column].notnull())
    top = counts.order_by(ibis.desc("n"), column).limit(1).to_pyarrow().to_pylist()
    total = measure(counts, n=counts.n.sum())["n"] or 0
    if not top:
        return make_line(topic, name, "none", None, limits, "there is nothing to compare")
    line = make_share_line(topic, name, top[0]["n"], total, limits, advice)
    stop = line.stop if total >= FEW else None
    return line.model_copy(update={"shown": f"{top[0][column]!r}: {line.shown}", "stop": stop})


def _check_largest_seller(data: HealthData) -> Iterator[HealthCheck]:
    if "seller_id" not in data.items.columns:
        return
    sold = data.events.inner_join(data.items.select("item_id", "seller_id"), "item_id")
    advice = "what is learned is mostly this seller's: check gate.max_seller_gini and seller slices"
    yield _name_largest("events", "largest seller", sold.seller_id, data, advice)


def _check_bought_twice(data: HealthData) -> HealthCheck:
    """Count the items that are bought more than once: is a listing one of a kind?"""
    events = data.events.filter(data.events.event_type == EventType.PURCHASE.value)
    sold = events.group_by("item_id").agg(n=lambda t: t.count())
    found = measure(sold, items=sold.count(), twice=(sold.n > 1).sum())
    bought, twice = found["items"], found["twice"] or 0
    if not bought:
        return inform(
            "items",
            "items bought more than once",
            "no purchase",
            "whether listings are one of a kind cannot be seen: features.market.stock says it",
        )
    advice = (
        "listings are one of a kind: a purchase ends a listing (features.market.stock: "
        "one_of_a_kind, the default)"
        if twice <= 0.02 * bought
        else "an item is sold more than once: if there is more than one of it, set "
        "features.market.stock: replenishable; if not, check the purchases"
    )
    return make_share_line(
        "items", "items bought more than once", twice, bought, data.limits.bought_twice, advice
    )


def _check_visits(data: HealthData) -> Iterator[HealthCheck]:
    events = data.events
    if "session_id" not in events.columns:
        return
    known = events.filter(is_given(events.session_id))
    visits = known.group_by("session_id").agg(
        n=known.count(),
        users=known.user_id.nunique(),
        seconds=known.event_time.max().epoch_seconds() - known.event_time.min().epoch_seconds(),
    )
    found = measure(
        visits,
        visits=visits.count(),
        single=(visits.n == 1).sum(),
        long=(visits.seconds > 86_400).sum(),
        shared=(visits.users > 1).sum(),
    )
    for name, key, limits, advice in (
        (
            "visits with one event",
            "single",
            data.limits.single_visits,
            "session_id differs for every event: histories hold events of the same visit",
        ),
        (
            "visits longer than a day",
            "long",
            data.limits.long_visits,
            "session_id is no visit, perhaps a device: a history ends at the start of a visit",
        ),
        (
            "visits of several users",
            "shared",
            data.limits.shared_visits,
            "session_id is not unique: make it so, for example with the user's id before it",
        ),
    ):
        yield make_share_line("events", name, found[key] or 0, found["visits"], limits, advice)


def _check_without_events(data: HealthData) -> Iterator[HealthCheck]:
    for topic, column, limits, given in (
        ("items", "item_id", data.limits.items_without_events, data.has_items),
        ("users", "user_id", data.limits.users_without_events, data.has_users),
    ):
        if not given:
            continue
        table = data.tables()[topic]
        idle = int(table.anti_join(data.events, column).count().to_pyarrow().as_py())
        yield make_share_line(
            topic,
            f"{topic} without an event",
            idle,
            data.size(topic),
            limits,
            "do both tables cover the same time?",
        )

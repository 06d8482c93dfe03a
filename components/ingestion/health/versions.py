"""Checks of items that come in versions: how many change, and what is known before the first."""

from collections.abc import Iterator

import ibis
import ibis.expr.types as ir

from components.ingestion.health.data import HealthData, inform, make_share_line, measure
from refit.contract import VALID_FROM
from refit.health import HealthCheck
from refit.tabular.versions import mark_changes

_FIXED = ("item_id", VALID_FROM)


def check_versions(data: HealthData) -> Iterator[HealthCheck]:
    """Count the items with several versions, the changes, and the versions that begin late."""
    versions = data.versions
    if versions is None:
        return
    of_item = versions.group_by("item_id").agg(n=versions.count(), first=versions[VALID_FROM].min())
    found = measure(of_item, n=of_item.count(), single=(of_item.n == 1).sum(), rows=of_item.n.sum())
    n, rows = found["n"], found["rows"] or 0
    yield make_share_line(
        "items",
        "items with one version",
        found["single"] or 0,
        n,
        data.limits.single_versions,
        "nothing changes: valid_from is perhaps when a row was made, and its values are today's",
    )
    yield _name_changes(versions, rows - n)
    late = _find_late(data, of_item)
    yield make_share_line(
        "items",
        "items listed before their first version",
        late,
        n,
        data.limits.late_versions,
        "until then nothing is known of them; give each a row whose valid_from is its listed_at",
    )


def _name_changes(versions: ir.Table, n: int) -> HealthCheck:
    """One line with the columns that change, the most frequent first."""
    columns = [name for name in versions.columns if name not in _FIXED]
    changes = mark_changes(versions, "item_id", columns)
    found = measure(changes, **{name: changes[name].sum() for name in columns})
    counts = sorted(((found[name] or 0, name) for name in columns), key=lambda c: (-c[0], c[1]))
    named = ", ".join(f"{name} {count:,}" for count, name in counts if count)
    return inform("items", "changes between versions", f"{n:,}: {named}" if named else f"{n:,}")


def _find_late(data: HealthData, of_item: ir.Table) -> int:
    """Count the items that were listed, or had an event, before their first version."""
    events = data.events.group_by("item_id").agg(event=data.events.event_time.min())
    dated = of_item.left_join(events, "item_id").drop("item_id_right")
    is_late = (dated["event"] < dated["first"]).fill_null(False)
    versions = data.versions
    if versions is not None and "listed_at" in versions.columns:
        listed = versions.group_by("item_id").agg(listed=versions.listed_at.min())
        dated = dated.left_join(listed, "item_id").drop("item_id_right")
        is_late = (ibis.least(dated["event"], dated["listed"]) < dated["first"]).fill_null(False)
    return int(measure(dated, n=is_late.sum())["n"] or 0)

"""Visits: which events belong together, and where the history of an event ends."""

import ibis
import ibis.expr.types as ir

from refit.features import FeatureSpec
from refit.health import HealthCheck, count_share

LOOK_WITHOUT_SESSION = 0.01
LOOK_CONTINUED = 0.1


def mark_visits(events: ir.Table, spec: FeatureSpec) -> ir.Table:
    """Add ``opens_visit`` and ``continues_run``, and move ``earlier`` to the start of the visit.

    A visit is a session. An event without a session belongs to the run of its user's events in
    which no two neighbours are more than ``visit_gap_minutes`` apart. Where a run contains an event
    without a session, the history of all its events ends where the run began: a purchase that the
    shop's till recorded without a session follows the views of a session.

    Args:
        events: ``user_id``, ``session_key`` (null where unknown), ``at_us``, ``position`` and
            ``earlier`` per user; see ``tables.numbered_events``.
        spec: With ``history_within_visit``, ``earlier`` stays as it is.
    """
    gap_us = round(spec.visit_gap_minutes * 60e6)
    of_user = ibis.window(group_by="user_id", order_by="position")
    since_us = events.at_us - events.at_us.lag().over(of_user)
    events = events.mutate(starts_run=(since_us > gap_us).fill_null(True))
    so_far = ibis.cumulative_window(group_by="user_id", order_by="position")
    events = events.mutate(activity_run=events.starts_run.cast("int64").sum().over(so_far))
    is_known = events.session_key.notnull()
    in_visit = ["user_id", "session_key", is_known.ifelse(0, events.activity_run).name("run_alone")]
    number = ibis.row_number().over(ibis.window(group_by=in_visit, order_by="position"))
    opens = is_known.ifelse(number == 0, events.starts_run)
    events = events.mutate(
        opens_visit=opens,
        continues_run=opens & is_known & ~events.starts_run,
        has_session=is_known,
        mixed_run=(~is_known).any().over(ibis.window(group_by=["user_id", "activity_run"])),
    )
    if not spec.history_within_visit:
        of_run = ibis.window(group_by=["user_id", "activity_run"])
        earlier = events.mixed_run.ifelse(events.earlier.min().over(of_run), events.earlier)
        events = events.mutate(earlier=earlier)
        events = events.mutate(earlier=events.earlier.min().over(ibis.window(group_by=in_visit)))
    return events.drop("starts_run", "activity_run", "mixed_run", "session_key")


def check_visits(events: ir.Table, spec: FeatureSpec) -> tuple[HealthCheck, ...]:
    """Say how much the visits rest on sessions, and how much on gaps of inactivity.

    Args:
        events: From ``tables.numbered_events``.
        spec: The feature spec.
    """
    counts = events.agg(
        n=events.count(),
        without=(~events.has_session).sum(),
        sessions=(events.opens_visit & events.has_session).sum(),
        runs=(events.opens_visit & ~events.has_session).sum(),
        continued=events.continues_run.sum(),
    )
    row = {name: int(value or 0) for name, value in counts.to_pyarrow().to_pylist()[0].items()}
    gap = f"{spec.visit_gap_minutes:g} minutes"
    assumed = f"; their {row['runs']:,} visits are assumed from gaps of more than {gap}"
    without = HealthCheck(
        topic="assumptions",
        name="events without session_id",
        shown=count_share(row["without"], row["n"]) + (assumed if row["without"] else ""),
        measured=row["without"] / row["n"] if row["n"] else None,
        look=LOOK_WITHOUT_SESSION,
        advice="features.spec.visit_gap_minutes sets the gap; a history ends where the visit began",
    )
    continued = HealthCheck(
        topic="assumptions",
        name=f"sessions that begin within {gap} of the user's last event",
        shown=count_share(row["continued"], row["sessions"]),
        measured=row["continued"] / row["sessions"] if row["sessions"] else None,
        look=LOOK_CONTINUED if row["sessions"] else None,
        advice="one visit may have several session_ids, so that its end is predicted from its"
        " start; leave session_id out to have visits from gaps",
    )
    return without, continued

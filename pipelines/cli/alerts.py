"""refit alerts: list, show, acknowledge, mute, resolve, notify."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.options import HomeOption, JsonOption, StoreOption
from pipelines.cli.output import write_json, write_line, write_table
from pipelines.home import Home
from refit.alert import AlertStatus
from refit.errors import UsageError
from refit.incident import Incident

alerts = typer.Typer(no_args_is_help=True, help="Alerts of the monitor, for review.")

AlertArgument = Annotated[str, typer.Argument(help="Id of the alert, from refit alerts list.")]
ByOption = Annotated[str, typer.Option(help="Your name.", envvar="USER")]


@alerts.command("list")
def list_alerts(
    status: Annotated[
        AlertStatus | None, typer.Option(help="Only alerts with this status.")
    ] = None,
    home: HomeOption = None,
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """List the alerts, newest first."""
    from monitoring import alerts as review
    from monitoring.store import SqlStore

    found = review.list_alerts(SqlStore(Home.at(home, alert_store=store).alerts), status)
    if as_json:
        write_json([alert.model_dump(mode="json") for alert in found])
        return
    write_table(
        "Alerts",
        ("alert", "since", "status", "severity", "cause", "decision", "outcome"),
        (
            (
                alert.alert_id,
                f"{alert.created_at:%Y-%m-%d %H:%M}",
                alert.status,
                alert.severity,
                alert.incident.cause if alert.incident else "-",
                alert.decision.action,
                alert.outcome or "-",
            )
            for alert in found
        ),
        when_empty="no alerts: refit monitor raises one when it measures drift",
    )


@alerts.command("show")
def show_alert(
    alert_id: AlertArgument,
    home: HomeOption = None,
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show an alert: story, results, decision, what was done."""
    from monitoring import alerts as review
    from monitoring.store import SqlStore

    place = Home.at(home, alert_store=store)
    opened = SqlStore(place.alerts)
    alert = review.show_alert(opened, alert_id)
    if as_json:
        write_json(alert.model_dump(mode="json"))
        return
    if alert.incident is not None:
        _show_incident(alert.incident)
    write_table(
        f"{alert.alert_id} · {alert.status} · {alert.severity}",
        ("subject", "statistic", "value", "threshold", "state", "why"),
        ((r.subject, r.statistic, r.value, r.threshold, r.state, r.why) for r in alert.results),
    )
    write_line(f"decision: {alert.decision.action}")
    for reason in alert.decision.reasons:
        write_line(f"  {reason}")
    for entry in reversed(opened.entries(alert_id)):
        write_line(f"{entry.at:%Y-%m-%d %H:%M} {entry.by}: {entry.did}: {entry.reason}")
    page = place.alert_pages / alert.report
    write_line(f"page: {page if page.exists() else alert.report}")


def _show_incident(incident: Incident) -> None:
    write_line(f"{incident.cause}: {incident.summary}")
    since = f"began {incident.began:%Y-%m-%d %H:%M}"
    write_line(
        f"  {since}" + (f", first in {incident.first_moved}" if incident.first_moved else "")
    )
    for line in incident.evidence:
        write_line(f"  {line}")
    for line in incident.ruled_out:
        write_line(f"  ruled out: {line}")


@alerts.command("ack")
def acknowledge(
    alert_id: AlertArgument,
    reason: Annotated[str, typer.Option(help="Why; kept in the audit trail.")] = "taken on",
    by: ByOption = "",
    home: HomeOption = None,
    store: StoreOption = "",
) -> None:
    """Acknowledge an alert: you are investigating it."""
    from monitoring import alerts as review
    from monitoring.store import SqlStore

    place = Home.at(home, alert_store=store)
    pages = _pages(place, alert_id)
    review.acknowledge(SqlStore(place.alerts), alert_id, by, pages, reason=reason)
    write_line(f"{alert_id} acknowledged by {by}")


@alerts.command("mute")
def mute(
    alert_id: AlertArgument,
    until: Annotated[
        str, typer.Option(help="Until when, in UTC, such as 2024-05-01T09:00, or 12h, or 3d.")
    ],
    reason: Annotated[str, typer.Option(help="Why it can wait; kept in the audit trail.")],
    by: ByOption = "",
    home: HomeOption = None,
    store: StoreOption = "",
) -> None:
    """Send no messages about an alert until a time.

    One that becomes worse is told all the same.
    """
    from monitoring import alerts as review
    from monitoring.store import SqlStore

    place, moment = Home.at(home, alert_store=store), _parse_until(until)
    pages = _pages(place, alert_id)
    review.mute(SqlStore(place.alerts), alert_id, moment, by, reason, pages)
    write_line(f"{alert_id} muted until {moment:%Y-%m-%d %H:%M} UTC by {by}")


@alerts.command("notify")
def notify(
    settings: Annotated[
        Path | None, typer.Option(help="YAML file of the settings of refit review.")
    ] = None,
    home: HomeOption = None,
    store: StoreOption = "",
) -> None:
    """Send the messages that are due, once.

    refit review does so by itself.
    """
    from monitoring.notifications import WEBHOOK_VARIABLE, find_channels, send_notifications
    from monitoring.store import SqlStore
    from pipelines.cli.review import read_review_settings

    read = read_review_settings(settings)
    channels = find_channels(read.notify)
    if not channels:
        raise UsageError(f"nobody would be told: set {WEBHOOK_VARIABLE}, or notify.mail")
    opened = SqlStore(Home.at(home, alert_store=store).alerts)
    sent = send_notifications(opened, channels, read.notify, read.base_url)
    write_line(f"{sent} {'message' if sent == 1 else 'messages'} sent")


@alerts.command("resolve")
def resolve(
    alert_id: AlertArgument,
    note: Annotated[str, typer.Option(help="The cause, and what was done.")],
    by: ByOption = "",
    home: HomeOption = None,
    store: StoreOption = "",
) -> None:
    """Resolve an alert, with a note."""
    from monitoring import alerts as review
    from monitoring.store import SqlStore

    place = Home.at(home, alert_store=store)
    review.resolve(SqlStore(place.alerts), alert_id, by, note, _pages(place, alert_id))
    write_line(f"{alert_id} resolved by {by}")


def _parse_until(text: str) -> datetime:
    if found := re.fullmatch(r"(\d{1,5})([hd])", text.strip()):
        hours = int(found[1]) * (24 if found[2] == "d" else 1)
        return datetime.now(UTC) + timedelta(hours=hours)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"--until takes a time such as 2024-05-01T09:00, or 12h, or 3d, not {text!r}"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _pages(place: Home, alert_id: str) -> Path | None:
    """The folder of review pages, when the alert has one there; a cluster's are elsewhere."""
    pages = place.alert_pages
    return pages if (pages / f"{alert_id}.html").exists() else None

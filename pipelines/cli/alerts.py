"""refit alerts: list, show, acknowledge, resolve."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.options import HomeOption, JsonOption, StoreOption
from pipelines.cli.output import write_json, write_line, write_table
from pipelines.home import Home
from refit.alert import AlertStatus

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
        ("alert", "since", "status", "decision", "outcome"),
        (
            (
                alert.alert_id,
                f"{alert.created_at:%Y-%m-%d %H:%M}",
                alert.status,
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
    """Show an alert: drift results, decision, reasons, page."""
    from monitoring import alerts as review
    from monitoring.store import SqlStore

    place = Home.at(home, alert_store=store)
    alert = review.show_alert(SqlStore(place.alerts), alert_id)
    if as_json:
        write_json(alert.model_dump(mode="json"))
        return
    write_table(
        f"{alert.alert_id} · {alert.status}",
        ("subject", "statistic", "value", "threshold", "state", "why"),
        ((r.subject, r.statistic, r.value, r.threshold, r.state, r.why) for r in alert.results),
    )
    write_line(f"decision: {alert.decision.action}")
    for reason in alert.decision.reasons:
        write_line(f"  {reason}")
    page = place.alert_pages / alert.report
    write_line(f"page: {page if page.exists() else alert.report}")


@alerts.command("ack")
def acknowledge(
    alert_id: AlertArgument,
    by: ByOption = "",
    home: HomeOption = None,
    store: StoreOption = "",
) -> None:
    """Acknowledge an alert: you are investigating it."""
    from monitoring import alerts as review
    from monitoring.store import SqlStore

    place = Home.at(home, alert_store=store)
    review.acknowledge(SqlStore(place.alerts), alert_id, by, _pages(place, alert_id))
    write_line(f"{alert_id} acknowledged by {by}")


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


def _pages(place: Home, alert_id: str) -> Path | None:
    """The folder of review pages, when the alert has one there; a cluster's are elsewhere."""
    pages = place.alert_pages
    return pages if (pages / f"{alert_id}.html").exists() else None

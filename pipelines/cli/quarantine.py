"""refit quarantine: list, release."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.alerts import ByOption
from pipelines.cli.options import HomeOption, JsonOption, RegistryOption, StoreOption
from pipelines.cli.output import write_json, write_line, write_table
from pipelines.home import Home

quarantine = typer.Typer(
    no_args_is_help=True, help="Days of a table that training leaves out, because of a fault."
)


@quarantine.command("list")
def list_quarantines(
    everything: Annotated[
        bool, typer.Option("--all", help="Also those that were released.")
    ] = False,
    home: HomeOption = None,
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """List the quarantines in force."""
    from monitoring.store import SqlStore

    found = SqlStore(Home.at(home, alert_store=store).alerts).quarantines(not everything)
    if as_json:
        write_json([each.model_dump(mode="json") for each in found])
        return
    write_table(
        "Quarantines",
        ("quarantine", "table", "from", "to", "reason", "released by"),
        (
            (
                each.quarantine_id,
                each.table,
                f"{each.start:%Y-%m-%d %H:%M}",
                f"{each.end:%Y-%m-%d %H:%M}" if each.end else "until released",
                each.reason,
                each.released_by or "-",
            )
            for each in found
        ),
        when_empty="no quarantines: training reads every row",
    )


@quarantine.command("release")
def release(
    quarantine_ids: Annotated[
        list[str], typer.Argument(help="Ids, from refit quarantine list.", metavar="ID")
    ],
    reason: Annotated[
        str, typer.Option(help="Why the data is right now; kept in the audit trail.")
    ],
    by: ByOption = "",
    home: HomeOption = None,
    registry: RegistryOption = "",
    store: StoreOption = "",
) -> None:
    """Release quarantines, so that training learns their rows again.

    The quarantines that are left are published in the registry, where training finds them.
    """
    from monitoring.quarantines import release_and_publish
    from monitoring.store import SqlStore
    from refit.registry import Registry
    from refit.remote import is_url

    place = Home.at(home, registry, store)
    # With the alert store of a cluster, the registry of this home may be one that nothing uses.
    is_there = is_url(place.registry) or Path(place.registry).exists()
    bundles = Registry(place.registry) if is_there else None
    warning = release_and_publish(SqlStore(place.alerts), bundles, quarantine_ids, by, reason)
    for each in quarantine_ids:
        write_line(f"{each} released by {by}")
    if warning:
        write_line(f"warning: {warning}; --registry names it")

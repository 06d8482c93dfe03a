"""refit person: delete."""

from dataclasses import asdict
from typing import Annotated

import typer

from pipelines.cli.live import reporting
from pipelines.cli.options import HomeOption, JsonOption
from pipelines.cli.output import write_json, write_line, write_progress, write_table
from pipelines.cli.predictions import DryRunOption, LogOption, open_log
from pipelines.home import Home
from refit.errors import UsageError

person = typer.Typer(no_args_is_help=True, help="A person's data in what Refit keeps.")


@person.command("delete")
def delete_person(
    user: Annotated[str, typer.Argument(help="Id of the person, as in your tables.")],
    log: LogOption = "",
    landing: Annotated[
        str,
        typer.Option(help="Folder or URL of the activity tables, as the landing writes them."),
    ] = "",
    home: HomeOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Delete a person from logs, feeds, tables and pages.

    From the prediction log, the folders of feeds, their dead letters, the tables of activity, and
    the pages of alerts. Says what was removed where, and what is left to you: bundles, Kafka,
    backups. To repeat it does no harm. Servers may run meanwhile. Answers that they are about to
    write are reported; then repeat it. Whoever reads the log at that moment, such as a monitor, may
    have to begin again.

    Try:

      refit person delete shopper-000012 --dry-run

      refit person delete shopper-000012 --log s3://refit/predictions --landing s3://refit/activity
    """
    from pipelines.forget import OUT_OF_REACH, PersonalPlaces, forget

    place = Home.at(home)
    if not log and not landing and not place.folder.is_dir():
        raise UsageError(f"there is no home at {place.folder}: name it with --home, or --log")
    places = PersonalPlaces(
        log=open_log(log, home).place,
        landing=landing,
        feeds=(place.stock, place.activity),
        letters=tuple(place.predictions / f"{feed}_dead_letters" for feed in ("stock", "activity")),
        pages=place.alert_pages,
    )
    with reporting("delete a person", as_json=as_json) as reporter:
        found = forget(user, places, dry_run=dry_run, tell=reporter.message)
    if as_json:
        write_json({"removed": [asdict(one) for one in found], "out_of_reach": OUT_OF_REACH})
        return
    write_table(
        "Would be removed" if dry_run else "Removed",
        ("place", "what", "number", "files"),
        ((one.place, one.what, one.count, one.files) for one in found),
    )
    for one in found:
        if one.left:
            write_line(f"left in {one.place}: {one.left}")
    write_progress("not in reach of this command:")
    for text in OUT_OF_REACH:
        write_progress(f"  {text}")

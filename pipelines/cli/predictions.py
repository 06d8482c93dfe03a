"""refit predictions: list, compact, prune."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.live import reporting
from pipelines.cli.options import ConfigOption, HomeOption, JsonOption, SetOption
from pipelines.cli.output import write_json, write_line, write_table
from pipelines.home import Home
from refit.errors import UsageError

if TYPE_CHECKING:
    from refit.log_keeping import KeptDay
    from refit.log_parts import LogParts

predictions = typer.Typer(
    no_args_is_help=True, help="The prediction log: its parts, and how long they are kept."
)

LogOption = Annotated[
    str,
    typer.Option(
        "--log",
        envvar="REFIT_PREDICTIONS",
        help="Folder or URL of the prediction log (default HOME/predictions).",
    ),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]


@predictions.command("list")
def list_days(log: LogOption = "", home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the days of the log, each with its number of parts."""
    from refit.log_parts import MERGED

    parts = open_log(log, home)
    rows = []
    for day in parts.days():
        live = parts.live(day)
        merged = sum(name.startswith(MERGED) for name in live)
        rows.append({"day": day, "parts": len(live), "merged": merged})
    if as_json:
        write_json(rows)
        return
    write_table(
        "Prediction log",
        ("day", "parts", "of these merged"),
        (tuple(row.values()) for row in rows),
        when_empty=f"no answers in {parts.place}: refit serve writes them",
    )


@predictions.command("compact")
def compact_log(
    log: LogOption = "",
    home: HomeOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Merge the small parts of each day into a few large ones.

    Every server writes a part every few seconds; large ones are read far sooner. Of the day that
    goes on only many parts are merged. Servers, readers and other compactions may run meanwhile,
    and it may be killed: each answer counts once at any moment. Parts that were replaced are
    removed by the next call after an hour. refit monitor does the same before it measures.

    Try:

      refit predictions compact --dry-run

      refit predictions compact --log s3://refit/predictions
    """
    from refit.log_keeping import compact

    parts = open_log(log, home)
    with reporting("merge parts", as_json=as_json) as reporter:
        done = compact(
            parts,
            datetime.now(UTC),
            dry_run=dry_run,
            tell=lambda day: reporter.message(f"{day.day}: {day.before} parts into {day.after}"),
        )
    if as_json:
        write_json([asdict(day) for day in done])
        return
    _show("Would be merged" if dry_run else "Merged", done, "nothing to merge")
    for day in done:
        for name in day.unreadable:
            write_line(f"cannot be read, and was left: date={day.day}/{name}")


@predictions.command("prune")
def prune_log(
    config: ConfigOption = "simulated",
    changes: SetOption = None,
    log: LogOption = "",
    home: HomeOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Remove the days that are older than the config keeps.

    That is monitoring.log.keep_days. A config that keeps less than what its monitor reads is
    refused. Age counts from today, or from the log's newest day if that is earlier. refit monitor
    does the same after it has measured.

    Try:

      refit predictions prune --config my.yaml --dry-run

      refit predictions prune --config my.yaml --set monitoring.log.keep_days=90
    """
    from pipelines.settings import read_settings
    from refit.log_keeping import drop_days

    keep = read_settings(config, changes or ()).monitoring.log.keep_days
    if not keep:
        raise UsageError("monitoring.log.keep_days is 0: all days are kept")
    parts, now = open_log(log, home), datetime.now(UTC)
    with reporting("remove old days", as_json=as_json):
        done = drop_days(parts, keep, now, now, dry_run=dry_run)
    if as_json:
        write_json([asdict(day) for day in done])
        return
    title = "Would be removed" if dry_run else "Removed"
    _show(title, done, f"no day is older than {keep} days")


def open_log(log: str, home: Path | None) -> "LogParts":
    """The log that was named, else that of the home.

    Raises:
        UsageError: There is none where one was named: nothing found in it would mislead.
    """
    from refit.log_parts import LogParts

    parts = LogParts.at(log or Home.at(home).predictions)
    if log and not parts.store.exists(parts.root):
        raise UsageError(f"there is no prediction log at {log}")
    return parts


def _show(title: str, days: "Sequence[KeptDay]", when_empty: str) -> None:
    write_table(
        title,
        ("day", "parts before", "parts after"),
        ((day.day, day.before, day.after) for day in days),
        when_empty=when_empty,
    )

"""refit simulate."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.cli.live import reporting
from pipelines.cli.options import JsonOption
from pipelines.cli.output import write_json, write_line, write_table
from refit.errors import UsageError


def simulate(
    out: Annotated[Path, typer.Argument(help="Folder for events, items and users.")] = Path(
        "build/simulated"
    ),
    preset: Annotated[str, typer.Option(help="demo (small), large or living.")] = "demo",
    days: Annotated[
        int | None, typer.Option(help="Number of days, instead of the preset's.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives identical rows.")] = 7,
    change: Annotated[
        list[str] | None,
        typer.Option(help="A change and its first day: taste_shift@40. Repeatable."),
    ] = None,
    list_changes: Annotated[bool, typer.Option("--list-changes", help="List the changes.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write the data of a simulated marketplace.

    It replaces real data: events, items and users are drawn with a seed, and the truth is known.
    The preset large has 1M events; in living, weekends differ, the market grows, and purchases are
    reported hours later.

    Try:

      refit simulate build/simulated --days 40

      refit simulate build/shifted --change taste_shift@30 --change price_inflation@50
    """
    if list_changes:
        _show_changes(as_json)
        return
    from simulation.history import write_history

    values: dict[str, Any] = {"preset": preset, "seed": seed}
    if days is not None:
        values["days"] = days
    values["changes"] = [_parse_change(text) for text in change or ()]
    with reporting("simulate", as_json=as_json):
        market = write_history(values, out)
    if as_json:
        write_json({"out": str(out), "days": market.day, "truth": market.truth()})
    else:
        write_line(f"{market.day} simulated days are in {out}")


def _parse_change(text: str) -> dict[str, Any]:
    name, _, day = text.partition("@")
    if not day.isdigit():
        raise UsageError(f"expected a change and its day such as taste_shift@40, got {text!r}")
    return {"name": name, "day": int(day)}


def _show_changes(as_json: bool) -> None:
    from simulation.changes import CHANGES

    if as_json:
        write_json(
            {name: {"does": note.does, "keeps": note.keeps} for name, note in CHANGES.items()}
        )
    else:
        write_table("Changes", ("name", "does"), ((n, note.does) for n, note in CHANGES.items()))

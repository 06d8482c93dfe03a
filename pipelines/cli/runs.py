"""refit runs: list, compare, and the ledger of judgements."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.options import HomeOption, JsonOption, RegistryOption
from pipelines.cli.output import write_json, write_line, write_progress, write_table
from pipelines.cli.run import show_local_runs
from pipelines.home import Home
from refit.errors import UsageError

runs = typer.Typer(
    no_args_is_help=True, help="Runs on this machine: what they measured, set and cost."
)


@runs.command("list")
def list_runs_here(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the runs on this machine, newest first."""
    show_local_runs(home, as_json)


@runs.command("compare")
def compare(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="RUNS", help="Ids or folders of runs, ids of bundles; the start of one will do."
        ),
    ],
    html: Annotated[
        Path | None, typer.Option(help="Write the comparison to this HTML file too.")
    ] = None,
    home: HomeOption = None,
    registry: RegistryOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show metrics, settings and costs of runs side by side.

    Of the settings only those that differ are shown. A step that took its earlier output has no
    time of its own and reads "cached".
    """
    from pipelines.compare import compare_runs, show_cell, write_comparison

    if len(names) < 2:
        raise UsageError("refit runs compare takes two or more runs")
    comparison = compare_runs(names, Home.at(home, registry))
    if html:
        write_comparison(comparison, html)
    if as_json:
        write_json(comparison.model_dump(mode="json"))
        return
    for title, rows in comparison.parts.items():
        write_table(
            title,
            (title.lower(), *comparison.names),
            [(name, *(show_cell(cell) for cell in cells)) for name, cells in rows.items()],
        )
    for name in comparison.without_settings:
        write_progress(f"no settings are known of {name}: its run is not on this machine")
    if html:
        write_line(f"page: {html.absolute()}")


@runs.command("ledger")
def show_ledger(
    home: HomeOption = None, registry: RegistryOption = "", as_json: JsonOption = False
) -> None:
    """List every judgement on a test window, oldest first."""
    from refit.ledger import Ledger

    judgements = Ledger(Home.at(home, registry).registry).read()
    if as_json:
        write_json([one.model_dump(mode="json") for one in judgements])
        return
    write_table(
        "Judgements",
        ("when", "by", "run", "test window", "look", "model", "result", "value"),
        [
            (
                f"{one.at:%Y-%m-%d %H:%M:%S}",
                one.by,
                one.run or "-",
                f"{one.window.start:%Y-%m-%d} to {one.window.until:%Y-%m-%d}",
                one.look or "-",
                one.model[:12],
                one.result,
                "-" if one.value is None else f"{one.value:.4f}",
            )
            for one in judgements
        ],
        when_empty="no judgement yet: refit run makes one",
    )

"""refit demo."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.cli.live import reporting
from pipelines.cli.options import JsonOption
from pipelines.cli.output import write_json, write_line
from refit.errors import GateRefused, UsageError


def demo(
    source: Annotated[
        str, typer.Option(help="simulated, or renttherunway to replay real rentals.")
    ] = "simulated",
    data: Annotated[Path | None, typer.Option(help="Folder of the real data.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for everything that the demo writes.")] = Path(
        "build/demo"
    ),
    steps: Annotated[
        int | None, typer.Option(help="Number of days (or weeks of a replay) after the training.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same marketplace.")] = 7,
    calm: Annotated[
        bool, typer.Option("--calm", help="Nothing changes: the monitor should find nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run the whole loop on this machine, from training to refit.

    Simulates a marketplace for a month, trains a model on it, evaluates it and serves it with
    Seldon. Simulated shoppers request recommendations day by day, until the market changes. Nothing
    is scripted to succeed: a refit that is not better is refused by its gate. At the end, a page
    shows what happened.

    Try:

      refit demo

      refit demo --calm

      refit demo --source renttherunway --data data/renttherunway
    """
    from pipelines.demo.run import STAGES, Demo
    from pipelines.demo.settings import DemoSettings

    values: dict[str, Any] = {"source": source, "data": data, "out": out.absolute(), "seed": seed}
    if calm and source != "simulated":
        raise UsageError("--calm is for the simulated marketplace; a replay changes as it did")
    if calm:
        values["change"] = ""
    if steps is not None:
        values["live_steps"] = steps
    settings = DemoSettings.parse(values)
    with reporting("demo", STAGES, as_json) as reporter:
        summary = Demo(settings, reporter).run()
    if as_json:
        write_json(summary)
    else:
        for stage, seconds in summary["seconds"].items():
            write_line(f"{seconds:7.1f} s  {stage}")
        requests = summary["requests"]
        write_line(f"{requests['sent']} requests sent, {requests['failed']} failed")
        write_line(f"page: {out.absolute() / 'index.html'}")
    if not summary["bundles"][0]["passed"]:
        raise GateRefused("the first model was refused, so nothing was served; see its report")

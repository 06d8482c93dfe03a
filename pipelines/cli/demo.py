"""refit demo."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.cli.options import JsonOption
from pipelines.cli.output import write_json, write_line, write_progress
from refit.errors import GateRefused


def demo(
    source: Annotated[
        str, typer.Option(help="simulated, or renttherunway to replay real rentals.")
    ] = "simulated",
    data: Annotated[Path | None, typer.Option(help="Folder of the real data.")] = None,
    out: Annotated[Path, typer.Option(help="Where everything goes.")] = Path("build/demo"),
    steps: Annotated[
        int | None, typer.Option(help="Days (or weeks of a replay) to live with the server.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same world.")] = 7,
    as_json: JsonOption = False,
) -> None:
    """Live the whole loop on this machine: train, judge, serve, drift, alert, refit.

    A simulated marketplace lives a month, a model is trained on it, judged, and put behind Seldon.
    Simulated shoppers ask it day by day; then a change sets in. Nothing is scripted to succeed: if
    the refit is not better, its gate says so. At the end, a page tells the story.

    Try:

      refit demo

      refit demo --source renttherunway --data data/renttherunway
    """
    from pipelines.demo.demo import Demo
    from pipelines.demo.settings import DemoSettings

    values: dict[str, Any] = {"source": source, "data": data, "out": out.absolute(), "seed": seed}
    if steps is not None:
        values["live_steps"] = steps
    summary = Demo(DemoSettings.parse(values), write_progress).tell()
    if as_json:
        write_json(summary)
    else:
        for stage, seconds in summary["seconds"].items():
            write_line(f"{seconds:7.1f} s  {stage}")
        requests = summary["requests"]
        write_line(f"{requests['sent']} requests sent, {requests['failed']} failed")
        write_line(f"the story: {out.absolute() / 'index.html'}")
    if not summary["bundles"][0]["passed"]:
        raise GateRefused("the first model was refused, so nothing was served; see its report")

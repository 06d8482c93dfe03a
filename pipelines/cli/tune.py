"""refit tune."""

from pathlib import Path
from typing import Annotated, Any

import typer

from components.training.tuning.space import describe_values
from pipelines.cli.live import reporting
from pipelines.cli.options import ConfigOption, HomeOption, JsonOption, RegistryOption, SetOption
from pipelines.cli.output import write_json, write_line, write_table
from pipelines.home import Home
from pipelines.local import PIPELINE_STEPS, run_locally
from refit.files import read_json

SHOWN = 8
"""Trials in the table of the command, the best ones."""


def tune(
    config: ConfigOption = "simulated",
    changes: SetOption = None,
    minutes: Annotated[
        float | None, typer.Option(help="The budget; as --set tuning.minutes=N.")
    ] = None,
    trials: Annotated[
        int | None, typer.Option(help="At most this many trials; as --set tuning.trials=N.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Where the chosen config goes (default HOME/studies/STUDY.yaml)."),
    ] = None,
    home: HomeOption = None,
    registry: RegistryOption = "",
    cache: Annotated[
        bool, typer.Option(help="Reuse a step's earlier outputs when its inputs are the same.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Choose settings of the training on the validation days.

    Trains again and again with other settings, beginning with those of the config, and measures
    each on the validation split after every epoch; what falls behind is stopped early. The test
    split is never read: refit run with the chosen config judges it there. The section tuning of the
    config says what is tried and for how long. The same command continues a study that was killed,
    and with more --minutes one whose budget was spent. It writes a config that extends yours with
    what differs, and a page: history, importance, parallel coordinates, cost.

    Try:

      refit tune --config my.yaml --minutes 60 --out tuned.yaml

      refit run --config tuned.yaml --first-model
    """
    from pipelines.arguments import tuning_arguments
    from pipelines.settings import load_config
    from pipelines.tuned import copy_page, write_tuned_config

    given = {"tuning.minutes": minutes, "tuning.trials": trials}
    more = [f"{name}={value}" for name, value in given.items() if value is not None]
    loaded, place = load_config(config, [*(changes or ()), *more]), Home.at(home, registry)
    with reporting("tune", PIPELINE_STEPS["tuning"], as_json) as reporter:
        outcome = run_locally(
            "tuning",
            tuning_arguments(loaded.settings, place),
            place,
            use_cache=cache,
            reporter=reporter,
        )
    outcome.raise_if_failed()
    tuned = Path(outcome.metadata("choose")["tuned"])
    results = read_json(tuned / "tuning.json")
    path = out or place.studies / f"{results['study']}.yaml"
    page = path.with_suffix(".html")
    write_tuned_config(config, loaded, tuned, path)
    copy_page(tuned, page)
    if as_json:
        write_json({**results, "config": str(path.absolute()), "page": str(page.absolute())})
        return
    _show(results)
    write_line(f"config: {path.absolute()}")
    write_line(f"page: {page.absolute()}")


def _show(results: dict[str, Any]) -> None:
    """The best trials, and those of the config's own settings, whatever their place."""
    recall = f"recall@{results['recall_at']}"
    ranked = sorted(results["trials"], key=lambda trial: -(trial["recall"] or 0.0))
    measured = [trial for trial in ranked if trial["outcome"] == "measured"]
    shown = [trial for n, trial in enumerate(measured) if n < SHOWN or trial["own"]]
    write_table(
        f"{len(ranked)} trials, {len(measured)} measured to their end",
        ("trial", recall, "epochs", "seconds", "settings that differ"),
        [
            (
                trial["number"],
                f"{trial['recall']:.4f}",
                len(trial["epochs"]),
                f"{trial['seconds']:.0f}",
                "own settings" if trial["own"] else _differences(trial, ranked),
            )
            for trial in shown
        ],
    )


def _differences(trial: dict[str, Any], trials: list[dict[str, Any]]) -> str:
    own: dict[str, Any] = next((each["values"] for each in trials if each["own"]), {})
    return ", ".join(
        describe_values({name: value})
        for name, value in trial["values"].items()
        if own.get(name) != value
    )

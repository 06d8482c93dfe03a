"""refit run, and the list of runs that it made."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.options import ConfigOption, HomeOption, JsonOption, RegistryOption, SetOption
from pipelines.cli.output import write_json, write_line, write_progress, write_table
from pipelines.cli.print_config import (
    ChangedOption,
    PrintConfigOption,
    check_changed,
    print_settings,
)
from pipelines.home import Home
from pipelines.local import RunOutcome, list_runs, run_locally
from refit.errors import GateRefused, UsageError

RUNNABLE = ("continuous_training", "index_refresh")


def run_pipeline(
    pipeline: Annotated[
        str, typer.Argument(help=f"{' or '.join(RUNNABLE)}.")
    ] = "continuous_training",
    config: ConfigOption = "simulated",
    changes: SetOption = None,
    home: HomeOption = None,
    registry: RegistryOption = "",
    cache: Annotated[
        bool, typer.Option(help="Take a step's earlier outputs when nothing has changed.")
    ] = True,
    reason: Annotated[str, typer.Option(help="Why; kept in the audit trail.")] = "by hand",
    run_id: Annotated[
        str, typer.Option(help="Name of the run; a finished run of this name is not run again.")
    ] = "",
    print_config: PrintConfigOption = False,
    changed: ChangedOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run a pipeline on this machine, with Kubeflow Pipelines' own local runner.

    continuous_training ingests, trains, judges, and promotes the new bundle when its verdict has
    passed. index_refresh indexes today's listings with the champion's towers. A run that was
    killed goes on where it was: finished steps come from the cache, training from its checkpoint.

    Try:

      refit run --config renttherunway --set ingestion.path=data/renttherunway

      refit run index_refresh --config my.yaml --json
    """
    from pipelines.arguments import continuous_training_arguments, index_refresh_arguments
    from pipelines.settings import load_config

    check_changed(print_config, changed)
    loaded = load_config(config, changes or ())
    if print_config:
        print_settings(changed, as_json, run=loaded)
        return
    settings = loaded.settings
    place = Home.at(home, registry)
    if pipeline == "continuous_training":
        arguments = continuous_training_arguments(settings, place, reason)
    elif pipeline == "index_refresh":
        arguments = index_refresh_arguments(settings, place)
    else:
        raise UsageError(f"no pipeline {pipeline!r} to run: there are {', '.join(RUNNABLE)}")
    outcome = run_locally(
        pipeline, arguments, place, use_cache=cache, on_line=write_progress, run_id=run_id
    )
    _tell(outcome, as_json)
    outcome.raise_if_failed()
    raise_if_refused(outcome)


def raise_if_refused(outcome: RunOutcome) -> None:
    """Raise when the run's gate said no, or said yes and nothing was deployed.

    Raises:
        GateRefused: With the gate's reasons.
    """
    gate = outcome.metadata("gate")
    if not gate.get("passed"):
        reasons = "\n  ".join(gate.get("reasons", ())) or "the gate did not run"
        raise GateRefused(f"the gate refused, nothing was deployed:\n  {reasons}")
    if "bundle_id" not in outcome.metadata("deploy"):
        raise GateRefused("the gate passed but no bundle was deployed; see the run's log")


def show_local_runs(home: Path | None, as_json: bool) -> None:
    """List the runs made on this machine, newest first."""
    outcomes = list_runs(Home.at(home))
    if as_json:
        write_json([outcome.model_dump(mode="json") for outcome in outcomes])
        return
    write_table(
        "Runs",
        ("run", "started", "seconds", "ended", "gate", "bundle"),
        (
            (
                outcome.run_id,
                f"{outcome.started_at:%Y-%m-%d %H:%M:%S}",
                f"{outcome.seconds:.0f}",
                "well" if outcome.succeeded else "failed",
                {True: "passed", False: "refused"}.get(outcome.metadata("gate").get("passed"), "-"),  # type: ignore[arg-type]
                outcome.metadata("deploy").get("bundle_id", "-"),
            )
            for outcome in outcomes
        ),
        when_empty="no runs yet: refit run makes one",
    )


def _tell(outcome: RunOutcome, as_json: bool) -> None:
    if as_json:
        write_json(outcome.model_dump(mode="json"))
        return
    write_table(
        f"{outcome.pipeline} · {outcome.seconds:.0f} s",
        ("step", "seconds", "ended"),
        (
            (record.step, f"{record.seconds:.1f}", "well" if not record.exit_code else "failed")
            for record in outcome.steps
        ),
    )
    if report := outcome.metadata("gate").get("evaluation"):
        write_line(f"report: {report}/report.html")
    if bundle := outcome.metadata("deploy").get("bundle_id"):
        write_line(f"champion: {bundle}")

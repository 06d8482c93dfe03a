"""refit run, and the list of the runs on this machine."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.live import reporting
from pipelines.cli.options import (
    ConfigOption,
    FirstModelOption,
    HomeOption,
    JsonOption,
    RegistryOption,
    SetOption,
)
from pipelines.cli.output import write_json, write_line, write_table
from pipelines.cli.print_config import (
    ChangedOption,
    PrintConfigOption,
    check_changed,
    print_settings,
)
from pipelines.home import Home
from pipelines.local import PIPELINE_STEPS, RunOutcome, has_started, list_runs, run_locally
from refit.errors import GateRefused, UsageError
from refit.files import read_json
from refit.health import HealthCheck, summarize_health

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
        bool, typer.Option(help="Reuse a step's earlier outputs when its inputs are the same.")
    ] = True,
    reason: Annotated[
        str, typer.Option(help="Why it is run; kept in the audit trail.")
    ] = "by hand",
    run_id: Annotated[
        str, typer.Option(help="Name of the run; a finished run of this name is not run again.")
    ] = "",
    first_model: FirstModelOption = False,
    print_config: PrintConfigOption = False,
    changed: ChangedOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run a pipeline on this machine.

    The local runner of Kubeflow Pipelines runs each step in its own process. continuous_training
    ingests the data, trains and evaluates a model, and promotes the new bundle when its gate
    passes. It needs a champion to beat; the first model of a registry needs --first-model.
    index_refresh indexes today's listings with the champion's towers. After a kill, the
    same command resumes: finished steps come from the cache, training resumes from its checkpoint.

    Try:

      refit run --first-model --config renttherunway --set ingestion.path=data/renttherunway

      refit run index_refresh --config my.yaml --json
    """
    from pipelines.arguments import continuous_training_arguments, index_refresh_arguments
    from pipelines.extensions import check_extensions
    from pipelines.settings import load_config

    check_changed(print_config, changed)
    loaded = load_config(config, changes or ())
    if print_config:
        print_settings(changed, as_json, run=loaded)
        return
    if pipeline not in RUNNABLE:
        raise UsageError(f"no pipeline {pipeline!r} to run: there are {', '.join(RUNNABLE)}")
    settings, place = loaded.settings, Home.at(home, registry)
    with reporting(pipeline, PIPELINE_STEPS[pipeline], as_json) as reporter:
        if has_started(place, run_id):
            arguments = {}  # it continues with those that it started with
        elif pipeline == "continuous_training":
            check_extensions(settings)
            arguments = continuous_training_arguments(settings, place, reason, first_model)
        else:
            arguments = index_refresh_arguments(settings, place)
        outcome = run_locally(
            pipeline, arguments, place, use_cache=cache, reporter=reporter, run_id=run_id
        )
    _show(outcome, as_json)
    if outcome.metadata("gate").get("passed") is not False:
        outcome.raise_if_failed()
    raise_if_refused(outcome)


def raise_if_refused(outcome: RunOutcome) -> None:
    """Check that the run's gate passed and that a bundle was deployed.

    Raises:
        GateRefused: One of them is not so; the message has the gate's reasons.
    """
    gate = outcome.metadata("gate")
    if not gate.get("passed"):
        reasons = "\n  ".join(gate.get("reasons", ())) or "the gate did not run"
        decided = "cannot tell" if gate.get("outcome") == "cannot tell" else "refused"
        raise GateRefused(
            f"the gate {decided}, nothing was deployed:\n  {reasons}{_describe_kept(outcome)}"
        )
    if "bundle_id" not in outcome.metadata("deploy"):
        raise GateRefused("the gate passed but no bundle was deployed; see the run's log")


def _describe_kept(outcome: RunOutcome) -> str:
    """What became of the bundle that the gate refused; "" if the pipeline keeps none."""
    if kept := outcome.metadata("keep").get("refused_bundle_id"):
        return (
            f"\n{kept} is kept as refused; to promote it all the same: "
            f"refit bundles promote {kept} --force --reason REASON"
        )
    failed = [record for record in outcome.steps if record.exit_code]
    return f"\nthe refused bundle was not kept: {failed[-1].error}" if failed else ""


def show_local_runs(home: Path | None, as_json: bool) -> None:
    """List the runs on this machine, newest first."""
    outcomes = list_runs(Home.at(home))
    if as_json:
        write_json([outcome.model_dump(mode="json") for outcome in outcomes])
        return
    write_table(
        "Runs",
        ("run", "started", "seconds", "outcome", "gate", "bundle"),
        (
            (
                outcome.run_id,
                f"{outcome.started_at:%Y-%m-%d %H:%M:%S}",
                f"{outcome.seconds:.0f}",
                _outcome(outcome.succeeded),
                outcome.metadata("gate").get("outcome", "-"),
                outcome.metadata("deploy").get("bundle_id", "-"),
            )
            for outcome in outcomes
        ),
        when_empty="no runs yet: start one with refit run",
    )


def _outcome(succeeded: bool) -> str:
    return "succeeded" if succeeded else "failed"


def _show_health(path: Path) -> None:
    """Write the lines of the data's health that are not ok, and how many are."""
    if path.exists():
        for line in summarize_health(HealthCheck.parse(values) for values in read_json(path)):
            write_line(line)


def _show_advice(path: Path) -> None:
    """Write what to try first where a baseline was better than the model."""
    if path.exists():
        for text in read_json(path).get("advice", ()):
            write_line(f"try: {text}")


def _show(outcome: RunOutcome, as_json: bool) -> None:
    if as_json:
        write_json(outcome.model_dump(mode="json"))
        return
    write_table(
        f"{outcome.pipeline} · {outcome.seconds:.0f} s",
        ("step", "seconds", "outcome"),
        (
            (record.step, f"{record.seconds:.1f}", _outcome(not record.exit_code))
            for record in outcome.steps
        ),
    )
    if evaluation := outcome.metadata("gate").get("evaluation"):
        write_line(f"report: {evaluation}/report.html")
        _show_health(Path(evaluation) / "health.json")
        _show_advice(Path(evaluation) / "metrics.json")
    if page := outcome.metadata("ingest").get("health_page"):
        write_line(f"health page: {page}")
    if bundle := outcome.metadata("deploy").get("bundle_id"):
        is_baseline = outcome.metadata("deploy").get("kind") == "baseline"
        write_line(f"champion: {bundle}{' (a baseline as itself)' if is_baseline else ''}")

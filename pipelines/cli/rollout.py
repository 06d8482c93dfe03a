"""refit rollout: start, inspect and abort rollouts of bundles on a cluster."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.cluster import ClusterOption
from pipelines.cli.live import reporting
from pipelines.cli.options import JsonOption
from pipelines.cli.output import write_json, write_line, write_table
from refit.signals import end_on_sigterm

if TYPE_CHECKING:
    from components.deployment.canary import PredictorMetrics, Proportion
    from components.deployment.rollout import RolloutProgress, Rollouts

rollout = typer.Typer(no_args_is_help=True, help="Rollouts of bundles on a cluster, with a canary.")

BundleArgument = Annotated[str, typer.Argument(help="Id of the bundle, from refit bundles list.")]
ReasonOption = Annotated[str, typer.Option(help="Why it is done; kept in the audit trail.")]
ByOption = Annotated[str, typer.Option(help="Your name; kept in the audit trail.", envvar="USER")]
SecondsOption = Annotated[
    float, typer.Option("--seconds", help="Longest wait for the pods to serve it.", min=1)
]


def open_rollouts(file: Path | None) -> "Rollouts":
    """The rollouts of the cluster of a cluster file."""
    from components.deployment.cluster import SeldonCluster
    from components.deployment.rollout import Rollouts
    from pipelines.cluster.settings import read_cluster
    from refit.registry import Registry

    settings = read_cluster(file)
    name = settings.rollout.name
    return Rollouts(
        settings.rollout,
        SeldonCluster(settings.namespace, name, settings.kube_context),
        Registry(settings.registry),
        settings.predictions,
        settings.outcomes,
    )


@rollout.command("status")
def show_status(cluster: ClusterOption = None, as_json: JsonOption = False) -> None:
    """Show the rollout in progress.

    Shows what canary and baseline served, and what the rollout waits for.
    """
    show_progress(open_rollouts(cluster).status(), as_json)


@rollout.command("start")
def start(
    bundle_id: BundleArgument,
    reason: ReasonOption,
    by: ByOption = "",
    force: Annotated[
        bool, typer.Option(help="Propose a bundle that was refused or superseded.")
    ] = False,
    cluster: ClusterOption = None,
    as_json: JsonOption = False,
) -> None:
    """Propose a bundle, and start its rollout.

    It is compared with today's champion. A proposal that still waits for its canary is superseded.
    """
    rollouts = open_rollouts(cluster)
    registry = rollouts.registry
    registry.propose(bundle_id, registry.needed_champion_id(), by, reason, force)
    show_progress(rollouts.reconcile(), as_json)


@rollout.command("abort")
def abort(
    reason: ReasonOption,
    by: ByOption = "",
    cluster: ClusterOption = None,
    as_json: JsonOption = False,
) -> None:
    """Abort the rollout in progress.

    The canary is removed, and the champion stays.
    """
    show_progress(open_rollouts(cluster).abort(by, reason), as_json)


@rollout.command("step")
def step(cluster: ClusterOption = None, as_json: JsonOption = False) -> None:
    """Take the next step of the rollout; for a CronJob."""
    show_progress(open_rollouts(cluster).reconcile(), as_json)


@rollout.command("reconcile")
def reconcile(cluster: ClusterOption = None) -> None:
    """Carry out every proposal, until stopped.

    The rollout Deployment of a cluster runs it.
    """
    end_on_sigterm()
    rollouts = open_rollouts(cluster)
    with reporting("reconcile rollouts", keeps_log=True):
        rollouts.reconcile_forever()


@rollout.command("history")
def show_history(cluster: ClusterOption = None, as_json: JsonOption = False) -> None:
    """List every rollout that has ended: when, how and why."""
    decisions = open_rollouts(cluster).registry.decisions()
    if as_json:
        write_json([decision.model_dump(mode="json") for decision in decisions])
        return
    write_table(
        "Rollouts",
        ("when", "action", "bundle", "by", "reasons"),
        (
            (
                f"{d.at:%Y-%m-%d %H:%M:%S}",
                d.action,
                d.bundle_id,
                d.by,
                "; ".join(d.verdict.reasons) or "it is not worse than the champion",
            )
            for d in decisions
        ),
        when_empty="no rollout has ended yet",
    )


def show_progress(progress: "RolloutProgress", as_json: bool) -> None:
    """Print a rollout."""
    if as_json:
        write_json(progress.model_dump(mode="json"))
        return
    if progress.predictors:
        write_table(
            progress.bundle_id,
            (
                "predictor",
                "bundle",
                "pods",
                "failed",
                "fallbacks",
                "slow",
                "no click",
                "no purchase",
            ),
            ((name, *_describe(metrics)) for name, metrics in progress.predictors.items()),
        )
    write_line(f"{progress.phase}: {progress.message}")


def _describe(metrics: "PredictorMetrics") -> tuple[str, ...]:
    faults = (metrics.errors, metrics.fallbacks, metrics.slow)
    quality = (metrics.no_click, metrics.no_purchase)
    return (metrics.bundle_id, str(metrics.pods), *map(_format, (*faults, *quality)))


def _format(proportion: "Proportion") -> str:
    return "unknown" if proportion.problem else f"{proportion.bad:.0f} of {proportion.total:.0f}"

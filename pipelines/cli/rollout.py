"""refit rollout: how a bundle goes live on a cluster, and how far it is."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.cluster import ClusterOption
from pipelines.cli.options import JsonOption
from pipelines.cli.output import write_json, write_line, write_table
from refit.signals import end_on_sigterm

if TYPE_CHECKING:
    from components.deployment.canary import PredictorMetrics, Proportion
    from components.deployment.rollout import Progress, Rollouts

rollout = typer.Typer(no_args_is_help=True, help="New bundles going live on a cluster.")

BundleArgument = Annotated[str, typer.Argument(help="Its id; refit bundles list tells it.")]
ReasonOption = Annotated[str, typer.Option(help="Why; kept in the audit trail.")]
ByOption = Annotated[str, typer.Option(help="Who; kept in the audit trail.", envvar="USER")]
SecondsOption = Annotated[
    float, typer.Option("--seconds", help="How long to wait until the pods have followed.", min=1)
]


def open_rollouts(file: Path | None) -> "Rollouts":
    """The rollouts of the cluster that a file describes."""
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
    """Show what is going live, request counts by predictor, and what the rollout waits for."""
    tell_progress(open_rollouts(cluster).status(), as_json)


@rollout.command("start")
def start(
    bundle_id: BundleArgument,
    reason: ReasonOption,
    by: ByOption = "",
    cluster: ClusterOption = None,
    as_json: JsonOption = False,
) -> None:
    """Nominate a bundle against today's champion, and begin its rollout."""
    rollouts = open_rollouts(cluster)
    registry = rollouts.registry
    registry.propose(bundle_id, registry.champion_id(), by, reason)
    tell_progress(rollouts.reconcile(), as_json)


@rollout.command("abort")
def abort(
    reason: ReasonOption,
    by: ByOption = "",
    cluster: ClusterOption = None,
    as_json: JsonOption = False,
) -> None:
    """End the rollout under way: the canary is removed, the champion goes on."""
    tell_progress(open_rollouts(cluster).abort(by, reason), as_json)


@rollout.command("step")
def step(cluster: ClusterOption = None, as_json: JsonOption = False) -> None:
    """Do the next thing that is due, and end; for a CronJob."""
    tell_progress(open_rollouts(cluster).reconcile(), as_json)


@rollout.command("follow")
def follow(cluster: ClusterOption = None) -> None:
    """Carry out proposals as they come, for ever; what the cluster's own deployer runs."""
    end_on_sigterm()
    open_rollouts(cluster).reconcile_forever()


@rollout.command("history")
def show_history(cluster: ClusterOption = None, as_json: JsonOption = False) -> None:
    """Show how every rollout ended, and why."""
    decisions = open_rollouts(cluster).registry.decisions()
    if as_json:
        write_json([decision.model_dump(mode="json") for decision in decisions])
        return
    write_table(
        "Rollouts",
        ("when", "what", "bundle", "by", "why"),
        (
            (
                f"{d.at:%Y-%m-%d %H:%M:%S}",
                d.action,
                d.bundle_id,
                d.by,
                "; ".join(d.verdict.reasons) or "it proved itself",
            )
            for d in decisions
        ),
        when_empty="no rollout has ended yet",
    )


def tell_progress(progress: "Progress", as_json: bool) -> None:
    """A rollout for the reader."""
    if as_json:
        write_json(progress.model_dump(mode="json"))
        return
    if progress.predictors:
        write_table(
            progress.bundle_id,
            ("predictor", "bundle", "pods", "errors", "fallbacks", "slow", "no outcome"),
            ((name, *_describe(metrics)) for name, metrics in progress.predictors.items()),
        )
    write_line(f"{progress.phase}: {progress.message}")


def _describe(metrics: "PredictorMetrics") -> tuple[str, ...]:
    proportions = (metrics.errors, metrics.fallbacks, metrics.slow, metrics.misses)
    return (metrics.bundle_id, str(metrics.pods), *map(_format, proportions))


def _format(proportion: "Proportion") -> str:
    return "unknown" if proportion.problem else f"{proportion.bad:.0f} of {proportion.total:.0f}"

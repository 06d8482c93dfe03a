"""What the review application carries out requests with: commands here, or runs on a cluster."""

from collections.abc import Sequence
from functools import partial

from components.kubeflow import Kubeflow, RunRequest
from components.monitoring.launch import command_launcher, kfp_launcher, run_command
from monitoring.orders import Means, Refresh
from monitoring.refits import is_ours
from monitoring.store import AlertStore, Order, OrderRequest, Refit
from refit.registry import Registry

STARTING = (Order.REFIT, Order.REFRESH)
LOOK_SECONDS = 2.0
"""How long a refit on the cluster is looked at; the next round looks again."""
PIPELINES = {Order.REFIT: "continuous_training", Order.REFRESH: "index_refresh"}


def local_means(store: AlertStore, registry: str, command: Sequence[str], advice: str) -> Means:
    """Runs as processes of this machine.

    Args:
        store: The alert store, which says whether a refit is still wanted.
        registry: Folder or URL of the bundle registry.
        command: ``refit run`` with its options, without a pipeline; empty starts no runs.
        advice: What to do so that runs can be started, when there is no command.
    """
    if not command:
        return Means(registry=Registry(registry), missing=dict.fromkeys(STARTING, advice))

    return Means(
        launch=command_launcher([*command, "continuous_training"], partial(is_ours, store)),
        refresh=command_refresh([*command, "index_refresh"]),
        registry=Registry(registry),
    )


def command_refresh(command: Sequence[str]) -> Refresh:
    """A refresh of the index by a command of this machine, ``refit run index_refresh``."""

    def refresh(request: OrderRequest) -> str:
        words = [*command, "--run-id", request.request_id, "--json"]
        return f"champion: {run_command(words, request.request_id)}"

    return refresh


def cluster_refresh(run_request: RunRequest) -> Refresh:
    """A refresh of the index as a run on a cluster."""
    return partial(_refresh, run_request)


def cluster_means(store: AlertStore, registry: str, endpoint: str, token_file: str) -> Means:
    """Runs through the Kubeflow Pipelines API, with the run requests that the last monitor stored.

    The endpoint and the token are this process's own: whoever can write to the store must not be
    able to have a token sent elsewhere.

    Args:
        store: The alert store, in which the monitor keeps how runs are started.
        registry: URL of the bundle registry.
        endpoint: URL of the API, as this process reaches it.
        token_file: File with a bearer token; empty sends none.
    """
    found: dict[Order, RunRequest] = {}
    for order, pipeline in PIPELINES.items():
        if body := store.run_request(pipeline):
            request = RunRequest.parse_json(body)
            own = {"endpoint": endpoint, "token_file": token_file}
            found[order] = request.model_copy(update=own)
    bundles = Registry(registry)
    if not found:
        advice = (
            "No monitor has said how runs are started here: schedule drift_monitoring without "
            "--no-refit; its next run says so."
        )
        return Means(registry=bundles, missing=dict.fromkeys(STARTING, advice))
    refit, refresh = found.get(Order.REFIT), found.get(Order.REFRESH)
    return Means(
        launch=kfp_launcher(refit, bundles, LOOK_SECONDS) if refit else None,
        refresh=cluster_refresh(refresh) if refresh else None,
        cancel=partial(_cancel, refit) if refit else None,
        check=partial(_check, refit) if refit else None,
        registry=bundles,
        missing=dict.fromkeys(
            STARTING, "The monitor was scheduled by an earlier Refit: schedule it again."
        ),
    )


def _refresh(run_request: RunRequest, request: OrderRequest) -> str:
    api = Kubeflow.for_step(run_request)
    run, started = api.start_once(request.request_id, run_request)
    return f"run {run.run_id} was {'started' if started else 'found'}"


def _check(run_request: RunRequest) -> None:
    Kubeflow.for_step(run_request).check()


def _cancel(run_request: RunRequest, refit: Refit) -> None:
    api = Kubeflow.for_step(run_request)
    for run in api.find_runs(refit.key, run_request.experiment_id):
        if not run.is_over:
            api.cancel(run.run_id)

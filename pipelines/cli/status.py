"""refit status."""

from typing import Annotated

import typer

from pipelines.cli.cluster import ClusterOption, EndpointOption, open_cluster, show_run
from pipelines.cli.options import HomeOption, JsonOption
from pipelines.cli.output import write_json, write_table
from pipelines.cli.run import show_local_runs

SHOWN = 20


def show_status(
    run: Annotated[str, typer.Argument(help="Name or id of one run on the cluster.")] = "",
    home: HomeOption = None,
    cluster: ClusterOption = None,
    endpoint: EndpointOption = "",
    as_json: JsonOption = False,
) -> None:
    """List the runs on this machine, or on a cluster.

    The newest is first. With --cluster, the name or id of a run shows its steps.

    Try:

      refit status --cluster my-cluster.yaml

      refit status nightly-2026-05-01 --cluster my-cluster.yaml --json
    """
    if cluster is None and not run:
        show_local_runs(home, as_json)
        return
    from pipelines.cluster.runs import find_run

    place, api = open_cluster(cluster, endpoint)
    if run:
        show_run(find_run(api, place, run), as_json)
        return
    experiment = api.find_experiment(place.experiment, place.api_namespace)
    runs = api.list_runs(experiment, SHOWN)
    if as_json:
        write_json([found.model_dump(mode="json", exclude={"tasks"}) for found in runs])
        return
    write_table(
        f"Runs in experiment {place.experiment}",
        ("run", "state", "created", "id"),
        [(r.name, r.state.lower(), f"{r.created_at:%Y-%m-%d %H:%M:%S}", r.run_id) for r in runs],
        when_empty="no runs yet: start one with refit submit",
    )

"""refit cancel."""

from typing import Annotated

import typer

from pipelines.cli.cluster import ClusterOption, EndpointOption, open_cluster
from pipelines.cli.output import write_line


def cancel_run(
    run: Annotated[str, typer.Argument(help="Name or id of the run, from refit status --cluster.")],
    cluster: ClusterOption = None,
    endpoint: EndpointOption = "",
) -> None:
    """Cancel a run on a cluster; a finished run stays as it is."""
    from pipelines.cluster.runs import find_run

    place, api = open_cluster(cluster, endpoint)
    found = find_run(api, place, run)
    if found.is_over:
        write_line(f"run {found.name} has ended: {found.state.lower()}")
        return
    api.cancel(found.run_id)
    write_line(f"run {found.name} is being cancelled")

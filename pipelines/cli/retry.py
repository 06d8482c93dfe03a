"""refit retry."""

from typing import Annotated

import typer

from pipelines.cli.cluster import ClusterOption, EndpointOption, open_cluster, wait_for_end
from pipelines.cli.options import JsonOption
from pipelines.cli.output import write_line
from pipelines.cli.submit import WaitOption
from refit.errors import UsageError


def retry_run(
    run: Annotated[str, typer.Argument(help="Name or id of the run, from refit status --cluster.")],
    cluster: ClusterOption = None,
    endpoint: EndpointOption = "",
    wait: WaitOption = False,
    as_json: JsonOption = False,
) -> None:
    """Retry a failed run on a cluster, from the step that failed.

    Steps that succeeded are kept. Training resumes from its checkpoint when the cluster file names
    a folder for checkpoints, and so does a new run with the same data and settings.
    """
    from pipelines.cluster.runs import find_run

    place, api = open_cluster(cluster, endpoint)
    found = find_run(api, place, run)
    if found.state != "FAILED":
        raise UsageError(
            f"run {found.name} is {found.state.lower()}; only a failed run can be retried"
        )
    api.retry(found.run_id)
    if wait:
        wait_for_end(api, place, found.run_id, as_json)
    else:
        write_line(f"run {found.name} is being retried")

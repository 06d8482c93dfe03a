"""refit retry."""

from typing import Annotated

import typer

from pipelines.cli.cluster import ClusterOption, EndpointOption, open_cluster, watch_to_end
from pipelines.cli.options import JsonOption
from pipelines.cli.output import write_line
from pipelines.cli.submit import WaitOption
from refit.errors import UsageError


def retry_run(
    run: Annotated[str, typer.Argument(help="Its name or id; refit status --cluster tells it.")],
    cluster: ClusterOption = None,
    endpoint: EndpointOption = "",
    wait: WaitOption = False,
    as_json: JsonOption = False,
) -> None:
    """Take a run that failed up again, at the step that failed.

    What succeeded is kept. A training goes on from its checkpoint, where the cluster file names a
    folder for them; so does one that is submitted anew with the same data and settings.
    """
    from pipelines.cluster.runs import find_run

    place, api = open_cluster(cluster, endpoint)
    found = find_run(api, place, run)
    if found.state != "FAILED":
        raise UsageError(
            f"run {found.name} is {found.state.lower()}; only a failed one is taken up again"
        )
    api.retry(found.run_id)
    if wait:
        watch_to_end(api, place, found.run_id, as_json)
    else:
        write_line(f"run {found.name} goes on")

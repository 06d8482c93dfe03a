"""refit logs."""

from typing import Annotated

import typer

from pipelines.cli.cluster import ClusterOption, EndpointOption, open_cluster, write_log
from pipelines.cli.output import write_progress
from refit.errors import RefitError


def show_logs(
    run: Annotated[str, typer.Argument(help="Name or id of the run, from refit status --cluster.")],
    step: Annotated[str, typer.Argument(help="Only this step, such as train_towers.")] = "",
    cluster: ClusterOption = None,
    endpoint: EndpointOption = "",
) -> None:
    """Show the logs of the steps of a run on a cluster."""
    from pipelines.cluster.runs import find_run, log_reader, steps_of

    place, api = open_cluster(cluster, endpoint)
    found = find_run(api, place, run)
    read = log_reader(api, place, found)
    if step:
        write_log(read(step.replace("-", "_")))
        return
    for each in steps_of(found):
        if each.state == "SKIPPED":
            continue
        write_progress(f"--- {each.name} ({each.state.lower()})")
        try:
            write_log(read(each.name))
        except RefitError as error:
            write_progress(str(error))

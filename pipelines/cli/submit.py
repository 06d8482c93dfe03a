"""refit submit."""

from typing import Annotated

import typer

from pipelines.cli.cluster import (
    ClusterOption,
    EndpointOption,
    open_cluster,
    tell_run,
    watch_to_end,
)
from pipelines.cli.options import ConfigOption, JsonOption, SetOption
from pipelines.cli.output import write_progress
from pipelines.cli.print_config import (
    ChangedOption,
    PrintConfigOption,
    check_changed,
    print_settings,
)

CacheOption = Annotated[
    bool, typer.Option(help="Take a step's earlier outputs when nothing has changed.")
]
DataVersionOption = Annotated[
    str,
    typer.Option(
        help="What to know the data by, for caching (default: the run's first step reads them)."
    ),
]
RefitOption = Annotated[
    bool, typer.Option(help="drift_monitoring: start the refit that is decided.")
]
WindowsOption = Annotated[
    int, typer.Option(help="drift_monitoring: how many windows to measure.", min=1)
]
WaitOption = Annotated[
    bool, typer.Option("--wait", help="Follow it to its end; the exit code is the run's.")
]


def submit_pipeline(
    pipeline: Annotated[
        str, typer.Argument(help="continuous_training, index_refresh or drift_monitoring.")
    ] = "continuous_training",
    config: ConfigOption = "simulated",
    changes: SetOption = None,
    cluster: ClusterOption = None,
    endpoint: EndpointOption = "",
    cache: CacheOption = True,
    reason: Annotated[str, typer.Option(help="Why; kept in the audit trail.")] = "by hand",
    run_id: Annotated[
        str, typer.Option(help="Name of the run; a run of this name is found, not made again.")
    ] = "",
    data_version: DataVersionOption = "",
    until: Annotated[
        str, typer.Option(help="drift_monitoring: end of the last window (default: last midnight).")
    ] = "",
    windows: WindowsOption = 1,
    refit: RefitOption = True,
    wait: WaitOption = False,
    print_config: PrintConfigOption = False,
    changed: ChangedOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run a pipeline on a Kubernetes cluster, with Kubeflow Pipelines.

    The same pipelines as refit run, with the settings of the same config; the cluster file says
    where and how its steps run. With --wait, a step's own error comes last and gives the exit
    code; without, the command ends once the run has begun.

    Try:

      refit submit --config my.yaml --cluster my-cluster.yaml --wait

      refit submit index_refresh --config my.yaml --cluster my-cluster.yaml --json
    """
    from pipelines.cluster.submit import Submission, submit
    from pipelines.settings import load_config

    check_changed(print_config, changed)
    loaded = load_config(config, changes or ())
    if print_config:
        from pipelines.cluster.settings import load_cluster

        print_settings(changed, as_json, run=loaded, cluster=load_cluster(cluster))
        return
    submission = Submission(
        pipeline=pipeline,
        settings=loaded.settings,
        use_cache=cache,
        reason=reason,
        data_version=data_version,
        until=until,
        windows=windows,
        refit=refit,
    )
    place, api = open_cluster(cluster, endpoint)
    run, started = submit(api, place, submission, run_id)
    write_progress(f"{'started' if started else 'found'} run {run.name}")
    if wait:
        watch_to_end(api, place, run.run_id, as_json)
    else:
        tell_run(run, as_json)

"""refit submit."""

from typing import Annotated

import typer

from pipelines.cli.cluster import (
    ClusterOption,
    EndpointOption,
    open_cluster,
    show_run,
    wait_for_end,
)
from pipelines.cli.options import ConfigOption, FirstModelOption, JsonOption, SetOption
from pipelines.cli.output import write_progress
from pipelines.cli.print_config import (
    ChangedOption,
    PrintConfigOption,
    check_changed,
    print_settings,
)

CacheOption = Annotated[
    bool, typer.Option(help="Reuse a step's earlier outputs when its inputs are the same.")
]
DataVersionOption = Annotated[
    str,
    typer.Option(
        help="Version of the data, for caching (default: the run's first step reads the data)."
    ),
]
RefitOption = Annotated[
    bool, typer.Option(help="drift_monitoring: start a refit when the decision is to refit.")
]
WindowsOption = Annotated[
    int, typer.Option(help="drift_monitoring: number of windows to measure.", min=1)
]
WaitOption = Annotated[
    bool, typer.Option("--wait", help="Wait for the run to end; the exit code is the run's.")
]


def submit_pipeline(
    pipeline: Annotated[
        str,
        typer.Argument(
            help="continuous_training, index_refresh, drift_monitoring, backtest or tuning."
        ),
    ] = "continuous_training",
    config: ConfigOption = "simulated",
    changes: SetOption = None,
    cluster: ClusterOption = None,
    endpoint: EndpointOption = "",
    cache: CacheOption = True,
    reason: Annotated[
        str, typer.Option(help="Why it is run; kept in the audit trail.")
    ] = "by hand",
    run_id: Annotated[
        str, typer.Option(help="Name of the run; an existing run of this name is not repeated.")
    ] = "",
    data_version: DataVersionOption = "",
    until: Annotated[
        str, typer.Option(help="drift_monitoring: end of the last window (default: last midnight).")
    ] = "",
    windows: WindowsOption = 1,
    refit: RefitOption = True,
    first_model: FirstModelOption = False,
    wait: WaitOption = False,
    print_config: PrintConfigOption = False,
    changed: ChangedOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run a pipeline on a cluster, with Kubeflow Pipelines.

    Runs the same pipelines as refit run, with the settings of the same config. The cluster file
    sets where and how the steps run. With --wait, the command ends with the error and exit code of
    a step that failed; without it, the command ends once the run has started.

    Try:

      refit submit --first-model --config my.yaml --cluster my-cluster.yaml --wait

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
        first_model=first_model,
    )
    place, api = open_cluster(cluster, endpoint)
    run, started = submit(api, place, submission, run_id)
    write_progress(f"{'started' if started else 'found'} run {run.name}")
    if wait:
        wait_for_end(api, place, run.run_id, as_json)
    else:
        show_run(run, as_json)

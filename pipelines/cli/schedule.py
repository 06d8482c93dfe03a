"""refit schedule."""

from typing import Annotated

import typer

from pipelines.cli.cluster import ClusterOption, EndpointOption, open_cluster
from pipelines.cli.options import ConfigOption, JsonOption, SetOption
from pipelines.cli.output import write_json, write_line, write_table
from pipelines.cli.submit import CacheOption, DataVersionOption, RefitOption, WindowsOption
from refit.errors import UsageError

CronOption = Annotated[
    str,
    typer.Option(
        help='Cron expression of six fields, seconds first; "0 0 3 * * *" is every night at three. '
        "In UTC, unless the cluster's Kubeflow Pipelines has another time zone (default: the "
        "cluster file's schedules)."
    ),
]


def schedule_pipeline(
    pipeline: Annotated[
        str, typer.Argument(help="continuous_training, index_refresh or drift_monitoring.")
    ] = "",
    cron: CronOption = "",
    name: Annotated[
        str,
        typer.Option(help="Name of the schedule; replaces one of this name (default: pipeline)."),
    ] = "",
    config: ConfigOption = "simulated",
    changes: SetOption = None,
    cluster: ClusterOption = None,
    endpoint: EndpointOption = "",
    cache: CacheOption = True,
    data_version: DataVersionOption = "",
    windows: WindowsOption = 1,
    refit: RefitOption = True,
    show: Annotated[bool, typer.Option("--list", help="List the schedules.")] = False,
    remove: Annotated[str, typer.Option(help="Remove the schedule of this name.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Schedule a pipeline on a cluster; list and remove schedules.

    One run of a schedule is active at a time, and missed runs are not made up for. Each run reads
    the data and the champion of its own time. A schedule that is replaced or removed while one of
    its runs is active is disabled and stays in the list, because its removal would end the run; it
    is removed the next time that its name is scheduled or removed.

    Try:

      refit schedule drift_monitoring --cron "0 30 0 * * *" --config my.yaml --cluster mine.yaml

      refit schedule --list --cluster mine.yaml
    """
    if sum((bool(pipeline), show, bool(remove))) != 1:
        raise UsageError("name a pipeline to schedule, or give --list or --remove NAME")
    if show:
        _list(cluster, endpoint, as_json)
    elif remove:
        _remove(remove, cluster, endpoint)
    else:
        from pipelines.cluster.submit import Submission, schedule
        from pipelines.settings import read_settings

        submission = Submission(
            pipeline=pipeline,
            settings=read_settings(config, changes or ()),
            use_cache=cache,
            reason=f"schedule {name or pipeline}",
            data_version=data_version,
            windows=windows,
            refit=refit,
        )
        place, api = open_cluster(cluster, endpoint)
        made, replaced = schedule(api, place, submission, cron, name or pipeline)
        if as_json:
            write_json(made.model_dump(mode="json"))
            return
        write_line(f"schedule {made.name}: {made.cron}" + (" (replaced)" if replaced else ""))


def _list(cluster: ClusterOption, endpoint: str, as_json: bool) -> None:
    schedules = _find(cluster, endpoint)[1]
    if as_json:
        write_json([found.model_dump(mode="json") for found in schedules])
        return
    write_table(
        "Schedules",
        ("schedule", "cron (UTC unless set)", "enabled"),
        [(found.name, found.cron, "yes" if found.enabled else "no") for found in schedules],
        when_empty="no schedules: create one with refit schedule PIPELINE --cron",
    )


def _remove(name: str, cluster: ClusterOption, endpoint: str) -> None:
    api, schedules = _find(cluster, endpoint)
    named = [found for found in schedules if found.name == name]
    if not named:
        known = ", ".join(found.name for found in schedules) or "none"
        raise UsageError(f"no schedule {name!r}; there are: {known}")
    gone = [api.retire_schedule(found) for found in named]
    if all(gone):
        write_line(f"schedule {name} is removed")
    else:
        write_line(
            f"schedule {name} is disabled, and a run of it is still active; remove it again when "
            "the run has ended"
        )


def _find(cluster: ClusterOption, endpoint: str):  # type: ignore[no-untyped-def]
    place, api = open_cluster(cluster, endpoint)
    experiment = api.find_experiment(place.experiment, place.api_namespace)
    return api, api.list_schedules(experiment)

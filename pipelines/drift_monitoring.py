"""drift_monitoring: measure drift over the latest windows, decide, alert and start refits."""

from kfp import dsl

from components.monitoring.component import watch_drift
from pipelines.cluster.platform import configure_steps, report_end


@dsl.pipeline(name="drift-monitoring")
def drift_monitoring(
    monitoring: str,
    registry: str,
    champion: str,
    log: str,
    until: str,
    windows: int,
    store: str,
    pages: str,
    workspace: str,
    outcomes: str = "",
    items: str = "",
    refit_command: list = [],  # type: ignore[type-arg]  # noqa: B006 - kfp reads the default
    webhook: str = "",
    refit_run: str = "",
    feeds: str = "{}",
    refresh_run: str = "",
) -> None:
    """Monitor what the champion answered lately; see ``watch_drift`` for the parameters.

    Nothing here is cached, since the prediction log grows.
    """
    with report_end("drift_monitoring", webhook):
        watched = watch_drift(
            settings=monitoring,
            registry=registry,
            champion=champion,
            log=log,
            until=until,
            windows=windows,
            store=store,
            pages=pages,
            workspace=workspace,
            outcomes=outcomes,
            items=items,
            refit_command=refit_command,
            refit_run=refit_run,
            feeds=feeds,
            refresh_run=refresh_run,
        )
        watched.set_caching_options(False)
    configure_steps()

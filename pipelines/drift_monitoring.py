"""drift_monitoring: measure drift over the latest windows, decide, alert, refit when it is due."""

from kfp import dsl

from components.monitoring.component import watch_drift
from components.reporting.component import report_run


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
) -> None:
    """Look at what the champion answered lately; see ``watch_drift`` for the parameters.

    Nothing here is cached: the log it reads grows.
    """
    end = report_run(pipeline="drift_monitoring", webhook=webhook)
    end.set_caching_options(False)
    with dsl.ExitHandler(end, name="report the end, whatever it is"):
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
        )
        watched.set_caching_options(False)

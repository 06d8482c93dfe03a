"""The monitoring steps as Kubeflow Pipelines components."""

from kfp import dsl

from components.images import MAIN_IMAGE


@dsl.component(base_image=MAIN_IMAGE, install_kfp_package=False)
def calibrate_drift(
    settings: str,
    dataset: dsl.Input[dsl.Dataset],
    index: dsl.Input[dsl.Artifact],
    evaluation: dsl.Input[dsl.Artifact],
    reference: dsl.Output[dsl.Artifact],
) -> None:
    """Write the drift reference of a model, with thresholds calibrated on its own data.

    Args:
        settings: MonitorSettings as JSON.
        dataset: The ingestion step's folder.
        index: The indexing step's folder.
        evaluation: The evaluation step's folder, with offline predictions.
        reference: Folder of reference tables and thresholds.
    """
    from pathlib import Path

    from components.step import running
    from monitoring.reference import build_reference
    from monitoring.settings import MonitorSettings
    from refit.index import IndexManifest

    with running("calibrate") as metadata:
        written = build_reference(
            MonitorSettings.parse_json(settings).measure,
            Path(evaluation.path) / "predictions.parquet",
            Path(index.path),
            Path(dataset.path),
            IndexManifest.read(Path(index.path)).embedding_version,
            Path(reference.path),
        )
        metadata["metrics"] = len(written.metrics)


@dsl.component(base_image=MAIN_IMAGE, install_kfp_package=False)
def watch_drift(
    settings: str,
    registry: str,
    champion: str,
    log: str,
    until: str,
    windows: int,
    store: str,
    pages: str,
    workspace: str,
    results: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    outcomes: str = "",
    items: str = "",
    refit_command: list = [],  # type: ignore[type-arg]  # noqa: B006 - kfp reads the default
    refit_run: str = "",
    feeds: str = "{}",
    refresh_run: str = "",
) -> str:
    """Measure drift, decide, raise an alert, and start the refit that is due, once.

    Args:
        settings: MonitorSettings as JSON.
        registry: Where bundles are kept.
        champion: Id of the bundle that serves; empty looks it up in the registry.
        log: The prediction log; like ``outcomes`` and ``items`` a path or a URL. Its small parts
            are merged, and its old days removed, as ``settings.log`` says.
        until: End of the last window, UTC; empty means last midnight, or the end of the last whole
            window where windows are shorter than a day.
        windows: How many windows before ``until`` are measured.
        store: Where results, decisions, alerts and refits are kept: the path of a SQLite file, or
            PostgreSQL's URL, whose password is in the environment variable PGPASSWORD.
        pages: Folder of the review pages.
        workspace: Evidently workspace.
        results: What was measured, as JSON.
        report: The alert's page, or the page of all alerts.
        outcomes: Events with the request_id of the answers they follow, Parquet or CSV.
        items: The current items table, likewise. One that cannot be read is an alert, after which
            the step fails.
        refit_command: Command that starts a refit on this machine.
        refit_run: RunRequest that starts one on a cluster, as JSON; with neither, a refit that is
            due is only reported.
        feeds: FeedSettings as JSON: how the files of outcomes and items are written.
        refresh_run: RunRequest that refreshes the index on a cluster, as JSON. Like ``refit_run``
            it is kept in the store, where the review application finds it.
    """
    import shutil
    import tempfile
    from functools import partial
    from pathlib import Path

    from components.kubeflow import RunRequest
    from components.monitoring.feed_settings import FeedSettings
    from components.monitoring.launch import command_launcher, kfp_launcher
    from components.monitoring.log_days import keeping_log
    from components.monitoring.means import cluster_refresh, command_refresh
    from components.monitoring.sources import end_of_last_window, find_sources
    from components.step import running
    from monitoring.monitor import monitor
    from monitoring.quarantines import publish_quarantines
    from monitoring.refits import is_ours
    from monitoring.settings import MonitorSettings
    from monitoring.store import SqlStore
    from refit.files import write_json
    from refit.registry import Registry

    with running("monitor") as metadata, tempfile.TemporaryDirectory() as folder:
        parsed = MonitorSettings.parse_json(settings)
        bundles = Registry(registry)
        end = end_of_last_window(until, parsed.measure.window_days)
        alert_store, launch, refresh = SqlStore(store), None, None
        if refit_command:
            launch = command_launcher(refit_command, partial(is_ours, alert_store))
            names = {"continuous_training": "index_refresh"}
            refresh = command_refresh([names.get(word, word) for word in refit_command])
        if refit_run:
            launch = kfp_launcher(RunRequest.parse_json(refit_run), bundles)
            alert_store.keep_run_request("continuous_training", refit_run)
        if refresh_run:
            refresh = cluster_refresh(RunRequest.parse_json(refresh_run))
            alert_store.keep_run_request("index_refresh", refresh_run)
        if publish_quarantines(alert_store, bundles):
            launch = None  # a refit would learn from what is in quarantine
        with keeping_log(log, parsed.log, end):
            inputs = find_sources(
                parsed.measure,
                bundles,
                Path(folder),
                champion=champion,
                log=log,
                outcomes=outcomes,
                items=items,
                until=end,
                windows=windows,
                feeds=FeedSettings.parse_json(feeds),
                quarantines=alert_store.quarantines(),
            )
            outcome = monitor(
                parsed,
                inputs,
                alert_store,
                Path(pages),
                now=end,
                launch=launch,
                workspace=Path(workspace),
                refresh=refresh,
            )
        metadata["unpublished"] = publish_quarantines(alert_store, bundles)
        write_json(Path(results.path), [r.model_dump(mode="json") for r in outcome.results])
        page = outcome.alert.report if outcome.alert else "index.html"
        shutil.copyfile(Path(pages) / page, report.path)
        metadata["action"] = str(outcome.decision.action)
        metadata["reasons"] = list(outcome.decision.reasons)
        metadata["results"] = results.path
        metadata["evidence"] = outcome.list_evidence()
        metadata["story"] = outcome.tell_story()
        metadata["alert_id"] = outcome.alert.alert_id if outcome.alert else ""
        metadata["page"] = str(Path(pages) / page)
        metadata["refit"] = outcome.refit.model_dump(mode="json") if outcome.refit else None
        unreadable = {} if outcome.is_closed else inputs.data.unreadable
        for name, error in unreadable.items():
            raise type(error)(f"the {name} cannot be read, see alert {page}: {error}") from error
    return str(metadata["action"])

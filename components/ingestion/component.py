"""The ingestion step as Kubeflow Pipelines components."""

from typing import NamedTuple

from kfp import dsl

from components.images import MAIN_IMAGE


@dsl.component(base_image=MAIN_IMAGE, install_kfp_package=False)
def ingest_data(
    settings: str,
    fingerprint: str,
    dataset: dsl.Output[dsl.Dataset],
) -> None:
    """Read a source, check it against the data contract, and write clean tables split by time.

    Args:
        settings: IngestSettings as JSON.
        fingerprint: Fingerprint of the source and settings: the step runs again when it changes.
        dataset: Output folder: events, items, users, rejected rows and a manifest.
    """
    from pathlib import Path

    from components.ingestion.ingest import ingest
    from components.ingestion.settings import IngestSettings
    from components.step import running

    with running("ingest") as metadata:
        manifest = ingest(IngestSettings.parse_json(settings), Path(dataset.path))
        metadata["counts"] = {name: counts.model_dump() for name, counts in manifest.counts.items()}
        metadata["health_page"] = str(Path(dataset.path) / "health.html")
        dataset.metadata["fingerprint"] = manifest.fingerprint
        dataset.metadata["submitted_fingerprint"] = fingerprint
        dataset.metadata["source"] = manifest.source
        dataset.metadata["simulated"] = manifest.simulated


@dsl.component(base_image=MAIN_IMAGE, install_kfp_package=False)
def plan_backtest(
    settings: str, ingestion: str, training: str, fingerprint: str, registry: str, champion: str
) -> list[dict[str, str]]:
    """Plan the fits of a backtest: one for each cut and seed.

    Args:
        settings: BacktestSettings as JSON.
        ingestion: IngestSettings as JSON.
        training: TrainSettings as JSON.
        fingerprint: Fingerprint of the data: the step runs again when they change.
        registry: Where bundles are kept.
        champion: Id of the champion; empty if there is none.
    """
    import json

    from components.ingestion.backtest import plan_fits
    from components.ingestion.settings import IngestSettings
    from components.step import running
    from refit.backtest import BacktestSettings

    with running("plan") as metadata:
        fits = plan_fits(
            BacktestSettings.parse_json(settings),
            IngestSettings.parse_json(ingestion),
            json.loads(training),
            registry,
            champion,
        )
        metadata["cuts"] = [fit.cut for fit in fits]
    return [fit.model_dump() for fit in fits]


@dsl.component(base_image=MAIN_IMAGE, install_kfp_package=False)
def find_start(
    settings: str,
    registry: str,
    fingerprint: str = "",
    champion: str = "",
    needs_champion: bool = False,
    first_model: bool = False,
    deploys: bool = True,
) -> NamedTuple(  # type: ignore[valid-type]
    "Start", [("ingestion", str), ("fingerprint", str), ("champion", str)]
):
    """Find what a run starts from, on a cluster, where only steps can read data and registry.

    These are the ingestion settings, which leave out what is in quarantine now, the data's
    fingerprint and the champion.

    Args:
        settings: IngestSettings as JSON.
        registry: Where bundles are kept.
        fingerprint: Fingerprint of the data when it is known; empty computes it from the files.
        champion: Id of the bundle to beat when it is known; empty looks it up.
        needs_champion: Whether the run keeps the champion's towers, so that there must be one. It
            trains nothing, and reads what is in quarantine too.
        first_model: Whether the run trains the first model. If not, there must be a champion to
            beat; if so, there must be none.
        deploys: Whether the run may deploy a model; if not, there may or may not be a champion.
    """
    from components.ingestion.fingerprint import fingerprint_source
    from components.ingestion.purpose import learn_from, serve_from
    from components.ingestion.settings import IngestSettings
    from components.step import running
    from refit.progress import log_message
    from refit.registry import Registry

    with running("start") as metadata:
        bundles, ingestion = Registry(registry), IngestSettings.parse_json(settings)
        if needs_champion:
            ingestion = serve_from(ingestion)
        else:
            ingestion = learn_from(ingestion, bundles.quarantines())
        found = fingerprint or fingerprint_source(ingestion)
        if not champion and needs_champion:
            champion = bundles.needed_champion_id()
        if not champion and not deploys:
            bundle = bundles.champion_id()
        else:
            bundle = champion or bundles.starting_champion(first_model)
        metadata["fingerprint"], metadata["champion"] = found, bundle
        metadata["quarantined"] = [days.quarantine_id for days in ingestion.quarantined]
        log_message(f"[start] data {found[:12]}, champion {bundle or 'none'}")
    return (ingestion.to_json(), found, bundle)

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
    """Read a source, hold it to the data contract, and write clean tables split by time.

    Args:
        settings: IngestSettings as JSON.
        fingerprint: Of source files and settings: the step runs again when it changes.
        dataset: Folder of events, items, users, rejected rows and a manifest.
    """
    from pathlib import Path

    from components.ingestion.ingest import ingest
    from components.ingestion.settings import IngestSettings
    from components.step import running

    with running("ingest") as metadata:
        manifest = ingest(IngestSettings.parse_json(settings), Path(dataset.path))
        metadata["counts"] = {name: counts.model_dump() for name, counts in manifest.counts.items()}
        dataset.metadata["fingerprint"] = manifest.fingerprint
        dataset.metadata["submitted_fingerprint"] = fingerprint
        dataset.metadata["source"] = manifest.source
        dataset.metadata["simulated"] = manifest.simulated


@dsl.component(base_image=MAIN_IMAGE, install_kfp_package=False)
def find_start(
    settings: str,
    registry: str,
    fingerprint: str = "",
    champion: str = "",
    needs_champion: bool = False,
) -> NamedTuple("Start", [("fingerprint", str), ("champion", str)]):  # type: ignore[valid-type]
    """Say what a run on a cluster starts from, where only its steps see data and registry.

    Args:
        settings: IngestSettings as JSON.
        registry: Where bundles are kept.
        fingerprint: Of the data, when it is known; empty reads the source's files.
        champion: Id of the bundle to beat, when it is settled; empty looks it up.
        needs_champion: Whether a run without a champion is a mistake.
    """
    from components.ingestion.fingerprint import fingerprint_source
    from components.ingestion.settings import IngestSettings
    from components.step import running
    from refit.progress import log_message
    from refit.registry import Registry

    with running("start") as metadata:
        found = fingerprint or fingerprint_source(IngestSettings.parse_json(settings))
        bundles = Registry(registry)
        look_up = bundles.needed_champion_id if needs_champion else bundles.champion_id
        bundle = champion or look_up()
        metadata["fingerprint"], metadata["champion"] = found, bundle
        log_message(f"[start] data {found[:12]}, champion {bundle or 'none'}")
    return (found, bundle)

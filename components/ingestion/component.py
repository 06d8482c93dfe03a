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
def find_start(
    settings: str,
    registry: str,
    fingerprint: str = "",
    champion: str = "",
    needs_champion: bool = False,
) -> NamedTuple("Start", [("fingerprint", str), ("champion", str)]):  # type: ignore[valid-type]
    """Find the data's fingerprint and the champion, on a cluster, where only steps can read both.

    Args:
        settings: IngestSettings as JSON.
        registry: Where bundles are kept.
        fingerprint: Fingerprint of the data when it is known; empty computes it from the files.
        champion: Id of the bundle to beat when it is known; empty looks it up.
        needs_champion: Whether to fail when there is no champion.
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

"""The ingestion step as a Kubeflow Pipelines component."""

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

    with running("ingest") as facts:
        manifest = ingest(IngestSettings.parse_json(settings), Path(dataset.path))
        facts["counts"] = {name: counts.model_dump() for name, counts in manifest.counts.items()}
        dataset.metadata["fingerprint"] = manifest.fingerprint
        dataset.metadata["submitted_fingerprint"] = fingerprint
        dataset.metadata["source"] = manifest.source
        dataset.metadata["simulated"] = manifest.simulated

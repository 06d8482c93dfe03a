"""The indexing step as a Kubeflow Pipelines component."""

from kfp import dsl

from components.images import MAIN_IMAGE


@dsl.component(base_image=MAIN_IMAGE, install_kfp_package=False)
def index_listings(
    settings: str,
    features: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    index: dsl.Output[dsl.Artifact],
) -> None:
    """Embed the live listings with the item tower and build the index over them.

    Args:
        settings: IndexSettings as JSON.
        features: The feature step's folder.
        model: The training step's folder.
        index: Folder of the ANN index, vectors, item attributes and histories.
    """
    from pathlib import Path

    from components.indexing.build import build_index
    from components.indexing.settings import IndexSettings
    from components.step import running

    with running("index") as facts:
        manifest = build_index(
            IndexSettings.parse_json(settings),
            Path(features.path),
            Path(model.path),
            Path(index.path),
        )
        facts["n_live"] = manifest.n_live
        index.metadata["n_live"] = manifest.n_live
        index.metadata["recall_at_100"] = manifest.recall_at_100

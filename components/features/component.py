"""The feature step as a Kubeflow Pipelines component."""

from kfp import dsl

from components.images import MAIN_IMAGE


@dsl.component(base_image=MAIN_IMAGE, install_kfp_package=False)
def build_feature_tables(
    settings: str,
    dataset: dsl.Input[dsl.Dataset],
    features: dsl.Output[dsl.Dataset],
    registry: str = "",
    like_bundle: str = "",
) -> None:
    """Write the point-in-time tables that training, evaluation and indexing read.

    Args:
        settings: FeatureSettings as JSON.
        dataset: The ingestion step's folder.
        features: Output folder: catalogue, examples, item snapshots and histories.
        registry: Where bundles are kept; needed with ``like_bundle``.
        like_bundle: Id of a bundle whose spec and counted values are used; then only the tables
            that an index needs are written.
    """
    from pathlib import Path

    from components.features.build import build_features
    from components.features.settings import FeatureSettings
    from components.step import running
    from refit.registry import Registry

    with running("features") as metadata:
        like = Registry(registry).get(like_bundle).path if like_bundle else None
        manifest = build_features(
            FeatureSettings.parse_json(settings), Path(dataset.path), Path(features.path), like=like
        )
        metadata["snapshots"] = len(manifest.snapshots)
        features.metadata["snapshots"] = len(manifest.snapshots)

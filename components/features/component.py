"""The feature step as Kubeflow Pipelines components."""

from kfp import dsl

from components.images import MAIN_IMAGE


@dsl.component(base_image=MAIN_IMAGE, install_kfp_package=False)
def build_feature_tables(
    settings: str,
    dataset: dsl.Input[dsl.Dataset],
    encoded: dsl.Input[dsl.Dataset],
    features: dsl.Output[dsl.Dataset],
    registry: str = "",
    like_bundle: str = "",
) -> None:
    """Write the point-in-time tables that training, evaluation and indexing read.

    Args:
        settings: FeatureSettings as JSON.
        dataset: The ingestion step's folder.
        encoded: The encoding step's folder.
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
            FeatureSettings.parse_json(settings),
            Path(dataset.path),
            Path(features.path),
            like=like,
            encoded=Path(encoded.path),
        )
        metadata["snapshots"] = len(manifest.snapshots)
        features.metadata["snapshots"] = len(manifest.snapshots)


@dsl.component(base_image=MAIN_IMAGE, install_kfp_package=False)
def build_champion_tables(
    settings: str,
    dataset: dsl.Input[dsl.Dataset],
    encoded: dsl.Input[dsl.Dataset],
    champion_features: dsl.Output[dsl.Dataset],
    registry: str,
    champion: str = "",
) -> None:
    """Write the champion's own features, if its spec or encoders are not the new model's.

    Args:
        settings: FeatureSettings as JSON.
        dataset: The ingestion step's folder.
        encoded: The encoding step's folder, with the champion's vectors if its encoders are others.
        champion_features: Output folder: a record, and the features if they are needed.
        registry: Folder or URL of the bundles.
        champion: Id of the champion's bundle; empty if there is none yet.
    """
    from pathlib import Path

    from components.features.champion import build_champion_features
    from components.features.settings import FeatureSettings
    from components.step import running
    from refit.registry import Registry

    with running("champion") as metadata:
        record = build_champion_features(
            FeatureSettings.parse_json(settings),
            Path(dataset.path),
            Path(champion_features.path),
            Registry(registry).get(champion).path if champion else None,
            champion,
            Path(encoded.path),
        )
        metadata["needed"] = record.needed
        champion_features.metadata["needed"] = record.needed

"""The deployment step as Kubeflow Pipelines components."""

from kfp import dsl

from components.images import MAIN_IMAGE


@dsl.component(base_image=MAIN_IMAGE, install_kfp_package=False)
def deploy_bundle(
    settings: str,
    features: dsl.Input[dsl.Dataset],
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    index: dsl.Input[dsl.Artifact],
    evaluation: dsl.Input[dsl.Artifact],
    reference: dsl.Input[dsl.Artifact],
    registry: str,
    champion: str = "",
    reason: str = "",
) -> str:
    """Bundle what passed the gate and have it go live; return the bundle's id.

    Args:
        settings: DeploySettings as JSON.
        features: The feature step's folder.
        dataset: The ingestion step's folder.
        model: The training step's folder.
        index: The indexing step's folder.
        evaluation: The evaluation step's folder, with a passed verdict.
        reference: The drift reference.
        registry: Where bundles are kept.
        champion: Id of the bundle that the verdict compared with.
        reason: Kept in the audit trail.
    """
    from pathlib import Path

    from components.deployment.promote import deploy
    from components.deployment.settings import DeploySettings
    from components.step import running

    with running("deploy") as metadata:
        metadata["bundle_id"] = deploy(
            DeploySettings.parse_json(settings),
            features=Path(features.path),
            dataset=Path(dataset.path),
            model=Path(model.path),
            index=Path(index.path),
            evaluation=Path(evaluation.path),
            reference=Path(reference.path),
            registry=registry,
            champion=champion,
            reason=reason,
        )
    return str(metadata["bundle_id"])


@dsl.component(base_image=MAIN_IMAGE, install_kfp_package=False)
def deploy_refreshed_index(
    settings: str,
    features: dsl.Input[dsl.Dataset],
    dataset: dsl.Input[dsl.Dataset],
    index: dsl.Input[dsl.Artifact],
    registry: str,
    champion: str,
) -> str:
    """Bundle a refreshed index with the champion's towers and have it go live.

    Args:
        settings: DeploySettings as JSON.
        features: The feature step's folder, made like the champion's.
        dataset: The ingestion step's folder.
        index: The refreshed index, blessed.
        registry: Where bundles are kept.
        champion: Id of the bundle that serves.
    """
    from pathlib import Path

    from components.deployment.promote import deploy
    from components.deployment.settings import DeploySettings
    from components.step import running
    from refit.registry import Registry

    with running("deploy") as metadata:
        bundle = Registry(registry).get(champion)
        metadata["bundle_id"] = deploy(
            DeploySettings.parse_json(settings),
            features=Path(features.path),
            dataset=Path(dataset.path),
            model=bundle.path,
            index=Path(index.path),
            evaluation=bundle.evaluation,
            reference=bundle.reference,
            registry=registry,
            champion=champion,
            reason=f"index refreshed, towers of {champion}",
        )
    return str(metadata["bundle_id"])

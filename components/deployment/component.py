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
    first_model: bool = False,
) -> str:
    """Assemble a bundle from steps that passed the gate, and promote or propose it.

    Args:
        settings: DeploySettings as JSON.
        features: Output folder of the feature step.
        dataset: Output folder of the ingestion step.
        model: Output folder of the training step.
        index: Output folder of the indexing step.
        evaluation: Output folder of the evaluation step, with a passed verdict.
        reference: The drift reference.
        registry: Folder or URL of the registry.
        champion: Id of the bundle that the evaluation compared with.
        reason: Recorded in the audit trail.
        first_model: Whether there is no champion because this is the first model.

    Returns:
        The bundle's id.
    """
    from pathlib import Path

    from components.deployment.promote import deploy
    from components.deployment.settings import DeploySettings
    from components.step import running
    from refit.registry import Registry

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
            first_model=first_model,
        )
        metadata["kind"] = Registry(registry).kind(metadata["bundle_id"])
    return str(metadata["bundle_id"])


@dsl.component(base_image=MAIN_IMAGE, install_kfp_package=False)
def keep_refused_bundle(
    settings: str,
    features: dsl.Input[dsl.Dataset],
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    index: dsl.Input[dsl.Artifact],
    evaluation: dsl.Input[dsl.Artifact],
    reference: dsl.Input[dsl.Artifact],
    registry: str,
) -> str:
    """Add a bundle that its gate refused to the registry, so that a person can promote it.

    Args:
        settings: DeploySettings as JSON.
        features: Output folder of the feature step.
        dataset: Output folder of the ingestion step.
        model: Output folder of the training step.
        index: Output folder of the indexing step.
        evaluation: Output folder of the evaluation step.
        reference: The drift reference.
        registry: Folder or URL of the registry.

    Returns:
        The bundle's id.
    """
    from pathlib import Path

    from components.deployment.promote import keep_refused
    from components.deployment.settings import DeploySettings
    from components.step import running

    with running("keep") as metadata:
        metadata["refused_bundle_id"] = keep_refused(
            DeploySettings.parse_json(settings),
            features=Path(features.path),
            dataset=Path(dataset.path),
            model=Path(model.path),
            index=Path(index.path),
            evaluation=Path(evaluation.path),
            reference=Path(reference.path),
            registry=registry,
        )
    return str(metadata["refused_bundle_id"])


@dsl.component(base_image=MAIN_IMAGE, install_kfp_package=False)
def deploy_refreshed_index(
    settings: str,
    features: dsl.Input[dsl.Dataset],
    dataset: dsl.Input[dsl.Dataset],
    index: dsl.Input[dsl.Artifact],
    registry: str,
    champion: str,
) -> str:
    """Assemble a bundle from a refreshed index and the champion's towers; promote or propose it.

    Args:
        settings: DeploySettings as JSON.
        features: Output folder of the feature step, built with the champion's settings.
        dataset: Output folder of the ingestion step.
        index: The refreshed index, validated.
        registry: Folder or URL of the registry.
        champion: Id of the champion.

    Returns:
        The bundle's id.
    """
    from pathlib import Path

    from components.deployment.promote import deploy
    from components.deployment.settings import DeploySettings
    from components.step import running
    from refit.registry import Registry

    with running("deploy") as metadata:
        bundle = Registry(registry).get(champion)
        verdict = bundle.read_verdict()
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
            force=verdict is None or not verdict.passed,
        )
    return str(metadata["bundle_id"])

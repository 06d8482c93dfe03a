"""The indexing step as Kubeflow Pipelines components."""

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
        index: Folder of the index, vectors, item attributes and histories.
    """
    from pathlib import Path

    from components.indexing.build import build_index
    from components.indexing.settings import IndexSettings
    from components.step import running

    with running("index") as metadata:
        manifest = build_index(
            IndexSettings.parse_json(settings),
            Path(features.path),
            Path(model.path),
            Path(index.path),
        )
        metadata["n_live"] = manifest.n_live
        index.metadata["n_live"] = manifest.n_live
        index.metadata["recall_at_100"] = manifest.recall_at_100


@dsl.component(base_image=MAIN_IMAGE, install_kfp_package=False)
def reindex_listings(
    settings: str,
    features: dsl.Input[dsl.Dataset],
    registry: str,
    champion: str,
    index: dsl.Output[dsl.Artifact],
) -> bool:
    """Index the live listings with the champion's towers; return whether the index is valid.

    Args:
        settings: IndexSettings as JSON.
        features: The feature step's folder, built with the champion's spec.
        registry: Folder or URL of the bundles.
        champion: Id of the champion's bundle.
        index: Folder of the refreshed index.
    """
    from pathlib import Path

    from components.indexing.build import build_index
    from components.indexing.settings import IndexSettings
    from components.indexing.validate import validate_index
    from components.step import running
    from refit.files import write_json
    from refit.progress import log_message
    from refit.registry import Registry
    from refit.subject import INDEX_VERDICT_FILE

    with running("gate") as metadata:
        parsed = IndexSettings.parse_json(settings)
        bundle = Registry(registry).get(champion)
        out = Path(index.path)
        index.metadata["n_live"] = build_index(parsed, Path(features.path), bundle.path, out).n_live
        verdict = validate_index(parsed.validation, out, bundle)
        write_json(out / INDEX_VERDICT_FILE, verdict.model_dump(mode="json"))
        metadata["passed"] = verdict.passed
        metadata["outcome"] = verdict.outcome
        metadata["reasons"] = list(verdict.reasons)
        for reason in verdict.reasons:
            log_message(f"[gate] {reason}")
    return verdict.passed

"""The training step as a Kubeflow Pipelines component."""

from kfp import dsl

from components.images import MAIN_IMAGE


@dsl.component(base_image=MAIN_IMAGE, install_kfp_package=False)
def train_towers(
    settings: str,
    features: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    curve: dsl.Output[dsl.HTML],
    checkpoint_folder: str = "",
) -> None:
    """Train the two towers and export them as SavedModels.

    Args:
        settings: TrainSettings as JSON.
        features: The feature step's folder.
        model: Folder of query_tower/1, item_tower/1 and their manifests.
        curve: Loss and validation recall by epoch.
        checkpoint_folder: Where a killed training resumes from; empty keeps no checkpoints.
    """
    import base64
    from pathlib import Path

    from components.step import running
    from components.training.settings import TrainSettings
    from components.training.train import train

    with running("train") as metadata:
        out = Path(model.path)
        checkpoint = Path(checkpoint_folder) if checkpoint_folder else None
        manifest = train(TrainSettings.parse_json(settings), Path(features.path), out, checkpoint)
        picture = base64.b64encode((out / "curve.png").read_bytes()).decode()
        Path(curve.path).write_text(
            f'<img alt="Loss and recall by epoch" src="data:image/png;base64,{picture}">',
            encoding="utf-8",
        )
        model.metadata["embedding_version"] = manifest.embedding_version
        metadata["embedding_version"] = manifest.embedding_version

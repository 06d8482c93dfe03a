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


@dsl.component(base_image=MAIN_IMAGE, install_kfp_package=False)
def tune_towers(
    settings: str,
    training: str,
    features: dsl.Input[dsl.Dataset],
    studies: str,
    worker: str,
    checkpoint_folder: str = "",
) -> str:
    """Try settings on the validation split until the budget is spent; returns the study's key.

    Args:
        settings: TuneSettings as JSON.
        training: The config's own TrainSettings as JSON.
        features: The feature step's folder.
        studies: Folder of the study's file, or URL of its database.
        worker: Name of this worker.
        checkpoint_folder: Where a killed trial resumes from; empty keeps no checkpoints.
    """
    from pathlib import Path

    from components.step import running
    from components.training.settings import TrainSettings
    from components.training.tuning.settings import TuneSettings
    from components.training.tuning.worker import tune

    with running("tune") as metadata:
        key = tune(
            TuneSettings.parse_json(settings),
            TrainSettings.parse_json(training),
            Path(features.path),
            studies,
            worker,
            Path(checkpoint_folder) if checkpoint_folder else None,
        )
        metadata["study"] = key
    return key


@dsl.component(base_image=MAIN_IMAGE, install_kfp_package=False)
def choose_settings(
    settings: str,
    training: str,
    features: dsl.Input[dsl.Dataset],
    studies: str,
    found: list[str],
    tuned: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Choose the best settings of a study, and write them with a page about all trials.

    Args:
        settings: TuneSettings as JSON.
        training: The config's own TrainSettings as JSON.
        features: The feature step's folder.
        studies: Folder of the study's file, or URL of its database.
        found: The study's key, from each worker.
        tuned: Folder of results, the settings that differ as YAML, the page and its pictures.
        page: The page.
        metrics: The best validation recall, and that of the config's own settings.
    """
    import shutil
    from pathlib import Path

    from components.step import running
    from components.training.settings import TrainSettings
    from components.training.tuning.page import write_study
    from components.training.tuning.results import read_results
    from components.training.tuning.settings import TuneSettings
    from refit.files import write_json

    with running("choose") as metadata:
        out = Path(tuned.path)
        results = read_results(
            TuneSettings.parse_json(settings),
            TrainSettings.parse_json(training),
            Path(features.path),
            studies,
            found[0],
        )
        write_study(out, results)
        shutil.copyfile(out / "page.html", page.path)
        measured = {f"recall_at_{results.recall_at}": results.best.recall or 0.0}
        if results.own:
            measured["own_settings"] = results.own.recall or 0.0
        for name, value in measured.items():
            metrics.log_metric(name, value)
        # kfp's local cache drops a step that wrote no file for one of its artifacts.
        write_json(Path(metrics.path), measured)
        metadata["tuned"] = str(out)
        metadata["changes"] = results.changes

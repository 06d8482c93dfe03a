"""Compile the pipelines to YAML files, as the local runner reads them."""

from pathlib import Path

from pipelines.local import COMPILED_FOLDER

PIPELINES = ("continuous_training", "index_refresh", "drift_monitoring", "backtest", "tuning")


def compile_pipelines(folder: Path = COMPILED_FOLDER) -> list[Path]:
    """Write a YAML file for each pipeline into ``folder``; the same code gives the same bytes."""
    from importlib import import_module

    from kfp.compiler import Compiler

    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in PIPELINES:
        pipeline = getattr(import_module(f"pipelines.{name}"), name)
        paths.append(folder / f"{name}.yaml")
        Compiler().compile(pipeline, str(paths[-1]))
    return paths


if __name__ == "__main__":
    compile_pipelines()

"""Compile a pipeline for a cluster: the same function, under the cluster's settings."""

import hashlib
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from pipelines.cluster.platform import platform
from pipelines.cluster.settings import ClusterSettings
from pipelines.compile import PIPELINES
from refit.errors import UsageError
from refit.settings import Settings

KNOWN_TO_2_0 = {
    "secretAsEnv": {"secretName", "keyToEnv"},
    "pvcMount": {"constant", "mountPath"},
}
"""Fields of kfp-kubernetes' lists that backend 2.0 knows; it refuses a pipeline with others."""


class CompiledPipeline(Settings):
    """A pipeline compiled for a cluster.

    Attributes:
        pipeline: Its name.
        text: Pipeline spec and platform spec, as two YAML documents.
    """

    pipeline: str
    text: str

    @property
    def version(self) -> str:
        """Name of the version, from the content."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]


def compile_for(
    pipeline: str, settings: ClusterSettings, use_cache: bool = True
) -> CompiledPipeline:
    """Compile ``pipeline`` for a cluster.

    Args:
        pipeline: Its name, one of PIPELINES.
        settings: The cluster.
        use_cache: Whether steps may reuse earlier outputs.

    Raises:
        UsageError: There is no such pipeline.
    """
    if pipeline not in PIPELINES:
        raise UsageError(f"no pipeline {pipeline!r}: there are {', '.join(PIPELINES)}")
    from kfp import dsl
    from kfp.compiler import Compiler

    known = getattr(import_module(f"pipelines.{pipeline}"), pipeline)
    with platform(settings), TemporaryDirectory() as folder:
        # Decorating traces the function, so that it must be decorated again inside platform().
        traced: Any = dsl.pipeline(name=pipeline.replace("_", "-"))(known.pipeline_func)
        package = Path(folder) / "pipeline.yaml"
        Compiler().compile(traced, str(package))
        documents = list(yaml.safe_load_all(package.read_text("utf-8")))
    if not use_cache:
        _disable_caching(documents[0])
    if settings.backend == "2.0":
        keep_what_2_0_knows(documents)
    return CompiledPipeline(pipeline=pipeline, text=yaml.safe_dump_all(documents, sort_keys=True))


def _disable_caching(pipeline: dict[str, Any]) -> None:
    for component in (pipeline["root"], *pipeline["components"].values()):
        for task in component.get("dag", {}).get("tasks", {}).values():
            task["cachingOptions"] = {}


def keep_what_2_0_knows(documents: list[dict[str, Any]]) -> None:
    """Remove fields that backend 2.0 refuses; kfp-kubernetes repeats older ones in them."""
    for document in documents[1:]:
        for executor in document["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values():
            for kind, known in KNOWN_TO_2_0.items():
                for entry in executor.get(kind, ()):
                    for name in set(entry) - known:
                        del entry[name]

"""Fixtures for tests on Kubeflow Pipelines: a backend, and the image that steps run in."""

from pathlib import Path

import pytest

from tests.cluster.images import Images
from tests.cluster.kfp.backend import Backend, deploy
from tests.cluster.kubernetes import Cluster


@pytest.fixture(scope="session")
def kfp_backend(cluster: Cluster) -> Backend:
    """Kubeflow Pipelines 2.0.5 and Argo Workflows in namespace kubeflow."""
    return deploy(cluster)


@pytest.fixture(scope="session")
def step_image(images: Images) -> str:
    """Refit's main image, in which the trial pipelines' steps run too."""
    return images.main()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Where a test compiles its pipeline to."""
    return tmp_path / "pipeline.yaml"

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.pipelines.cluster.standin import StandIn, serving


@pytest.fixture
def backend() -> Iterator[StandIn]:
    """A stand-in for the Kubeflow Pipelines API."""
    with serving(StandIn()) as standin:
        yield standin


@pytest.fixture
def cluster(tmp_path: Path, backend: StandIn, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a cluster whose API the stand-in is."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "no-kubeconfig"))
    for name in ("REFIT_KFP_ENDPOINT", "REFIT_KFP_TOKEN", "REFIT_CLUSTER"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "cluster.yaml"
    values = {
        "endpoint": backend.url,
        "registry": "s3://refit/registry",
        "predictions": "s3://refit/predictions",
        "service_accounts": {"continuous_training": "trainer", "drift_monitoring": "monitor"},
    }
    file.write_text(yaml.safe_dump(values))
    return file

"""KUBECONFIG counts as it is now, though the Kubernetes client was imported under another."""

from types import SimpleNamespace

import pytest

from components.deployment.cluster import SeldonCluster
from pipelines.cluster.connect import connect
from pipelines.cluster.logs import read_step_log
from pipelines.cluster.settings import ClusterSettings
from pipelines.doctor.cluster import ClusterDoctor
from refit.errors import RefitError
from tests.pipelines.doctor.kubernetes import write_kubeconfig


@pytest.fixture
def earlier(tmp_path, monkeypatch):
    """A kubeconfig that can be used, and was KUBECONFIG at the import; now it names no file."""
    path = tmp_path / "earlier"
    write_kubeconfig(path, "http://127.0.0.1:1")
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))


SETTINGS = ClusterSettings.parse({"registry": "memory://r", "predictions": "memory://p"})


@pytest.mark.parametrize(
    "use",
    [
        lambda: SeldonCluster("refit", "refit"),
        lambda: connect(SETTINGS),
        lambda: read_step_log(SimpleNamespace(address="the API"), SETTINGS, "run", "train", ()),
        lambda: next(iter(ClusterDoctor(SETTINGS, "").checks()["Kubernetes"]())),
    ],
    ids=["rollout", "connect", "logs", "doctor"],
)
def test_the_kubeconfig_in_force_is_read(earlier, use):
    with pytest.raises(RefitError, match=r"Invalid kube-config|kubeconfig cannot be used"):
        use()

"""Kubeflow Pipelines 2.0.5 on the test cluster: a single-user installation."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.request import urlopen

from tests.machine.commands import timed, wait_for
from tests.machine.kfp import images, programs
from tests.machine.kubernetes import Cluster
from tests.machine.steps import run_steps

if TYPE_CHECKING:
    from kfp import Client

NAMESPACE = "kubeflow"
SERVICE_ACCOUNT = "pipeline-runner"
BUCKET = "mlpipeline"


class Backend:
    """A running Kubeflow Pipelines backend.

    Attributes:
        endpoint: URL of its API, for ``kfp.Client(host=...)`` and ``refit submit --endpoint``.
        objects: URL of its S3 store, which keeps artifacts in the bucket ``mlpipeline``.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.endpoint = f"http://{self._address('ml-pipeline')}:8888"
        self.objects = f"http://{self._address('minio-service')}:9000"

    def client(self) -> "Client":
        """The SDK's client."""
        from kfp import Client

        return Client(host=self.endpoint, namespace=NAMESPACE)

    def _address(self, service: str) -> str:
        return str(self.cluster.get("service", service, NAMESPACE)["spec"]["clusterIP"])


def deploy(cluster: Cluster) -> Backend:
    """Build what is missing, install the backend, and wait until its API responds.

    Raises:
        CommandError: A build or an installation step failed; the message contains pod logs.
        UnsupportedHostError: A Debian package or Python 3.11 is not available.
    """
    for image in images.backend_images():
        cluster.ensure_image(image)
    with timed("Kubeflow Pipelines is ready"):
        with linked_manifests() as folder:
            run_steps(cluster, ["install_kubeflow"], **sources(folder))
        backend = Backend(cluster)
        wait_for("Kubeflow Pipelines' API", partial(_responds, backend.endpoint), seconds=60)
    return backend


def sources(folder: Path) -> dict[str, str]:
    """The variables that make the steps of ``kustomize/local`` install this release."""
    return {"KFP_CLUSTER_SCOPED": "", "KFP_MANIFESTS": str(folder), "KFP_BACKEND": "2.0"}


@contextmanager
def linked_manifests() -> Iterator[Path]:
    """A folder with our kustomization and links to the Go modules that it refers to."""
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) / "manifests"
        copytree(programs.HERE / "manifests", folder)
        for name, module in (("pipelines", programs.PIPELINES), ("argo", programs.ARGO)):
            (folder / name).symlink_to(programs.sources(name, module))
        yield folder


def _responds(endpoint: str) -> bool:
    try:
        with urlopen(f"{endpoint}/apis/v2beta1/healthz", timeout=2) as response:
            return bool(response.status == 200)
    except OSError:  # the pod restarts until its database is ready
        return False

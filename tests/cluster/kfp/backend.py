"""Kubeflow Pipelines 2.0.5 on the test cluster, in its own namespace, as one user's."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.request import urlopen

from tests.cluster.commands import timed, wait_for
from tests.cluster.kfp import images, programs
from tests.cluster.kubernetes import Cluster
from tests.cluster.local import do_steps

if TYPE_CHECKING:
    from kfp import Client

NAMESPACE = "kubeflow"
SERVICE_ACCOUNT = "pipeline-runner"
BUCKET = "mlpipeline"


class Backend:
    """A backend that runs.

    Attributes:
        endpoint: its API, for ``kfp.Client(host=...)`` and ``refit submit --endpoint``.
        objects: its S3 store, where artifacts are: bucket ``mlpipeline``.
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
        found = self.cluster.get("service", service, NAMESPACE)
        return str(found["spec"]["clusterIP"])


def deploy(cluster: Cluster) -> Backend:
    """Build what is missing, start everything, and wait until it answers.

    Raises:
        CommandFailed: Something does not build or start; pods' last words are in the message.
        CannotRun: A Debian package or Python 3.11 cannot be had.
    """
    for image in images.backend_images():
        cluster.have(image)
    with timed("Kubeflow Pipelines is ready"):
        with linked_manifests() as folder:
            do_steps(cluster, ["install_kubeflow"], **sources(folder))
        backend = Backend(cluster)
        wait_for("Kubeflow Pipelines' API", partial(_answers, backend.endpoint), seconds=60)
    return backend


def sources(folder: Path) -> dict[str, str]:
    """This release, as the steps of ``kustomize/local`` are told of it."""
    return {"KFP_CLUSTER_SCOPED": "", "KFP_MANIFESTS": str(folder), "KFP_BACKEND": "2.0"}


@contextmanager
def linked_manifests() -> Iterator[Path]:
    """A folder with our kustomization, and the modules that it refers to."""
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) / "manifests"
        copytree(programs.HERE / "manifests", folder)
        for name, module in (("pipelines", programs.PIPELINES), ("argo", programs.ARGO)):
            (folder / name).symlink_to(programs.sources(name, module))
        yield folder


def _answers(endpoint: str) -> bool:
    try:
        with urlopen(f"{endpoint}/apis/v2beta1/healthz", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:  # its pod starts again while it waits for its database
        return False

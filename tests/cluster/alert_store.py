"""The alert store in PostgreSQL on a test cluster, and the review application."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import psycopg
import yaml

from tests.cluster.recommender import NAMESPACE, refit_manifests
from tests.machine.commands import timed, wait_for
from tests.machine.kubernetes import Cluster, Manifest
from tests.machine.pods import pod
from tests.machine.postgres import IMAGE, postgres_image

IMAGE_PATCH = {
    "target": {"kind": "StatefulSet", "name": "postgres"},
    "patch": yaml.safe_dump(
        [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": IMAGE}]
    ),
}
"""Kustomization patch: the image with the pinned digest cannot be loaded into the node."""
HOST = f"postgres.{NAMESPACE}"
RESOLVE = f"""
import socket
try:
    print(socket.gethostbyname("{HOST}"))
except socket.gaierror:
    pass
"""
STORE = f"postgresql+psycopg://refit@{HOST}/refit"
SECRET = {"name": "refit-alert-store", "key": "PGPASSWORD"}
PASSWORD = "only-inside-the-test-cluster"
TOKEN = "only-inside-the-test-cluster"
"""Of the review application."""
INSTALLED = (
    *("postgres", "refit-postgres", "review", "refit-review", "refit-config", "refit-reviewer"),
    "refit-monitoring",
)
"""Names of the objects to install; other tests own the other objects of the namespace."""


@dataclass(frozen=True)
class AlertStore:
    """A running alert store; clients need PGPASSWORD in their environment.

    Attributes:
        cluster: The cluster that it runs in.
    """

    cluster: Cluster

    def host_url(self) -> str:
        """The store's URL for this host; it changes with the store's pod."""
        return f"postgresql+psycopg://refit@{self._address()}/refit"

    def metrics(self) -> str:
        """The review page's metrics about the store."""
        address = self.cluster.get("service", "review", NAMESPACE)["spec"]["clusterIP"]
        with urlopen(f"http://{address}/metrics", timeout=20) as response:
            return str(response.read().decode())

    def pod(self, name: str, image: str, program: str, *arguments: str) -> Manifest:
        """A pod that runs a Python program with the store's URL and password, as steps do."""
        manifest = pod(name, NAMESPACE, image, ["python", "-c", program, STORE, *arguments])
        (container,) = manifest["spec"]["containers"]
        container["env"] = [{"name": SECRET["key"], "valueFrom": {"secretKeyRef": SECRET}}]
        return manifest

    @contextmanager
    def forwarded(self) -> Iterator[str]:
        """The store's URL through ``kubectl port-forward``, as a user reaches it."""
        kubectl = [self.cluster.services.kubectl, f"--kubeconfig={self.cluster.kubeconfig}"]
        command = [*kubectl, "port-forward", "service/postgres", ":5432", "-n", NAMESPACE]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as forwarding:
            try:
                assert forwarding.stdout
                line = forwarding.stdout.readline()  # Forwarding from 127.0.0.1:40123 -> 5432
                port = line.partition(" ->")[0].rpartition(":")[2]
                assert port, "kubectl forwards no port"
                yield f"postgresql+psycopg://refit@localhost:{port}/refit"
            finally:
                forwarding.terminate()

    def clear(self) -> None:
        """Delete all data."""
        with psycopg.connect(
            host=self._address(), user="refit", password=PASSWORD, autocommit=True
        ) as db:
            db.execute("DROP SCHEMA public CASCADE")
            db.execute("CREATE SCHEMA public")

    def stop(self) -> None:
        """Stop the server; its data is kept."""
        self.cluster.scale("statefulset/postgres", 0, NAMESPACE)
        self.cluster.wait("pod/postgres-0", "delete", NAMESPACE)

    def start(self) -> None:
        """Start the server again, and wait until it is ready."""
        self.cluster.scale("statefulset/postgres", 1, NAMESPACE)
        self.wait()

    def crash(self) -> None:
        """Kill the server's processes, and wait until it has restarted."""
        before = self._restarts()
        self.cluster.kubectl(
            *("exec", "postgres-0", "-n", NAMESPACE, "--", "sh", "-c", "kill -QUIT 1")
        )
        wait_for("a restart", lambda: self._restarts() > before, 60)
        self.wait()

    def wait(self) -> None:
        """Wait until the server is ready and pods find it.

        The cluster's DNS keeps the answer "no such name" for seconds, and the review application
        asks as soon as it starts.

        Raises:
            ServiceUnreachable: The timeout expired.
        """
        self.cluster.wait_for_rollout("statefulset/postgres", NAMESPACE)
        self.cluster.wait("pod/postgres-0", "condition=Ready", NAMESPACE)  # after a crash too
        self.cluster.wait_for_rollout("deployment/review", NAMESPACE)
        wait_for("the name of the alert store", self._is_resolved, 90)

    def _is_resolved(self) -> bool:
        """Whether the name leads pods to the server's present address."""
        found = self.cluster.kubectl(
            *("exec", "deployment/review", "-n", NAMESPACE, "--", "python", "-c", RESOLVE)
        )
        return found.split() == [self._address()]

    def _address(self) -> str:
        return str(self.cluster.get("pod", "postgres-0", NAMESPACE)["status"]["podIP"])

    def _restarts(self) -> int:
        (state,) = self.cluster.get("pod", "postgres-0", NAMESPACE)["status"]["containerStatuses"]
        return int(state["restartCount"])


def review_secret(namespace: str) -> Manifest:
    """The review application's token."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "refit-review", "namespace": namespace},
        "stringData": {"tokens": f"on-call tester {TOKEN}"},
    }


def install_alert_store(cluster: Cluster, folder: Path) -> AlertStore:
    """Install ``kustomize/components/postgres`` and the review page.

    Args:
        cluster: A cluster that has the main image.
        folder: An empty folder for the kustomization.

    Raises:
        ServiceUnreachable: One of them did not become ready.
    """
    with timed("the alert store is ready"):
        cluster.ensure_image(postgres_image())
        manifests = refit_manifests(cluster, folder, "postgres", patches=[IMAGE_PATCH])
        cluster.apply([one for one in manifests if one["kind"] == "Namespace"])
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": SECRET["name"], "namespace": NAMESPACE},
            "stringData": {SECRET["key"]: PASSWORD},
        }
        installed = [one for one in manifests if one["metadata"]["name"] in INSTALLED]
        cluster.apply([secret, review_secret(NAMESPACE), *installed])
        store = AlertStore(cluster)
        store.wait()
    return store

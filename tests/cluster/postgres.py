"""The alert store in PostgreSQL on a test cluster, and the review page that reads it."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import psycopg
import yaml

from tests.cluster.archives import Image, image_of_files
from tests.cluster.commands import timed, wait_for
from tests.cluster.kubernetes import Cluster, Manifest
from tests.cluster.libraries import shared_libraries
from tests.cluster.pods import pod
from tests.cluster.recommender import NAMESPACE, refit_manifests
from tests.postgres import LIBRARIES, NEWEST, RELEASES, find_package

IMAGE = f"docker.io/library/postgres:{NEWEST}-stand-in"
ENTRYPOINT = Path(__file__).with_suffix(".sh")
USERS = Path(__file__).with_suffix(".passwd")
"""initdb asks who it is."""
PROGRAMS = ("postgres", "initdb", "pg_isready")
TOOLS = ("sh", "mv", "rm")
PLACE = f"/usr/lib/postgresql/{NEWEST}"
OWN_IMAGE = {
    "target": {"kind": "StatefulSet", "name": "postgres"},
    "patch": yaml.safe_dump(
        [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": IMAGE}]
    ),
}
"""The kustomization's patch, since nobody could give a node what the pinned digest names."""
STORE = f"postgresql+psycopg://refit@postgres.{NAMESPACE}/refit"
SECRET = {"name": "refit-alert-store", "key": "PGPASSWORD"}
PASSWORD = "only-inside-the-test-cluster"
OURS = ("postgres", "refit-postgres", "review", "refit-reviewer", "refit-monitoring")
"""Names of what is installed; the namespace's other objects are other tests'."""


@dataclass(frozen=True)
class AlertStore:
    """A store that runs; this process needs PGPASSWORD as a pod does.

    Attributes:
        cluster: where it runs.
    """

    cluster: Cluster

    def url_here(self) -> str:
        """Its address for this machine, until its pod is another."""
        return f"postgresql+psycopg://refit@{self._address()}/refit"

    def metrics(self) -> str:
        """What the review page says of it."""
        address = self.cluster.get("service", "review", NAMESPACE)["spec"]["clusterIP"]
        with urlopen(f"http://{address}/metrics", timeout=20) as answer:
            return str(answer.read().decode())

    def pod(self, name: str, image: str, program: str, *arguments: str) -> Manifest:
        """A pod that runs a Python program with the way to it and the password, as steps have."""
        manifest = pod(name, NAMESPACE, image, ["python", "-c", program, STORE, *arguments])
        (container,) = manifest["spec"]["containers"]
        container["env"] = [{"name": SECRET["key"], "valueFrom": {"secretKeyRef": SECRET}}]
        return manifest

    @contextmanager
    def forwarded(self) -> Iterator[str]:
        """Its address for a person, through ``kubectl port-forward``."""
        kubectl = [self.cluster.services.kubectl, f"--kubeconfig={self.cluster.kubeconfig}"]
        command = [*kubectl, "port-forward", "service/postgres", ":5432", "-n", NAMESPACE]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as forwarding:
            try:
                assert forwarding.stdout
                said = forwarding.stdout.readline()  # Forwarding from 127.0.0.1:40123 -> 5432
                port = said.partition(" ->")[0].rpartition(":")[2]
                assert port, "nothing is forwarded"
                yield f"postgresql+psycopg://refit@localhost:{port}/refit"
            finally:
                forwarding.terminate()

    def empty(self) -> None:
        """Throw everything away."""
        with psycopg.connect(
            host=self._address(), user="refit", password=PASSWORD, autocommit=True
        ) as db:
            db.execute("DROP SCHEMA public CASCADE")
            db.execute("CREATE SCHEMA public")

    def take_away(self) -> None:
        """Stop it; what it holds stays."""
        self.cluster.scale("statefulset/postgres", 0, NAMESPACE)
        self.cluster.wait("pod/postgres-0", "delete", NAMESPACE)

    def bring_back(self) -> None:
        """Start it again, and wait until it answers."""
        self.cluster.scale("statefulset/postgres", 1, NAMESPACE)
        self.wait()

    def crash(self) -> None:
        """End its processes at once, as they are, and wait until it answers again."""
        before = self._restarts()
        self.cluster.kubectl(
            *("exec", "postgres-0", "-n", NAMESPACE, "--", "sh", "-c", "kill -QUIT 1")
        )
        wait_for("a restart", lambda: self._restarts() > before, 60)
        self.wait()

    def wait(self) -> None:
        """Wait until it answers.

        Raises:
            ServiceUnreachable: It does not.
        """
        self.cluster.wait_for_rollout("statefulset/postgres", NAMESPACE)
        self.cluster.wait("pod/postgres-0", "condition=Ready", NAMESPACE)  # after a crash too

    def _address(self) -> str:
        return str(self.cluster.get("pod", "postgres-0", NAMESPACE)["status"]["podIP"])

    def _restarts(self) -> int:
        (state,) = self.cluster.get("pod", "postgres-0", NAMESPACE)["status"]["containerStatuses"]
        return int(state["restartCount"])


def install_alert_store(cluster: Cluster, folder: Path) -> AlertStore:
    """Start a store as ``kustomize/components/postgres`` has it, and the review page.

    Args:
        cluster: has the main image.
        folder: an empty one, for the kustomization.

    Raises:
        ServiceUnreachable: One of them did not become ready.
    """
    with timed("the alert store is ready"):
        cluster.have(postgres_image())
        built = refit_manifests(cluster, folder, "postgres", patches=[OWN_IMAGE])
        cluster.apply([one for one in built if one["kind"] == "Namespace"])
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": SECRET["name"], "namespace": NAMESPACE},
            "stringData": {SECRET["key"]: PASSWORD},
        }
        cluster.apply([secret, *(one for one in built if one["metadata"]["name"] in OURS)])
        store = AlertStore(cluster)
        store.wait()
        cluster.wait_for_rollout("deployment/review", NAMESPACE)
    return store


def postgres_image() -> Image:
    """An image of PostgreSQL's own programs that starts as the official one does."""
    release = find_package() / RELEASES[NEWEST]
    tools = [Path(f"/bin/{name}") for name in TOOLS]
    files = {
        **{f"{PLACE}/bin/{name}": release / "bin" / name for name in PROGRAMS},
        **{f"{PLACE}/{part}": release / part for part in ("lib/postgresql", "share")},
        # Where the programs look for them, three folders up.
        f"/usr/lib/{LIBRARIES}": release.parent.parent / LIBRARIES,
        **{str(tool): tool.resolve() for tool in tools},
        **shared_libraries([release / "bin" / "postgres", *tools]),
        "/usr/local/bin/docker-entrypoint.sh": ENTRYPOINT,
        "/etc/passwd": USERS,
    }
    return image_of_files(
        IMAGE,
        files,
        entrypoint=["docker-entrypoint.sh"],
        environment={"PATH": f"/usr/local/bin:/bin:{PLACE}/bin"},
        user="999:999",
    )

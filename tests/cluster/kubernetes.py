"""A real Kubernetes of one node, raised from its own programs, and how tests talk to it."""

import json
import os
import signal
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from refit.errors import ServiceUnreachable
from tests.cluster import binaries
from tests.cluster.archives import Image, image_of_files
from tests.cluster.commands import CommandFailed, run, tell, timed, wait_for
from tests.cluster.machine import prepare_machine
from tests.cluster.node import Node
from tests.cluster.services import NODE_NAME, PROGRAMS, Services
from tests.cluster.settings import MANIFESTS, NodeSettings
from tests.cluster.unpacked import hand_out, mark_of

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

FIELD_MANAGER = "tests"
VOLUMES = 8
ONE_LOOK = "5s"
"""How long kubectl may look; it gives up at once where there is nothing to look at yet."""
CONTROL_PLANE = PROGRAMS[:4]
ON_EVERY_NODE = PROGRAMS[4:]

type Manifest = Mapping[str, Any]


class Cluster:
    """A cluster that runs.

    Attributes:
        node: its one machine: runs programs on it, and holds their logs.
        services: Kubernetes' own programs, for tests that stop and start them.
        kubeconfig: the administrator's way in.
    """

    def __init__(self, settings: NodeSettings) -> None:
        self.settings = settings
        self.node = Node(settings)
        self.services = Services(self.node, binaries.build(binaries.kube()))
        self.kubeconfig = self.services.kubeconfig

    def kubectl(self, *arguments: str | Path, text: str | None = None) -> str:
        """Run kubectl as the administrator and return its output.

        Raises:
            CommandFailed: It ended with an error.
        """
        command = [self.services.kubectl, f"--kubeconfig={self.kubeconfig}", *arguments]
        return run(command, text=text)

    def apply(self, manifests: str | Path | Iterable[Manifest], *arguments: str) -> str:
        """Apply manifests on the server's side; unknown or repeated fields are errors.

        Args:
            manifests: YAML text, a file or folder (one with a kustomization is built), or objects.
            arguments: more of kubectl's, such as ``-n NAMESPACE``.

        Raises:
            CommandFailed: The API server refused one.
        """
        command = ["apply", "--server-side", "--force-conflicts", "--validate=strict"]
        command += [f"--field-manager={FIELD_MANAGER}", *arguments]
        if isinstance(manifests, Path):
            kustomized = (manifests / "kustomization.yaml").exists()
            return self.kubectl(*command, "-k" if kustomized else "-f", manifests)
        text = manifests if isinstance(manifests, str) else as_list(manifests)
        return self.kubectl(*command, "-f", "-", text=text)

    def get(self, kind: str, name: str = "", namespace: str = "default") -> dict[str, Any]:
        """One object, or a list of a kind's objects.

        Raises:
            CommandFailed: There is none.
        """
        found = self.kubectl("get", kind, *filter(None, [name]), "-n", namespace, "-o", "json")
        return dict(json.loads(found))

    def wait(
        self, what: str, condition: str, namespace: str = "default", seconds: float = 120
    ) -> None:
        """Wait for a condition of an object, which need not be there yet.

        Args:
            what: kind/name, or a kind and a selector as in ``pods -l app=s3``.
            condition: as kubectl knows it: ``condition=Ready``, ``delete``, ``jsonpath=...``.
            namespace: the object's.
            seconds: how long.

        Raises:
            ServiceUnreachable: It did not come about; what pods and events say is added.
        """
        self._wait(namespace, seconds, "wait", *what.split(), f"--for={condition}")

    def wait_for_rollout(self, what: str, namespace: str, seconds: float = 120) -> None:
        """Wait until a Deployment's or StatefulSet's pods are all there.

        Raises:
            ServiceUnreachable: They did not come; what pods and events say is added.
        """
        self._wait(namespace, seconds, "rollout", "status", what)

    def scale(self, what: str, replicas: int, namespace: str) -> None:
        """Have so many pods of a Deployment or StatefulSet; what it keeps on disks stays."""
        self.kubectl("scale", what, f"--replicas={replicas}", "-n", namespace)

    def have(self, image: Image) -> str:
        """Give the node an image, unless it has it; returns its name."""
        mark = mark_of(self.services.runtime_folder, image.name)
        if not mark.exists() or mark.read_text() != image.key:
            with TemporaryDirectory(dir=self.node.folder / "var") as folder:
                archive = Path(folder) / "image.tar"
                image.write(archive)
                with timed(f"{image.name} is loaded ({archive.stat().st_size / 1e6:.0f} MB)"):
                    self.node.run(*self._runtime("images", "import", archive))
            mark.write_text(image.key)
        return image.name

    def images(self) -> list[str]:
        """Names of the node's images."""
        return self.node.run(*self._runtime("images", "ls", "-q")).split()

    def client(self) -> "ApiClient":
        """The Python client, as the administrator."""
        from kubernetes import config

        return config.new_client_from_config(str(self.kubeconfig))

    def start(
        self, name: str, command: Sequence[str | Path], environment: Mapping[str, str] | None = None
    ) -> None:
        """Start a program on the node, beside the pods; it ends with the cluster.

        It reaches cluster addresses, and pods reach it at ``settings.node_ip``.
        """
        self.node.start(name, command, environment)

    def restart(self, name: str) -> None:
        """Kill one of Kubernetes' own programs and start it again, as after a crash."""
        self.node.stop(name, signal.SIGKILL)  # asked politely, the API server takes a minute
        self.services.start(name)

    def what_is_wrong(self, namespace: str) -> str:
        """What pods and events of a namespace say, for a person to read."""
        asked = (
            ("get", "pods", "-o", "wide"),
            ("get", "events", "--sort-by=.lastTimestamp", "--no-headers"),
        )
        said = [self.kubectl(*ask, "-n", namespace).splitlines()[-25:] for ask in asked]
        pods = [pod for pod in self.get("pods", namespace=namespace)["items"] if not _is_fine(pod)]
        for pod in pods[:3]:
            name = pod["metadata"]["name"]
            asked_for = ("logs", name, "-n", namespace, "--all-containers", "--prefix")
            lines = _or_error(self, asked_for).splitlines()
            # Programs that do not like how they were started say so first, and then how to.
            said.append([f"--- logs of {name}", *lines[:5], *lines[5:][-15:]])
        return "\n".join(line for part in said for line in part)

    def save_logs(self, folder: Path) -> None:
        """Keep the logs of the node's programs, and all pods and events, for a person to read."""
        folder.mkdir(parents=True, exist_ok=True)
        self.node.save_logs(folder)
        for kind in ("pods", "events"):
            said = _or_error(self, ("get", kind, "--all-namespaces", "-o", "wide"))
            (folder / f"{kind}.txt").write_text(said)

    def end(self) -> None:
        """End everything and leave nothing."""
        self.node.end()

    def _runtime(self, *arguments: str | Path) -> list[str | Path]:
        return ["ctr", "-a", self.services.runtime_socket, "-n", "k8s.io", *arguments]

    def _wait(self, namespace: str, seconds: float, *arguments: str) -> None:
        def look() -> bool:
            self.kubectl(*arguments, f"--timeout={ONE_LOOK}", "-n", namespace)
            return True  # whatever it says: of what was gone before it looked it says nothing

        try:
            wait_for(" ".join(arguments), look, seconds)
        except ServiceUnreachable as error:
            raise ServiceUnreachable(f"{error}\n{self.what_is_wrong(namespace)}") from None


def raise_cluster(settings: NodeSettings | None = None, owner: int | None = -1) -> Cluster:
    """Raise a cluster and wait until its node, DNS and volumes can be used.

    Args:
        settings: which one; the default is number 0.
        owner: the process with which the cluster ends: -1 for this one, None for none, in which
            case it stands until ``end`` or ``python -m tests.cluster down``.

    Raises:
        CannotRun: This machine cannot hold one.
        UsageError: One of that number stands already.
        ServiceUnreachable: A part did not become ready.
    """
    prepare_machine()
    pause = binaries.build(binaries.pause()) / "pause"
    images = node_images()
    cluster = Cluster(settings or NodeSettings())
    with timed(f"{cluster.settings.name} is ready"):
        cluster.node.raise_up(pause, os.getpid() if owner == -1 else owner)
        try:
            _start_everything(cluster, images)
        except BaseException:
            for name in ("containerd", *PROGRAMS):
                tell(f"last words of {name}:\n{cluster.node.last_words(name)}")
            cluster.end()
            raise
    return cluster


def attach(settings: NodeSettings | None = None) -> Cluster:
    """The cluster that stands already.

    Raises:
        ServiceUnreachable: There is none.
    """
    cluster = Cluster(settings or NodeSettings())
    _ = cluster.node.first
    return cluster


def as_list(manifests: Iterable[Manifest]) -> str:
    """Objects as one JSON text that kubectl reads."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifests)})


def node_images() -> list[Image]:
    """What every node runs: the program that holds a pod's namespaces open, and CoreDNS."""
    programs = {group.folder.name: group for group in (binaries.pause(), binaries.coredns())}
    return [
        image_of_files(
            f"localhost/{name}:test",
            {f"/{name}": binaries.build(group) / name},
            entrypoint=[f"/{name}"],
        )
        for name, group in programs.items()
    ]


def _start_everything(cluster: Cluster, images: Iterable[Image]) -> None:
    services, seconds = cluster.services, cluster.settings.ready_seconds
    services.configure()
    hand_out(services.runtime_folder)
    for name in ("containerd", "etcd", "kube-apiserver"):
        services.start(name)
    services.wait_for_runtime()
    for image in images:
        cluster.have(image)
    wait_for("the API server", lambda: cluster.kubectl("get", "--raw=/readyz"), seconds)
    for name in (*CONTROL_PLANE[2:], *ON_EVERY_NODE):
        services.start(name)
    dns = (MANIFESTS / "dns.yaml").read_text().replace("DNS_IP", cluster.settings.dns_ip)
    wait_for("DNS and volumes", lambda: cluster.apply(dns), seconds)
    cluster.apply(_volumes(cluster.node.folder / "var" / "volumes"))
    for thing in (f"node/{NODE_NAME}", "serviceaccount/default"):
        wait_for(thing, partial(cluster.kubectl, "get", thing), seconds)
    cluster.wait(f"node/{NODE_NAME}", "condition=Ready", seconds=seconds)
    cluster.wait_for_rollout("deployment/coredns", "kube-system", seconds)


def _volumes(folder: Path) -> list[Manifest]:
    """A pool of volumes that any user may write, and the class that claims get them from."""
    volumes: list[Manifest] = [
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {
                "name": "standard",
                "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
            },
            "provisioner": "kubernetes.io/no-provisioner",
        }
    ]
    for number in range(1, VOLUMES + 1):
        place = folder / str(number)
        place.mkdir(parents=True)
        place.chmod(0o1777)
        volumes.append(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": f"disk-{number}"},
                "spec": {
                    "capacity": {"storage": "10Gi"},
                    "accessModes": ["ReadWriteOnce", "ReadWriteMany"],
                    "storageClassName": "standard",
                    "hostPath": {"path": str(place)},
                },
            }
        )
    return volumes


def _is_fine(pod: Manifest) -> bool:
    states = pod["status"].get("containerStatuses", [])
    return pod["status"]["phase"] == "Succeeded" or (
        bool(states) and all(state["ready"] for state in states)
    )


def _or_error(cluster: Cluster, arguments: Sequence[str]) -> str:
    try:
        return cluster.kubectl(*arguments)
    except CommandFailed as error:
        return str(error)

"""A real Kubernetes cluster of one node, started from its own programs, and its interface."""

import json
import os
import signal
import socket
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from refit.errors import ServiceUnreachable
from tests.machine import binaries
from tests.machine.archives import Image, image_of_files
from tests.machine.commands import CommandError, report, run, timed, wait_for
from tests.machine.host import prepare_host
from tests.machine.node import Node
from tests.machine.services import NODE_NAME, PROGRAMS, Services
from tests.machine.settings import MANIFESTS, NodeSettings
from tests.machine.unpacked import key_file, link_images

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

FIELD_MANAGER = "tests"
VOLUMES = 8
KUBECTL_TIMEOUT = "5s"
"""Of one ``kubectl wait``, which fails at once while the object does not exist."""
CONTROL_PLANE = PROGRAMS[:4]
ON_EVERY_NODE = PROGRAMS[4:]

type Manifest = Mapping[str, Any]


class Cluster:
    """A running cluster.

    Attributes:
        node: The cluster's only node; runs programs and keeps their logs.
        services: Kubernetes' own programs, for tests that stop and start them.
        kubeconfig: The administrator's kubeconfig.
    """

    def __init__(self, settings: NodeSettings) -> None:
        self.settings = settings
        self.node = Node(settings)
        self.services = Services(self.node, binaries.build(binaries.kube()))
        self.kubeconfig = self.services.kubeconfig

    def kubectl(self, *arguments: str | Path, text: str | None = None) -> str:
        """Run kubectl as the administrator and return its output.

        Raises:
            CommandError: kubectl exited with an error.
        """
        command = [self.services.kubectl, f"--kubeconfig={self.kubeconfig}", *arguments]
        return run(command, text=text)

    def apply(self, manifests: str | Path | Iterable[Manifest], *arguments: str) -> str:
        """Apply manifests server-side; unknown and duplicate fields are errors.

        Args:
            manifests: YAML text, a file, a folder (built if it has a kustomization), or objects.
            arguments: Further arguments of kubectl, such as ``-n NAMESPACE``.

        Raises:
            CommandError: The API server rejected a manifest.
        """
        command = ["apply", "--server-side", "--force-conflicts", "--validate=strict"]
        command += [f"--field-manager={FIELD_MANAGER}", *arguments]
        if isinstance(manifests, Path):
            kustomized = (manifests / "kustomization.yaml").exists()
            return self.kubectl(*command, "-k" if kustomized else "-f", manifests)
        text = manifests if isinstance(manifests, str) else to_list(manifests)
        return self.kubectl(*command, "-f", "-", text=text)

    def get(self, kind: str, name: str = "", namespace: str = "default") -> dict[str, Any]:
        """Return one object, or the list of a kind's objects.

        Raises:
            CommandError: The object does not exist.
        """
        found = self.kubectl("get", kind, *filter(None, [name]), "-n", namespace, "-o", "json")
        return dict(json.loads(found))

    def wait(
        self, what: str, condition: str, namespace: str = "default", seconds: float = 120
    ) -> None:
        """Wait for a condition of an object, which need not exist yet.

        Args:
            what: kind/name, or a kind and a selector as in ``pods -l app=s3``.
            condition: As in ``kubectl wait --for``: ``condition=Ready``, ``delete``,
                ``jsonpath=...``.
            namespace: The object's namespace.
            seconds: Timeout.

        Raises:
            ServiceUnreachable: The timeout expired; the message describes pods and events.
        """
        self._wait(namespace, seconds, "wait", *what.split(), f"--for={condition}")

    def wait_for_rollout(self, what: str, namespace: str, seconds: float = 120) -> None:
        """Wait until all pods of a Deployment or StatefulSet are up to date and available.

        Raises:
            ServiceUnreachable: The timeout expired; the message describes pods and events.
        """
        self._wait(namespace, seconds, "rollout", "status", what)

    def scale(self, what: str, replicas: int, namespace: str) -> None:
        """Set the number of replicas of a Deployment or StatefulSet; its volumes are kept."""
        self.kubectl("scale", what, f"--replicas={replicas}", "-n", namespace)

    def ensure_image(self, image: Image) -> str:
        """Load an image into the node unless it is there; return its name."""
        key = key_file(self.services.runtime_folder, image.name)
        if not key.exists() or key.read_text() != image.key:
            with TemporaryDirectory(dir=self.node.folder / "var") as folder:
                archive = Path(folder) / "image.tar"
                image.write(archive)
                with timed(f"loaded {image.name} ({archive.stat().st_size / 1e6:.0f} MB)"):
                    self.node.run(*self._runtime("images", "import", archive))
            key.write_text(image.key)
        return image.name

    def client(self) -> "ApiClient":
        """The Python client, with the administrator's credentials."""
        from kubernetes import config

        return config.new_client_from_config(str(self.kubeconfig))

    def restart(self, name: str) -> None:
        """Kill one of Kubernetes' own programs and start it again, as after a crash."""
        self.node.stop(name, signal.SIGKILL)  # after SIGTERM the API server takes a minute
        self.services.start(name)

    def describe_failures(self, namespace: str) -> str:
        """Pods, events and logs of unready pods in a namespace, for an error message."""
        commands = (
            ("get", "pods", "-o", "wide"),
            ("get", "events", "--sort-by=.lastTimestamp", "--no-headers"),
        )
        parts = [self.kubectl(*each, "-n", namespace).splitlines()[-25:] for each in commands]
        pods = [pod for pod in self.get("pods", namespace=namespace)["items"] if not _is_ok(pod)]
        for pod in pods[:3]:
            name = pod["metadata"]["name"]
            logs = ("logs", name, "-n", namespace, "--all-containers", "--prefix")
            lines = _output_or_error(self, logs).splitlines()
            # A program that rejects its arguments reports that first, followed by its usage.
            parts.append([f"--- logs of {name}", *lines[:5], *lines[5:][-15:]])
        return "\n".join(line for part in parts for line in part)

    def save_logs(self, folder: Path) -> None:
        """Save the logs of the node's programs, and the lists of all pods and events."""
        folder.mkdir(parents=True, exist_ok=True)
        self.node.save_logs(folder)
        for kind in ("pods", "events"):
            listing = _output_or_error(self, ("get", kind, "--all-namespaces", "-o", "wide"))
            (folder / f"{kind}.txt").write_text(listing)

    def delete(self) -> None:
        """Stop all processes and remove everything that belongs to the cluster."""
        self.node.delete()

    def _runtime(self, *arguments: str | Path) -> list[str | Path]:
        return ["ctr", "-a", self.services.runtime_socket, "-n", "k8s.io", *arguments]

    def _wait(self, namespace: str, seconds: float, *arguments: str) -> None:
        def succeeds() -> bool:
            self.kubectl(*arguments, f"--timeout={KUBECTL_TIMEOUT}", "-n", namespace)
            return True  # the output may be empty, for an object that was deleted before

        try:
            wait_for(" ".join(arguments), succeeds, seconds)
        except ServiceUnreachable as error:
            raise ServiceUnreachable(f"{error}\n{self.describe_failures(namespace)}") from None


def start_cluster(settings: NodeSettings | None = None, owner: int | None = -1) -> Cluster:
    """Start a cluster and wait until its node, DNS and volumes are ready.

    Args:
        settings: The cluster's settings; the default is number 0.
        owner: Id of the process with which the cluster ends: -1 for this process, None for no
            process; then it runs until ``delete`` or ``python -m tests.machine down``.

    Raises:
        UnsupportedHostError: This host cannot run a cluster.
        UsageError: A cluster with this number is running.
        ServiceUnreachable: A component did not become ready.
    """
    prepare_host()
    pause = binaries.build(binaries.pause()) / "pause"
    images = node_images()
    cluster = Cluster(settings or NodeSettings())
    with timed(f"{cluster.settings.name} is ready"):
        cluster.node.create(pause, os.getpid() if owner == -1 else owner)
        try:
            _start_everything(cluster, images)
        except BaseException:
            for name in ("containerd", *PROGRAMS):
                report(f"end of the log of {name}:\n{cluster.node.log_tail(name)}")
            cluster.delete()
            raise
    return cluster


def attach(settings: NodeSettings | None = None) -> Cluster:
    """Return a cluster that is already running.

    Raises:
        ServiceUnreachable: It is not running.
    """
    cluster = Cluster(settings or NodeSettings())
    _ = cluster.node.init_pid
    return cluster


def to_list(manifests: Iterable[Manifest]) -> str:
    """Serialise objects as one Kubernetes List, in JSON."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifests)})


def node_images() -> list[Image]:
    """The images that every node needs: pause, which holds a pod's namespaces open, and CoreDNS."""
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
    link_images(services.runtime_folder)
    for name in ("containerd", "etcd", "kube-apiserver"):
        services.start(name)
    services.wait_for_runtime()
    for image in images:
        cluster.ensure_image(image)
    wait_for("the API server", lambda: cluster.kubectl("get", "--raw=/readyz"), seconds)
    for name in (*CONTROL_PLANE[2:], *ON_EVERY_NODE):
        services.start(name)
    dns = (MANIFESTS / "dns.yaml").read_text().replace("DNS_IP", cluster.settings.dns_ip)
    wait_for("DNS and volumes", lambda: cluster.apply(dns), seconds)
    cluster.apply(_volumes(cluster.node.folder / "var" / "volumes"))
    for name in (f"node/{NODE_NAME}", "serviceaccount/default"):
        wait_for(name, partial(cluster.kubectl, "get", name), seconds)
    cluster.wait(f"node/{NODE_NAME}", "condition=Ready", seconds=seconds)
    cluster.wait_for_rollout("deployment/coredns", "kube-system", seconds)
    # kube-proxy learns of a ready pod later than the Deployment's status does.
    wait_for(
        "DNS at its Service's address", partial(_accepts, cluster.settings.dns_ip, 53), seconds
    )


def _accepts(address: str, port: int) -> bool:
    """Whether a TCP connection from this host, which has a route to the Services, succeeds."""
    try:
        with socket.create_connection((address, port), timeout=1):
            return True
    except OSError:
        return False


def _volumes(folder: Path) -> list[Manifest]:
    """A storage class, and a pool of volumes of it that any user may write to."""
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
        volume = folder / str(number)
        volume.mkdir(parents=True)
        volume.chmod(0o1777)
        volumes.append(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": f"disk-{number}"},
                "spec": {
                    "capacity": {"storage": "10Gi"},
                    "accessModes": ["ReadWriteOnce", "ReadWriteMany"],
                    "storageClassName": "standard",
                    "hostPath": {"path": str(volume)},
                },
            }
        )
    return volumes


def _is_ok(pod: Manifest) -> bool:
    states = pod["status"].get("containerStatuses", [])
    return pod["status"]["phase"] == "Succeeded" or (
        bool(states) and all(state["ready"] for state in states)
    )


def _output_or_error(cluster: Cluster, arguments: Sequence[str]) -> str:
    try:
        return cluster.kubectl(*arguments)
    except CommandError as error:
        return str(error)

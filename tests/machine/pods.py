"""Small pods for tests."""

from collections.abc import Sequence
from typing import Any

from tests.machine.commands import CommandError, wait_for
from tests.machine.kubernetes import Cluster, Manifest

RESTRICTED = {
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "runAsGroup": 1000,
    "seccompProfile": {"type": "RuntimeDefault"},
}
LOCKED_DOWN = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def namespace(name: str, **labels: str) -> Manifest:
    """A namespace that enforces the restricted Pod Security Standard."""
    enforced = {"pod-security.kubernetes.io/enforce": "restricted", **labels}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": enforced}}


def container(name: str, image: str, command: Sequence[str]) -> dict[str, Any]:
    """A container that the restricted Pod Security Standard allows."""
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": "Never",
        "command": list(command),
        "securityContext": LOCKED_DOWN,
    }


def pod(name: str, space: str, image: str, command: Sequence[str]) -> dict[str, Any]:
    """A pod with one container, which is not restarted."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": space},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": RESTRICTED,
            "containers": [container(name, image, command)],
        },
    }


def run_pod(cluster: Cluster, manifest: Manifest, seconds: float = 120) -> str:
    """Run a pod until it succeeds, delete it and return its log.

    Raises:
        CommandError: The pod failed; the message contains its log and events.
        ServiceUnreachable: The timeout expired.
    """
    name, space = manifest["metadata"]["name"], manifest["metadata"]["namespace"]
    cluster.apply([manifest])
    phase = wait_for(f"the end of pod {name}", lambda: _final_phase(cluster, name, space), seconds)
    if phase == "Failed":
        raise CommandError(f"pod {name} failed:\n{cluster.describe_failures(space)}")
    log = cluster.kubectl("logs", name, "-n", space)
    cluster.kubectl("delete", "pod", name, "-n", space, "--now")
    return log


def _final_phase(cluster: Cluster, name: str, space: str) -> str:
    phase = cluster.get("pod", name, space)["status"]["phase"]
    return phase if phase in ("Succeeded", "Failed") else ""

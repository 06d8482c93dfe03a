import pytest

from refit.errors import ServiceUnreachable
from tests.machine.commands import CommandError, wait_for
from tests.machine.images import Images
from tests.machine.kubernetes import Cluster
from tests.machine.pods import namespace, pod, run_pod
from tests.machine.services import NODE_NAME

pytestmark = pytest.mark.cluster
SPACE = "plain-tests"
RESOLVE = """
import socket
for name in ("kubernetes.default.svc", "kube-dns.kube-system.svc.cluster.local"):
    print(socket.gethostbyname(name))
"""
DESCRIBE_USER = """
import os
print(os.getuid(), os.getgid(), os.access("/", os.W_OK))
"""
RESOLVE_OUTSIDE = """
import socket
try:
    socket.gethostbyname("pypi.org")
except OSError:
    print("no such name")
"""


@pytest.fixture(scope="module", autouse=True)
def space(cluster: Cluster) -> None:
    cluster.apply([namespace(SPACE)])


def test_the_node_is_ready(cluster: Cluster) -> None:
    conditions = cluster.get("node", NODE_NAME)["status"]["conditions"]
    assert {one["type"]: one["status"] for one in conditions}["Ready"] == "True"


def test_the_version_is_the_one_in_go_mod(cluster: Cluster) -> None:
    version = cluster.get("node", NODE_NAME)["status"]["nodeInfo"]["kubeletVersion"]
    assert version.startswith("v1.34.")


def test_names_of_services_resolve_in_pods(cluster: Cluster, images: Images) -> None:
    output = run_pod(cluster, pod("resolve", SPACE, images.base(), ["python3", "-c", RESOLVE]))
    assert output.split() == [cluster.settings.api_ip, cluster.settings.dns_ip]


def test_names_outside_of_the_cluster_do_not_resolve(cluster: Cluster, images: Images) -> None:
    manifest = pod("resolve-outside", SPACE, images.base(), ["python3", "-c", RESOLVE_OUTSIDE])
    assert run_pod(cluster, manifest).strip() == "no such name"


def test_a_restricted_pod_runs_without_root(cluster: Cluster, images: Images) -> None:
    manifest = pod("describe-user", SPACE, images.base(), ["python3", "-c", DESCRIBE_USER])
    assert run_pod(cluster, manifest).split() == ["1000", "1000", "False"]


def test_a_pod_that_requests_root_is_rejected(cluster: Cluster) -> None:
    manifest = pod("root", SPACE, "localhost/none:test", ["true"])
    manifest["spec"]["securityContext"] = {"runAsUser": 0}
    with pytest.raises(CommandError, match="violates PodSecurity"):
        cluster.apply([manifest])


def test_an_unknown_field_is_rejected(cluster: Cluster) -> None:
    typo = pod("typo", SPACE, "localhost/none:test", ["true"])
    typo["spec"]["restartPolcy"] = "Never"
    with pytest.raises(CommandError, match="restartPolcy"):
        cluster.apply([typo])


def test_waiting_for_the_deletion_of_a_missing_object_returns_at_once(cluster: Cluster) -> None:
    cluster.wait("pods -l app=missing", "delete", SPACE, seconds=0)


def test_a_timeout_names_what_was_waited_for(cluster: Cluster) -> None:
    with pytest.raises(ServiceUnreachable, match="app=missing"):
        cluster.wait("pods -l app=missing", "condition=Ready", SPACE, seconds=0)


def test_the_api_server_keeps_its_data_when_it_is_killed(cluster: Cluster) -> None:
    cluster.apply([namespace("kept")])
    cluster.restart("kube-apiserver")
    wait_for("the API server", lambda: cluster.kubectl("get", "--raw=/readyz"), 60)
    assert cluster.get("namespace", "kept")["status"]["phase"] == "Active"

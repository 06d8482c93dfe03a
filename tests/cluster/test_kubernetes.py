import pytest

from refit.errors import ServiceUnreachable
from tests.cluster.commands import CommandFailed, wait_for
from tests.cluster.images import Images
from tests.cluster.kubernetes import Cluster
from tests.cluster.pods import namespace, pod, run_pod
from tests.cluster.services import NODE_NAME

pytestmark = pytest.mark.cluster
SPACE = "plain-tests"
RESOLVE = """
import socket
for name in ("kubernetes.default.svc", "kube-dns.kube-system.svc.cluster.local"):
    print(socket.gethostbyname(name))
"""
LOOK_AROUND = """
import os
print(os.getuid(), os.getgid(), os.access("/", os.W_OK))
"""
REACH_OUT = """
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


def test_it_is_the_version_that_go_mod_requires(cluster: Cluster) -> None:
    version = cluster.get("node", NODE_NAME)["status"]["nodeInfo"]["kubeletVersion"]
    assert version.startswith("v1.34.")


def test_names_of_services_resolve_in_pods(cluster: Cluster, images: Images) -> None:
    said = run_pod(cluster, pod("resolve", SPACE, images.base(), ["python3", "-c", RESOLVE]))
    assert said.split() == [cluster.settings.api_ip, cluster.settings.dns_ip]


def test_names_outside_of_the_cluster_do_not(cluster: Cluster, images: Images) -> None:
    said = run_pod(cluster, pod("reach-out", SPACE, images.base(), ["python3", "-c", REACH_OUT]))
    assert said.strip() == "no such name"


def test_a_restricted_pod_runs_without_root(cluster: Cluster, images: Images) -> None:
    said = run_pod(cluster, pod("look", SPACE, images.base(), ["python3", "-c", LOOK_AROUND]))
    assert said.split() == ["1000", "1000", "False"]


def test_a_pod_that_asks_for_more_is_refused(cluster: Cluster) -> None:
    asks = pod("root", SPACE, "localhost/none:test", ["true"])
    asks["spec"]["securityContext"] = {"runAsUser": 0}
    with pytest.raises(CommandFailed, match="violates PodSecurity"):
        cluster.apply([asks])


def test_an_unknown_field_is_refused(cluster: Cluster) -> None:
    typo = pod("typo", SPACE, "localhost/none:test", ["true"])
    typo["spec"]["restartPolcy"] = "Never"
    with pytest.raises(CommandFailed, match="restartPolcy"):
        cluster.apply([typo])


def test_what_is_gone_already_is_not_waited_for(cluster: Cluster) -> None:
    cluster.wait("pods -l app=nobody", "delete", SPACE, seconds=0)


def test_what_never_comes_is_told(cluster: Cluster) -> None:
    with pytest.raises(ServiceUnreachable, match="app=nobody"):
        cluster.wait("pods -l app=nobody", "condition=Ready", SPACE, seconds=0)


def test_the_api_server_comes_back_with_what_it_held(cluster: Cluster) -> None:
    cluster.apply([namespace("kept")])
    cluster.restart("kube-apiserver")
    wait_for("the API server", lambda: cluster.kubectl("get", "--raw=/readyz"), 60)
    assert cluster.get("namespace", "kept")["status"]["phase"] == "Active"

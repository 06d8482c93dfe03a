"""Refit's images run without root and with a read-only file system except /tmp."""

from urllib.request import urlopen

import pytest
import yaml

from tests.cluster.alert_store import review_secret
from tests.machine.commands import wait_for
from tests.machine.images import Images
from tests.machine.kubernetes import Cluster, Manifest
from tests.machine.pods import namespace, pod, run_pod
from tests.machine.settings import ROOT

pytestmark = pytest.mark.cluster

SPACE = "images-tests"
CHECK_READ_ONLY = """
for folder in / /refit /refit/.venv /usr /var /etc /var/tmp; do
    touch $folder/new 2>/dev/null && echo wrote in $folder
done
for program in gcc cc make pip uv apt-get; do
    command -v $program >/dev/null && echo has $program
done
id -u; id -g
"""
MAIN = f"""{CHECK_READ_ONLY} refit --help >/dev/null &&
python -c 'import tensorflow, kfp, evidently'"""
SERVING = f"""{CHECK_READ_ONLY} python -c 'import serving.recommender, serving.doors.seldon' &&
seldon-core-microservice --help >/dev/null"""

SERVING_PLAIN = f"""{CHECK_READ_ONLY} python -c 'import serving.doors.worker' &&
python -m serving.doors --help >/dev/null && ! python -c 'import seldon_core' 2>/dev/null"""


@pytest.fixture(scope="module", autouse=True)
def space(cluster: Cluster) -> None:
    cluster.apply([namespace(SPACE)])


@pytest.mark.parametrize(
    ("name", "script"),
    [("main", MAIN), ("serving", SERVING), ("serving-plain", SERVING_PLAIN)],
)
def test_an_image_works_without_root_and_read_only(
    cluster: Cluster, images: Images, name: str, script: str
) -> None:
    image = getattr(images, name.replace("-", "_"))()
    manifest = pod(name, SPACE, image, ["sh", "-ec", f"{script}\necho done"])
    lines = run_pod(cluster, with_tmp(manifest), seconds=300).splitlines()
    findings = {line for line in lines if line.startswith(("wrote ", "has "))}
    # These are part of the base image; without root they cannot change anything.
    assert findings <= {"has apt-get", "has pip"}
    assert "1000" in lines
    assert lines[-1] == "done"


def test_the_review_page_runs_in_the_restricted_namespace(cluster: Cluster, images: Images) -> None:
    """The Deployment of the overlay, before the monitor has written anything."""
    images.main()
    golden = yaml.safe_load_all((ROOT / "tests/kustomize/golden/kind.yaml").read_text("utf-8"))
    names = {("Deployment", "review"), ("Service", "review"), ("ServiceAccount", "refit-reviewer")}
    names |= {("PersistentVolumeClaim", "refit-monitoring")}
    names |= {("ConfigMap", "refit-review"), ("ConfigMap", "refit-config")}
    objects = {
        (one["kind"], one["metadata"]["name"]): one
        for one in golden
        if (one["kind"], one["metadata"]["name"]) in names
    }
    assert len(objects) == len(names)
    for one in objects.values():
        one["metadata"]["namespace"] = SPACE
    cluster.apply([review_secret(SPACE), *objects.values()])
    cluster.wait_for_rollout("deployment/review", SPACE, 120)
    address = cluster.get("service", "review", SPACE)["spec"]["clusterIP"]
    metrics = wait_for("the metrics", lambda: fetch(f"http://{address}/metrics"), 20)
    assert "refit_monitor_store_readable 0.0" in metrics


def fetch(url: str) -> str:
    try:
        with urlopen(url, timeout=5) as response:
            return str(response.read().decode())
    except OSError:
        return ""


def with_tmp(manifest: Manifest) -> Manifest:
    spec = manifest["spec"]
    spec["volumes"] = [{"name": "tmp", "emptyDir": {}}]
    spec["containers"][0]["volumeMounts"] = [{"name": "tmp", "mountPath": "/tmp"}]
    return manifest

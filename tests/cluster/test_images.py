"""Refit's images where they run: without root, with nothing to write on but /tmp."""

from urllib.request import urlopen

import pytest
import yaml

from tests.cluster.commands import wait_for
from tests.cluster.images import Images
from tests.cluster.kubernetes import Cluster, Manifest
from tests.cluster.pods import namespace, pod, run_pod
from tests.cluster.settings import ROOT

pytestmark = pytest.mark.cluster

SPACE = "images-tests"
NOWHERE_TO_WRITE = """
for folder in / /refit /refit/.venv /usr /var /etc /var/tmp; do
    touch $folder/new 2>/dev/null && echo wrote in $folder
done
for program in gcc cc make pip uv apt-get; do
    command -v $program >/dev/null && echo has $program
done
id -u; id -g
"""
MAIN = f"""{NOWHERE_TO_WRITE} refit --help >/dev/null &&
python -c 'import tensorflow, kfp, evidently'"""
SERVING = f"""{NOWHERE_TO_WRITE} python -c 'import serving.recommender, serving.microservice' &&
seldon-core-microservice --help >/dev/null"""


@pytest.fixture(scope="module", autouse=True)
def space(cluster: Cluster) -> None:
    cluster.apply([namespace(SPACE)])


@pytest.mark.parametrize(("name", "work"), [("main", MAIN), ("serving", SERVING)])
def test_an_image_works_without_root_and_read_only(
    cluster: Cluster, images: Images, name: str, work: str
) -> None:
    image = images.main() if name == "main" else images.serving()
    manifest = pod(name, SPACE, image, ["sh", "-ec", f"{work}\necho done"])
    said = run_pod(cluster, with_tmp(manifest), seconds=300).splitlines()
    found = [line for line in said if line.startswith(("wrote ", "has "))]
    # These come with the base image; without root they can do nothing.
    assert set(found) <= {"has apt-get", "has pip"}
    assert "1000" in said
    assert said[-1] == "done"


def test_the_review_page_stands_in_the_restricted_namespace(
    cluster: Cluster, images: Images
) -> None:
    """The Deployment as the overlay has it, before the monitor has written anything."""
    images.main()
    golden = yaml.safe_load_all((ROOT / "tests/kustomize/golden/kind.yaml").read_text("utf-8"))
    wanted = {("Deployment", "review"), ("Service", "review"), ("ServiceAccount", "refit-reviewer")}
    wanted |= {("PersistentVolumeClaim", "refit-monitoring")}
    ours = [one for one in golden if (one["kind"], one["metadata"]["name"]) in wanted]
    assert len(ours) == len(wanted)
    for one in ours:
        one["metadata"]["namespace"] = SPACE
    cluster.apply(ours)
    cluster.wait_for_rollout("deployment/review", SPACE, 120)
    address = cluster.get("service", "review", SPACE)["spec"]["clusterIP"]
    metrics = wait_for("its metrics", lambda: fetch(f"http://{address}/metrics"), 20)
    assert "refit_monitor_store_readable 0.0" in metrics


def fetch(url: str) -> str:
    try:
        with urlopen(url, timeout=5) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def with_tmp(manifest: Manifest) -> Manifest:
    spec = manifest["spec"]
    spec["volumes"] = [{"name": "tmp", "emptyDir": {}}]
    spec["containers"][0]["volumeMounts"] = [{"name": "tmp", "mountPath": "/tmp"}]
    return manifest

from typing import Any

import pytest

from tests.machine.commands import CommandError, wait_for
from tests.machine.images import Images
from tests.machine.kubernetes import Cluster
from tests.machine.pods import RESTRICTED, container, namespace

pytestmark = pytest.mark.cluster
SPACE = "seldon-tests"
SERVE = ["python3", "-m", "http.server", "9000", "--directory", "/tmp"]


def predictor(name: str, weight: int, image: str) -> dict[str, Any]:
    return {
        "name": name,
        "traffic": weight,
        "replicas": 1,
        "annotations": {"seldon.io/no-engine": "true"},
        "graph": {"name": "model", "type": "MODEL"},
        "componentSpecs": [
            {
                "spec": {
                    "securityContext": RESTRICTED,
                    "containers": [container("model", image, SERVE)],
                }
            }
        ],
    }


def deployment(image: str, weights: dict[str, int]) -> dict[str, Any]:
    return {
        "apiVersion": "machinelearning.seldon.io/v1",
        "kind": "SeldonDeployment",
        "metadata": {"name": "server", "namespace": SPACE},
        "spec": {"predictors": [predictor(name, share, image) for name, share in weights.items()]},
    }


@pytest.fixture(scope="module", autouse=True)
def space(seldon: Cluster) -> None:
    seldon.apply([namespace(SPACE)])


@pytest.mark.parametrize("canary", [5, 30])
def test_weights_that_do_not_sum_to_100_are_rejected(seldon: Cluster, canary: int) -> None:
    with pytest.raises(CommandError, match="Traffic must sum to 100"):
        seldon.apply([deployment("localhost/none:test", {"main": 90, "canary": canary})])


def test_two_predictors_become_available_and_the_routes_have_their_weights(
    seldon: Cluster, images: Images
) -> None:
    seldon.apply([deployment(images.base(), {"main": 90, "canary": 10})])
    available = "jsonpath={.status.state}=Available"
    wait_for("a status", lambda: _status(seldon), 30)
    seldon.wait("seldondeployment/server", available, SPACE, seconds=180)
    routes = seldon.get("virtualservice", namespace=SPACE)["items"]
    weights = {
        target["destination"]["subset"]: target["weight"]
        for route in routes
        for http in route["spec"]["http"]
        for target in http["route"]
    }
    assert weights == {"main": 90, "canary": 10}


def _status(seldon: Cluster) -> Any:
    return seldon.get("seldondeployment", "server", SPACE).get("status", {}).get("state")

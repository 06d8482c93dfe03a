"""What a rollout changes in a Gateway API route: the weights of the predictors' Services.

Hosts, matches, filters and ports stay what the live route says. Each predictor has a Service of
Seldon's operator, named after the SeldonDeployment and itself.
"""

import copy
from collections.abc import Mapping

from components.deployment.manifests import CANARY, MAIN, Manifest
from refit.errors import UsageError

API_VERSION = "gateway.networking.k8s.io/v1"
HOW = "apply the overlay of kustomize/ with components/gateway anew"


def weights_of(route: Manifest, deployment: str) -> dict[str, int]:
    """How a route splits what it leads to a SeldonDeployment, by predictor.

    Raises:
        UsageError: No rule of it leads there, or its rules differ.
    """
    found = [
        {_predictor(one, deployment): int(one.get("weight", 1)) for one in refs}
        for refs in _ours(route, deployment)
    ]
    if not found:
        raise UsageError(f"{_name(route)} has no backend {deployment}-{MAIN}: {HOW}")
    return found[0] if all(one == found[0] for one in found) else {}


def with_weights(route: Manifest, deployment: str, weights: Mapping[str, int]) -> Manifest:
    """The route, split anew, as server-side apply is to send it.

    Args:
        route: As it is.
        deployment: Name of the SeldonDeployment.
        weights: By predictor, in percent.

    Raises:
        ValueError: They do not sum to 100.
    """
    if sum(weights.values()) != 100:
        raise ValueError(f"weights of {_name(route)} do not sum to 100: {dict(weights)}")
    spec = copy.deepcopy(route["spec"])
    for refs in _ours({**route, "spec": spec}, deployment):
        like = {key: value for key, value in refs[0].items() if key not in ("name", "weight")}
        refs[:] = [
            {**like, "name": f"{deployment}-{predictor}", "weight": weight}
            for predictor, weight in weights.items()
            if weight
        ]
    metadata = {key: route["metadata"][key] for key in ("name", "namespace", "resourceVersion")}
    return {"apiVersion": API_VERSION, "kind": route["kind"], "metadata": metadata, "spec": spec}


def _ours(route: Manifest, deployment: str) -> list[list[Manifest]]:
    """The backends of the rules that lead to the SeldonDeployment."""
    names = {f"{deployment}-{MAIN}", f"{deployment}-{CANARY}"}
    backends = [rule.get("backendRefs", []) for rule in route["spec"].get("rules", [])]
    return [refs for refs in backends if refs and {one["name"] for one in refs} <= names]


def _predictor(backend: Manifest, deployment: str) -> str:
    return str(backend["name"]).removeprefix(f"{deployment}-")


def _name(route: Manifest) -> str:
    return f"{route['kind']} {route['metadata']['name']}"

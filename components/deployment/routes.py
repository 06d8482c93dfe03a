"""The changes of a rollout to a Gateway API route: the weights of the predictors' Services.

Hosts, matches, filters and ports are copied from the live route. Seldon's operator creates a
Service for each predictor, named after the SeldonDeployment and the predictor.
"""

import copy
from collections.abc import Mapping

from components.deployment.manifests import CANARY, MAIN, Manifest
from refit.errors import UsageError

API_VERSION = "gateway.networking.k8s.io/v1"
REMEDY = "apply the overlay of kustomize/ with components/gateway again"


def weights_of(route: Manifest, deployment: str) -> dict[str, int]:
    """The weights of a SeldonDeployment's predictors in a route.

    Returns:
        Weights by predictor; empty if the route's rules differ.

    Raises:
        UsageError: No rule of the route has a backend of the SeldonDeployment.
    """
    rules = [
        {_predictor(one, deployment): int(one.get("weight", 1)) for one in refs}
        for refs in _backends(route, deployment)
    ]
    if not rules:
        raise UsageError(f"{_name(route)} has no backend {deployment}-{MAIN}: {REMEDY}")
    return rules[0] if all(rule == rules[0] for rule in rules) else {}


def with_weights(route: Manifest, deployment: str, weights: Mapping[str, int]) -> Manifest:
    """The route with other weights, as a manifest for server-side apply.

    Args:
        route: The live route.
        deployment: Name of the SeldonDeployment.
        weights: Percent of the traffic by predictor.

    Raises:
        ValueError: The weights do not sum to 100.
    """
    if sum(weights.values()) != 100:
        raise ValueError(f"weights of {_name(route)} do not sum to 100: {dict(weights)}")
    spec = copy.deepcopy(route["spec"])
    for refs in _backends({**route, "spec": spec}, deployment):
        common = {key: value for key, value in refs[0].items() if key not in ("name", "weight")}
        refs[:] = [
            {**common, "name": f"{deployment}-{predictor}", "weight": weight}
            for predictor, weight in weights.items()
            if weight
        ]
    metadata = {key: route["metadata"][key] for key in ("name", "namespace", "resourceVersion")}
    return {"apiVersion": API_VERSION, "kind": route["kind"], "metadata": metadata, "spec": spec}


def _backends(route: Manifest, deployment: str) -> list[list[Manifest]]:
    """The backend references of each rule that routes to the SeldonDeployment."""
    names = {f"{deployment}-{MAIN}", f"{deployment}-{CANARY}"}
    backends = [rule.get("backendRefs", []) for rule in route["spec"].get("rules", [])]
    return [refs for refs in backends if refs and {one["name"] for one in refs} <= names]


def _predictor(backend: Manifest, deployment: str) -> str:
    return str(backend["name"]).removeprefix(f"{deployment}-")


def _name(route: Manifest) -> str:
    return f"{route['kind']} {route['metadata']['name']}"

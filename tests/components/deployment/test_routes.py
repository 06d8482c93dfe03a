"""Reading and changing the weights of Gateway API routes."""

from copy import deepcopy
from typing import Any

import pytest

from components.deployment.routes import weights_of, with_weights
from refit.errors import UsageError

ROUTE: dict[str, Any] = {
    "kind": "HTTPRoute",
    "metadata": {"name": "refit", "namespace": "refit", "resourceVersion": "7", "uid": "u"},
    "spec": {
        "parentRefs": [{"name": "public"}],
        "hostnames": ["shop.example.org"],
        "rules": [
            {
                "matches": [{"path": {"type": "PathPrefix", "value": "/api"}}],
                "backendRefs": [{"name": "refit-main", "port": 9000, "weight": 100}],
            },
            {"backendRefs": [{"name": "web", "port": 80}]},
        ],
    },
    "status": {"parents": []},
}


def test_only_the_weights_of_our_backends_change() -> None:
    before = deepcopy(ROUTE)
    split = with_weights(ROUTE, "refit", {"main": 90, "canary": 10})
    assert before == ROUTE
    assert split["metadata"] == {"name": "refit", "namespace": "refit", "resourceVersion": "7"}
    assert "status" not in split
    ours, web = split["spec"]["rules"]
    assert ours["backendRefs"] == [
        {"name": "refit-main", "port": 9000, "weight": 90},
        {"name": "refit-canary", "port": 9000, "weight": 10},
    ]
    assert web == ROUTE["spec"]["rules"][1]
    assert weights_of(split, "refit") == {"main": 90, "canary": 10}
    again = with_weights(split, "refit", {"main": 100})
    assert again["spec"] == ROUTE["spec"]


def test_weights_sum_to_100() -> None:
    with pytest.raises(ValueError, match="do not sum to 100"):
        with_weights(ROUTE, "refit", {"main": 100, "canary": 10})


def test_the_weights_of_differing_rules_are_unknown() -> None:
    differing = deepcopy(ROUTE)
    differing["spec"]["rules"].append({"backendRefs": [{"name": "refit-canary", "port": 9000}]})
    assert weights_of(differing, "refit") == {}
    repaired = with_weights(differing, "refit", {"main": 100})
    assert weights_of(repaired, "refit") == {"main": 100}


def test_a_route_without_our_backend_is_an_error() -> None:
    with pytest.raises(UsageError, match="HTTPRoute refit has no backend another-main"):
        weights_of(ROUTE, "another")

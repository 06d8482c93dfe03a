"""What a rollout changes in the SeldonDeployment: bundle ids, traffic, replicas; nothing else.

Images, resources, probes and all the rest stay what the live object says: the canary is a copy of
the main predictor. Each function returns what server-side apply is to send; the field manager of
the rollout then owns the list of predictors, which Kubernetes keeps as one value.
"""

import copy
from typing import Any

from refit.errors import UsageError

Manifest = dict[str, Any]

API_VERSION = "machinelearning.seldon.io/v1"
MAIN, CANARY = "main", "canary"
BUNDLE_ANNOTATION = "refit/bundle-id"
STATE_ANNOTATION = "refit/rollout"


def predictor_of(live: Manifest, name: str) -> Manifest | None:
    """A predictor by its name."""
    found = [one for one in live["spec"]["predictors"] if one["name"] == name]
    return found[0] if found else None


def main_of(live: Manifest) -> Manifest:
    """The main predictor, which the others are made after.

    Raises:
        UsageError: There is none; the message tells how the object should look.
    """
    found = predictor_of(live, MAIN)
    if found is None:
        names = ", ".join(one["name"] for one in live["spec"]["predictors"])
        raise UsageError(
            f"SeldonDeployment {live['metadata']['name']} has no predictor {MAIN!r} (it has "
            f"{names}); apply the overlay of kustomize/ anew"
        )
    return found


def bundle_of(predictor: Manifest) -> str:
    """The bundle that a predictor is pinned to; "" when it follows the champion."""
    return str(predictor.get("annotations", {}).get(BUNDLE_ANNOTATION, ""))


def with_one_arm(live: Manifest, bundle_id: str) -> Manifest:
    """All traffic to the main predictor, which serves ``bundle_id``; any other one is removed."""
    return _applied(live, [_predictor(live, MAIN, bundle_id, 100)], "")


def with_canary(
    live: Manifest, main: str, canary: str, share: int, replicas: int, state: str
) -> Manifest:
    """Two predictors, their weights summing to 100.

    Args:
        live: The object as it is.
        main: Bundle of the main predictor.
        canary: Bundle of the canary.
        share: Percent of the traffic for the canary.
        replicas: Pods of the canary; it does not scale by itself.
        state: Kept as an annotation of the object.
    """
    predictors = [
        _predictor(live, MAIN, main, 100 - share),
        _predictor(live, CANARY, canary, share),
    ]
    predictors[1]["replicas"] = replicas
    for component in predictors[1].get("componentSpecs", ()):
        for scaling in ("hpaSpec", "kedaSpec", "replicas"):
            component.pop(scaling, None)
    return _applied(live, predictors, state)


def with_state(live: Manifest, state: str) -> Manifest:
    """The predictors as they are, and a new state."""
    return _applied(live, copy.deepcopy(live["spec"]["predictors"]), state)


def canary_replicas(share: int, main: int) -> int:
    """Pods that bring a canary nearest to its share beside so many of the main arm; at least one.

    With ``replicas`` as the split this is the canary's part of the traffic; with a mesh it keeps
    the load per pod as it is.
    """
    return max(1, round(main * share / (100 - share)))


def _predictor(live: Manifest, name: str, bundle_id: str, traffic: int) -> Manifest:
    made = copy.deepcopy(main_of(live))
    made["annotations"] = {**made.get("annotations", {}), BUNDLE_ANNOTATION: bundle_id}
    if name != MAIN:
        # The operator names a version without a name after its predictor.
        made.get("labels", {}).pop("version", None)
    return {**made, "name": name, "traffic": traffic}


def _applied(live: Manifest, predictors: list[Manifest], state: str) -> Manifest:
    metadata = live["metadata"]
    # With the version that was read, an object that was changed meanwhile is not overwritten.
    kept = {key: metadata[key] for key in ("name", "namespace", "resourceVersion")}
    if state:
        kept["annotations"] = {STATE_ANNOTATION: state}
    return {
        "apiVersion": API_VERSION,
        "kind": "SeldonDeployment",
        "metadata": kept,
        "spec": {"predictors": predictors},
    }

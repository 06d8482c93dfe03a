"""The changes of a rollout to the SeldonDeployment: bundle ids, traffic weights, replicas.

Everything else, such as images, resources and probes, is copied from the live object: the canary is
a copy of the main predictor. Each function returns a manifest for server-side apply. The rollout's
field manager then owns the list of predictors, which Kubernetes treats as one value.
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
    """The predictor with this name; None if it does not exist."""
    return next((one for one in live["spec"]["predictors"] if one["name"] == name), None)


def main_of(live: Manifest) -> Manifest:
    """The main predictor, which the canary is copied from.

    Raises:
        UsageError: It does not exist.
    """
    main = predictor_of(live, MAIN)
    if main is None:
        names = ", ".join(one["name"] for one in live["spec"]["predictors"])
        raise UsageError(
            f"SeldonDeployment {live['metadata']['name']} has no predictor {MAIN!r} (it has "
            f"{names}); apply the overlay of kustomize/ again"
        )
    return main


def bundle_of(predictor: Manifest) -> str:
    """The bundle that a predictor is pinned to; "" if it serves the current champion."""
    return str(predictor.get("annotations", {}).get(BUNDLE_ANNOTATION, ""))


def with_main_only(live: Manifest, bundle_id: str) -> Manifest:
    """Only the main predictor, with all traffic, serving ``bundle_id``."""
    return _manifest(live, [_predictor(live, MAIN, bundle_id, 100)], "")


def with_canary(
    live: Manifest, main: str, canary: str, share: int, replicas: int, state: str
) -> Manifest:
    """The main predictor and a canary, whose traffic weights sum to 100.

    Args:
        live: The live object.
        main: Bundle id of the main predictor.
        canary: Bundle id of the canary.
        share: Percent of the traffic for the canary.
        replicas: Number of the canary's pods; it is not autoscaled.
        state: The rollout's state, stored in an annotation of the object.
    """
    predictors = [
        _predictor(live, MAIN, main, 100 - share),
        _predictor(live, CANARY, canary, share),
    ]
    predictors[1]["replicas"] = replicas
    for component in predictors[1].get("componentSpecs", ()):
        for scaling in ("hpaSpec", "kedaSpec", "replicas"):
            component.pop(scaling, None)
    return _manifest(live, predictors, state)


def with_state(live: Manifest, state: str) -> Manifest:
    """The same predictors with a new rollout state."""
    return _manifest(live, copy.deepcopy(live["spec"]["predictors"]), state)


def canary_replicas(share: int, main: int) -> int:
    """Number of canary pods, at least one, that comes closest to the canary's share of all pods.

    With ``replicas`` as the split this determines the canary's traffic; with a mesh it keeps the
    load per pod unchanged.

    Args:
        share: Percent of the traffic for the canary.
        main: Number of the main predictor's pods.
    """
    return max(1, round(main * share / (100 - share)))


def _predictor(live: Manifest, name: str, bundle_id: str, traffic: int) -> Manifest:
    predictor = copy.deepcopy(main_of(live))
    predictor["annotations"] = {**predictor.get("annotations", {}), BUNDLE_ANNOTATION: bundle_id}
    if name != MAIN:
        # The operator sets a missing version label to the predictor's name.
        predictor.get("labels", {}).pop("version", None)
    return {**predictor, "name": name, "traffic": traffic}


def _manifest(live: Manifest, predictors: list[Manifest], state: str) -> Manifest:
    # With the resourceVersion, applying fails if the object has been modified since it was read.
    metadata = {key: live["metadata"][key] for key in ("name", "namespace", "resourceVersion")}
    if state:
        metadata["annotations"] = {STATE_ANNOTATION: state}
    return {
        "apiVersion": API_VERSION,
        "kind": "SeldonDeployment",
        "metadata": metadata,
        "spec": {"predictors": predictors},
    }

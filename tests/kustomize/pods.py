from collections.abc import Iterator, Sequence
from typing import Any

Manifest = dict[str, Any]
OF_KSERVE = {
    *("minReplicas", "maxReplicas", "scaleMetric", "scaleTarget", "deploymentStrategy"),
    *("labels", "annotations"),
}
"""What stands beside a pod's spec in an InferenceService."""


def pod_specs(manifests: Sequence[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """The pod specs in manifests, with the kind and name of the object that creates the pods."""
    for one in manifests:
        name = f"{one['kind']}/{one['metadata']['name']}"
        if one["kind"] in ("Deployment", "StatefulSet"):
            yield name, one["spec"]["template"]["spec"]
        if one["kind"] == "CronJob":
            yield name, one["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        for predictor in one["spec"]["predictors"] if one["kind"] == "SeldonDeployment" else ():
            yield f"{name}/{predictor['name']}", predictor["componentSpecs"][0]["spec"]
        if one["kind"] == "InferenceService":
            predictor = one["spec"]["predictor"]
            yield name, {key: value for key, value in predictor.items() if key not in OF_KSERVE}

import copy

import pytest

from components.deployment.manifests import (
    BUNDLE_ANNOTATION,
    STATE_ANNOTATION,
    bundle_of,
    canary_replicas,
    predictor_of,
    with_canary,
    with_main_only,
    with_state,
)
from refit.errors import UsageError

POD = {
    "terminationGracePeriodSeconds": 45,
    "containers": [{"name": "recommender", "image": "refit/serving:0.1.0"}],
}
MAIN = {
    "name": "main",
    "traffic": 100,
    "annotations": {"seldon.io/no-engine": "true", BUNDLE_ANNOTATION: "old"},
    "labels": {"app.kubernetes.io/name": "recommender", "version": "main"},
    "graph": {"name": "recommender", "type": "MODEL"},
    "componentSpecs": [{"hpaSpec": {"minReplicas": 2, "maxReplicas": 10}, "spec": POD}],
}
LIVE = {
    "apiVersion": "machinelearning.seldon.io/v1",
    "kind": "SeldonDeployment",
    "metadata": {
        "name": "refit",
        "namespace": "refit",
        "resourceVersion": "7",
        "managedFields": [{}],
        "labels": {"owner": "platform"},
        "annotations": {"theirs": "kept because it is not applied"},
    },
    "spec": {"protocol": "seldon", "predictors": [MAIN]},
    "status": {"state": "Available"},
}
METADATA = {"name": "refit", "namespace": "refit", "resourceVersion": "7"}


def test_a_canary_differs_from_the_main_predictor_in_name_bundle_traffic_and_replicas():
    before = copy.deepcopy(LIVE)
    applied = with_canary(LIVE, "old", "new", share=10, replicas=1, state="{}")
    assert before == LIVE
    assert applied == {
        "apiVersion": "machinelearning.seldon.io/v1",
        "kind": "SeldonDeployment",
        "metadata": {**METADATA, "annotations": {STATE_ANNOTATION: "{}"}},
        "spec": {
            "predictors": [
                {**MAIN, "traffic": 90},
                {
                    "name": "canary",
                    "traffic": 10,
                    "replicas": 1,
                    "annotations": {"seldon.io/no-engine": "true", BUNDLE_ANNOTATION: "new"},
                    "labels": {"app.kubernetes.io/name": "recommender"},
                    "graph": MAIN["graph"],
                    "componentSpecs": [{"spec": POD}],
                },
            ]
        },
    }


def test_without_the_canary_the_main_predictor_gets_all_traffic():
    both = {**LIVE, "spec": with_canary(LIVE, "old", "new", 10, 1, "{}")["spec"]}
    applied = with_main_only(both, "new")
    (main,) = applied["spec"]["predictors"]
    assert (main["name"], main["traffic"], bundle_of(main)) == ("main", 100, "new")
    assert main["componentSpecs"] == MAIN["componentSpecs"]
    assert applied["metadata"] == METADATA


@pytest.mark.parametrize("share", range(1, 51))
def test_weights_sum_to_100(share):
    both = with_canary(LIVE, "old", "new", share, 1, "{}")
    again = with_canary({**LIVE, "spec": both["spec"]}, "new", "new", share, 1, "{}")
    stored = with_state({**LIVE, "spec": both["spec"]}, "{}")
    for applied in (both, again, stored, with_main_only(LIVE, "new")):
        weights = [one["traffic"] for one in applied["spec"]["predictors"]]
        assert sum(weights) == 100
        assert all(weights)


def test_replicas_are_closest_to_the_share_and_at_least_one():
    assert [canary_replicas(10, main) for main in (1, 2, 9, 13, 18, 90)] == [1, 1, 1, 1, 2, 10]
    assert canary_replicas(50, 3) == 3


def test_a_predictor_without_annotations_serves_the_current_champion():
    bare = {key: value for key, value in MAIN.items() if key not in ("annotations", "labels")}
    live = {**LIVE, "spec": {"predictors": [bare]}}
    assert bundle_of(bare) == ""
    assert bundle_of(with_main_only(live, "new")["spec"]["predictors"][0]) == "new"
    assert predictor_of(with_canary(live, "old", "new", 10, 1, "{}"), "canary") is not None


def test_an_object_without_a_main_predictor_is_refused():
    live = {**LIVE, "spec": {"predictors": [{**MAIN, "name": "default"}]}}
    with pytest.raises(UsageError, match=r"no predictor 'main' \(it has default\)"):
        with_main_only(live, "new")

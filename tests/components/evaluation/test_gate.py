"""The gate passes a good model, and fails closed on every missing measurement."""

import re

import pytest

from components.evaluation.gate import apply_gate
from components.evaluation.results import (
    Exposure,
    IndexResult,
    Interval,
    Method,
    Results,
    SliceResult,
    SmokeResult,
)
from components.evaluation.settings import EvaluationSettings, SliceFloor
from refit.errors import UsageError

SETTINGS = EvaluationSettings(
    required_baselines=("popularity", "co-occurrence"),
    slice_floors=(SliceFloor(slice="new users", at_least=0.05),),
)
METRIC, GUARD = SETTINGS.metric, SETTINGS.guard_metric
NAN = float("nan")


def around(value, half=0.01):
    return Interval(value=value, low=value - half, high=value + half)


def method(name, kind, value, **more):
    gain = {} if kind == "model" else {METRIC: around(0.30 - value), GUARD: around(0.05)}
    values = {
        "metrics": {METRIC: around(value), GUARD: around(value / 4)},
        "gain": gain,
        "exposure": Exposure(coverage=0.5, item_gini=0.6, seller_gini=0.5),
        "not_finite": 0,
    }
    return Method(name=name, kind=kind, **{**values, **more})


def results(**more):
    values = {
        "protocol": {"candidates_per_snapshot": 4000.0},
        "n_queries": 5000,
        "n_users": 3000,
        "embedding_version": "t1",
        "methods": (
            method("model", "model", 0.30),
            method("popularity", "baseline", 0.15),
            method("co-occurrence", "baseline", 0.20),
            Method(name="EASE", kind="baseline", not_run="too large"),
        ),
        "slices": (
            SliceResult(
                name="new users",
                n=900,
                metrics={
                    "model": around(0.2),
                    "popularity": around(0.1),
                    "co-occurrence": around(0.1),
                },
            ),
        ),
        "index": IndexResult(
            embedding_version="t1",
            recorded_recall=0.99,
            recall=0.99,
            p50_ms=0.1,
            p99_ms=1.0,
            vector_gap=1e-6,
            n=500,
        ),
        "smoke": SmokeResult(gap=1e-7, n=16),
    }
    return Results(**{**values, **more})


def with_method(index, **changes):
    methods = list(results().methods)
    methods[index] = Method.model_validate({**methods[index].model_dump(), **changes})
    return results(methods=tuple(methods))


def with_champion(value, **more):
    return results(methods=(*results().methods, method("champion", "champion", value, **more)))


def with_index(**changes):
    return results(index=IndexResult.model_validate({**results().index.model_dump(), **changes}))


def with_slice(**changes):
    part = results().slices[0].model_dump()
    return results(slices=(SliceResult.model_validate({**part, **changes}),))


def refusals(measured, settings=SETTINGS):
    verdict = apply_gate(settings, measured)
    assert verdict.passed is (not verdict.reasons)
    return " | ".join(verdict.reasons)


def test_a_model_that_meets_every_requirement_passes():
    verdict = apply_gate(SETTINGS, results())
    assert verdict.passed, verdict.reasons
    assert len(verdict.checks) == len({check.name for check in verdict.checks}) == 21


def test_a_champion_that_is_a_little_better_within_the_tolerance_passes():
    gain = {METRIC: Interval(value=-0.001, low=-0.004, high=0.002)}
    assert not refusals(with_champion(0.301, gain=gain))


MODEL, POPULARITY, COOCCURRENCE = 0, 1, 2
REFUSED = {
    "too few queries": (results(n_queries=499), "test queries is 499"),
    "too few users": (results(n_users=99), "test users is 99"),
    "thin n under a comparison": (results(n_queries=499), "gain over popularity .* rests on 499"),
    "no methods at all": (results(methods=()), "non-finite scores of the model was not measured"),
    "no baseline at all": (
        results(methods=results().methods[:1]),
        "gain over the best baseline, hit rate at 100 was not measured: no baseline was run",
    ),
    "a required baseline that was not run": (
        with_method(COOCCURRENCE, not_run="broke", metrics={}, gain={}),
        "gain over co-occurrence was not measured: broke",
    ),
    "a required baseline that the settings do not name": (
        results(methods=results().methods[:2]),
        "gain over co-occurrence was not measured: evaluation.baselines does not name it",
    ),
    "a baseline without a gain": (
        with_method(POPULARITY, gain={}),
        "gain over popularity .* was not measured",
    ),
    "a gain that is not finite": (
        with_method(POPULARITY, gain={METRIC: {"value": NAN, "low": NAN, "high": NAN}}),
        "gain over popularity .* was not measured",
    ),
    "a gain without an interval": (
        with_method(POPULARITY, gain={METRIC: {"value": 0.1}}),
        "gain over popularity .* was not measured",
    ),
    "a gain whose interval touches zero": (
        with_method(COOCCURRENCE, gain={METRIC: {"value": 0.01, "low": 0.0, "high": 0.02}}),
        "gain over co-occurrence .* is 0, above 0 is needed",
    ),
    "a gain below the margin": (
        with_method(COOCCURRENCE, gain={METRIC: {"value": 0.001, "low": 0.0005, "high": 0.002}}),
        "gain over the best baseline, hit rate at 100 is 0.001, at least 0.002",
    ),
    "a guard that was not measured": (
        with_method(COOCCURRENCE, gain={METRIC: {"value": 0.1, "low": 0.09, "high": 0.2}}),
        "gain over the best baseline, hit rate at 10 .* was not measured",
    ),
    "worse on the guard": (
        with_method(
            COOCCURRENCE,
            gain={
                METRIC: {"value": 0.1, "low": 0.09, "high": 0.2},
                GUARD: {"value": -0.01, "low": -0.02, "high": 0.0},
            },
        ),
        "gain over the best baseline, hit rate at 10 .* is -0.02",
    ),
    "non-finite scores": (
        with_method(MODEL, not_finite=3),
        "non-finite scores of the model is 3",
    ),
    "non-finite scores that were not counted": (
        with_method(MODEL, not_finite=None),
        "non-finite scores of the model was not measured",
    ),
    "worse than the champion": (
        with_champion(0.32),
        "gain over the champion .* is -0.03",
    ),
    "a champion that is not comparable": (
        results(
            methods=(
                *results().methods,
                Method(name="champion", kind="champion", not_run="not comparable: other features"),
            )
        ),
        "gain over the champion .* was not measured: not comparable: other features",
    ),
    "a champion without the deciding metric": (
        with_champion(0.2, metrics={GUARD: around(0.05)}),
        f"gain over the champion .* was not measured: the champion has no {METRIC}",
    ),
    "a champion without a gain": (
        with_champion(0.2, gain={}),
        "gain over the champion .* was not measured",
    ),
    "an empty slice": (
        with_slice(n=0, metrics={}),
        "new users: hit rate at 100 was not measured: no test query is in this slice",
    ),
    "a slice that is missing": (results(slices=()), "new users: hit rate at 100 was not measured"),
    "a thin slice": (with_slice(n=99), "new users: hit rate at 100 rests on 99 cases"),
    "a slice without the model's metric": (
        with_slice(metrics={"popularity": around(0.1), "co-occurrence": around(0.1)}),
        "new users: hit rate at 100 was not measured",
    ),
    "a slice without a baseline's metric": (
        with_slice(metrics={"model": around(0.2), "popularity": around(0.1)}),
        "new users: hit rate at 100 was not measured",
    ),
    "a slice far below the best baseline": (
        with_slice(
            metrics={
                "model": around(0.2),
                "popularity": around(0.1),
                "co-occurrence": around(0.3),
            }
        ),
        "new users: hit rate at 100 is 0.2, at least 0.27",
    ),
    "a slice where no method finds anything": (
        with_slice(
            metrics={name: around(0.0) for name in ("model", "popularity", "co-occurrence")}
        ),
        "new users: hit rate at 100 is 0, above 0 is needed",
    ),
    "a slice below its floor": (
        with_slice(
            metrics={
                "model": around(0.055),
                "popularity": around(0.01),
                "co-occurrence": around(0.01),
            }
        ),
        "new users: hit rate at 100 .low end of 95%. is 0.045",
    ),
    "items that are never shown": (
        with_method(MODEL, exposure={"coverage": 0.1, "item_gini": 0.6, "seller_gini": 0.5}),
        "coverage of the stock at 100 is 0.1",
    ),
    "coverage that is not finite": (
        with_method(MODEL, exposure={"coverage": NAN, "item_gini": 0.6, "seller_gini": 0.5}),
        "coverage of the stock at 100 was not measured",
    ),
    "exposure of few items": (
        with_method(MODEL, exposure={"coverage": 0.5, "item_gini": 0.99, "seller_gini": 0.5}),
        "Gini of item exposure at 100 is 0.99",
    ),
    "a seller column that became null": (
        with_method(MODEL, exposure={"coverage": 0.5, "item_gini": 0.6, "seller_gini": None}),
        "Gini of seller exposure at 100 was not measured: the items have no sellers",
    ),
    "data that contradict themselves": (
        results(left_out={"not live": 500, "item not seen": 90_000}),
        "share of queries whose positive was not eligible is 0.0909",
    ),
    "an index of other towers": (
        with_index(embedding_version="t0"),
        r"index built with the model's towers \(1 = yes\) is 0",
    ),
    "an index without an embedding version": (
        with_index(embedding_version=None),
        r"index built with the model's towers \(1 = yes\) was not measured",
    ),
    "a model without an embedding version": (
        results(embedding_version=None),
        r"index built with the model's towers \(1 = yes\) was not measured",
    ),
    "an index that cannot be read": (
        results(index=IndexResult(why="the index cannot be read: gone")),
        "index recall@100, on test queries was not measured: the index cannot be read: gone",
    ),
    "an index whose recall was never recorded": (
        with_index(recorded_recall=None),
        "index recall@100, as recorded was not measured",
    ),
    "an index that loses items": (with_index(recall=0.9), "on test queries is 0.9, at least 0.95"),
    "a recall that is not finite": (
        with_index(recall=NAN),
        "index recall@100, on test queries was not measured",
    ),
    "a recall over no searches": (with_index(n=0), "on test queries rests on 0 cases"),
    "a slow index": (with_index(p99_ms=51.0), "99th percentile in ms is 51"),
    "vectors of another model": (with_index(vector_gap=0.5), "from the item tower is 0.5"),
    "vectors that were not compared": (with_index(vector_gap=None), "tower was not measured"),
    "a model server that does not answer": (
        results(smoke=SmokeResult(why="UNAVAILABLE")),
        "model server: largest difference from the model was not measured: UNAVAILABLE",
    ),
    "a model server with other answers": (
        results(smoke=SmokeResult(gap=0.3, n=16)),
        "model server: largest difference from the model is 0.3",
    ),
    "a model server without a query": (
        results(smoke=SmokeResult(gap=0.0, n=0)),
        "model server: largest difference from the model rests on 0 cases",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    measured, expected = REFUSED[case]
    reasons = refusals(measured)
    assert reasons
    assert re.search(expected, reasons), reasons


@pytest.mark.parametrize("name", ["same seller", "same_seller", "acme.refit:SELLER"])
def test_a_required_baseline_is_named_as_in_the_report_or_as_in_the_settings(name):
    settings = EvaluationSettings(required_baselines=(name,), slice_floors=())
    assert f"gain over {name} was not measured" in refusals(results(), settings)
    methods = (*results().methods, method("same seller", "baseline", 0.1, extension=name))
    assert not refusals(results(methods=methods), settings)


def test_sellers_are_left_out_only_by_a_setting():
    measured = with_method(MODEL, exposure={"coverage": 0.5, "item_gini": 0.6})
    settings = SETTINGS.model_copy(update={"max_seller_gini": None})
    assert not refusals(measured, settings)


def test_an_unknown_metric_is_a_usage_error():
    with pytest.raises(UsageError, match="known metrics: hit_rate_at_10"):
        EvaluationSettings.parse({"metric": "recall_at_100"})


@pytest.mark.parametrize("candidates", [1.0, 60.0, 100.0])
def test_a_hit_rate_over_no_more_items_than_its_list_is_refused(candidates):
    verdict = apply_gate(SETTINGS, results(protocol={"candidates_per_snapshot": candidates}))
    assert not verdict.passed
    assert "candidates to choose from, for hit rate at 100" in verdict.reasons[0]


def test_a_choice_that_was_not_recorded_is_refused():
    assert not apply_gate(SETTINGS, results(protocol={})).passed

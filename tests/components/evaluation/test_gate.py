"""The gate passes a good model, and fails closed on every missing measurement."""

import re

import pytest

from components.evaluation.gate import apply_gate
from components.evaluation.results import (
    Exposure,
    Freshness,
    GroupWorth,
    IndexResult,
    Interval,
    LeakResults,
    Method,
    PositiveInHistory,
    Results,
    SliceResult,
    SmokeResult,
)
from components.evaluation.settings import EvaluationSettings, SliceFloor
from refit.errors import UsageError
from refit.ledger import Looks, LookSettings

SETTINGS = EvaluationSettings(
    required_baselines=("popularity", "co-occurrence"),
    slice_floors=(SliceFloor(slice="new users", at_least=0.05),),
)
METRIC, GUARD = SETTINGS.metric, SETTINGS.guard_metric
NAN = float("nan")


def around(value, half=0.01):
    return Interval(value=value, low=value - half, high=value + half, se=half / 1.96)


def method(name, kind, value, **more):
    gain = {} if kind == "model" else {METRIC: around(0.30 - value), GUARD: around(0.05)}
    values = {
        "metrics": {METRIC: around(value), GUARD: around(value / 4)},
        "gain": gain,
        "exposure": Exposure(coverage=0.5, item_gini=0.6, seller_gini=0.5),
        "not_finite": 0,
    }
    if kind == "champion":
        values |= {"compared": values["metrics"], "n_compared": 5000, "users_compared": 3000}
    return Method(name=name, kind=kind, **{**values, **more})


def leaks(share, **more):
    group = GroupWorth(name="items.fabric", kind="item", fall=around(0.1), share=share)
    return LeakResults(n=2000, gain=around(0.15), groups=(group,), **more)


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
            Method(name="EASE", kind="baseline", not_run="too large", excused="a test"),
        ),
        "slices": (
            SliceResult(
                name="new users",
                n=900,
                n_users=500,
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
        "freshness": Freshness(
            model_days=8.0, index_days=1.0, test_days=1.0, overlap_days=-7.0, as_of="2026-01-01"
        ),
        "smoke": {tower: SmokeResult(gap=1e-7, n=16) for tower in ("query_tower", "item_tower")},
        "positive_in_history": PositiveInHistory(
            n=5000, within_hour=0.01, within_day=0.3, older=0.2
        ),
        "undeclared": (),
        "leaks": leaks(0.02),
    }
    return Results(**{**values, **more})


def with_method(index, **changes):
    methods = list(results().methods)
    methods[index] = Method.model_validate({**methods[index].model_dump(), **changes})
    return results(methods=tuple(methods))


def with_champion(value, slice_gain=None, **more):
    methods = (*results().methods, method("champion", "champion", value, **more))
    part = results().slices[0]
    known = {**part.metrics, "champion": around(0.2)}
    gain = {"champion": slice_gain or around(0.0)}
    part = part.model_copy(update={"metrics": known, "gain": gain})
    return results(methods=methods, slices=(part,))


def with_index(**changes):
    return results(index=IndexResult.model_validate({**results().index.model_dump(), **changes}))


def with_freshness(**changes):
    return results(freshness=results().freshness.model_copy(update=changes))


def with_smoke(tower="query_tower", **changes):
    return results(smoke={**results().smoke, tower: SmokeResult(**changes)})


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
    assert len(verdict.checks) == len({check.name for check in verdict.checks}) == 31


POPULARITY_AS_ITSELF = (
    method("model", "model", 0.15, exposure=Exposure(coverage=0.01, item_gini=0.999)),
    method("popularity", "baseline", 0.15, extension="popularity"),
    method("co-occurrence", "baseline", 0.20, extension="cooccurrence"),
)


def as_itself(methods=POPULARITY_AS_ITSELF, **more):
    return results(kind="baseline", methods=methods, slices=(), **more)


def test_a_baseline_passes_as_itself_where_a_setting_allows_it():
    allowed = SETTINGS.model_copy(update={"serve_baseline": True})
    assert refusals(as_itself(), allowed) == ""
    assert "evaluation.serve_baseline: true allows it" in refusals(as_itself())
    champion = (*POPULARITY_AS_ITSELF, method("champion", "champion", 0.1))
    assert "champions that the baseline would take" in refusals(as_itself(champion), allowed)


@pytest.mark.parametrize(
    ("measured", "words"),
    [
        (
            as_itself((method("model", "model", 0.13), *POPULARITY_AS_ITSELF[1:])),
            "against the best popularity baseline is 0.13, at least 0.135 is needed",
        ),
        (
            as_itself((POPULARITY_AS_ITSELF[0], POPULARITY_AS_ITSELF[2])),
            "popularity baseline was not measured: evaluation.baselines runs none",
        ),
        (as_itself(leaks=leaks(0.2)), "items.fabric carries"),
        (as_itself(smoke={}), "model server, query tower"),
        (as_itself(freshness=results().freshness.model_copy(update={"index_days": 99.0})), "index"),
    ],
)
def test_a_baseline_as_itself_still_has_to_be_sound(measured, words):
    allowed = SETTINGS.model_copy(update={"serve_baseline": True})
    assert words in refusals(measured, allowed)


def test_plain_popularity_gains_nothing_that_could_leak():
    nothing = LeakResults(n=2000, gain=around(0.0), groups=leaks(None).groups, why="no gain")
    allowed = SETTINGS.model_copy(update={"serve_baseline": True})
    assert refusals(as_itself(leaks=nothing), allowed) == ""


def test_a_champion_that_is_a_little_better_within_the_tolerance_passes():
    gain = {METRIC: Interval(value=-0.001, low=-0.004, high=0.002, se=0.0015)}
    assert not refusals(with_champion(0.301, gain=gain))


MODEL, POPULARITY, COOCCURRENCE, EASE = 0, 1, 2, 3
REFUSED = {
    "an input that carries too much": (
        results(leaks=leaks(0.3)),
        "items.fabric carries is 0.3, at most 0.1 is allowed; .* evaluation.leaks.intended",
    ),
    "an input whose share is unknown": (
        results(leaks=leaks(None, why="no gain")),
        "items.fabric carries was not measured: no gain",
    ),
    "inputs that were not measured": (
        results(leaks=LeakResults()),
        "share of the gain by inputs was not measured",
    ),
    "too few queries": (results(n_queries=499), "test queries is 499"),
    "too few users": (results(n_users=99), "test users is 99"),
    "thin n under a comparison": (results(n_queries=499), "gain over popularity .* rests on 499"),
    "visits that are predicted from themselves": (
        results(positive_in_history=PositiveInHistory(n=5000, within_hour=0.4)),
        "in the history within the hour is 0.4, at most 0.05",
    ),
    "histories that were not looked at": (
        results(positive_in_history=PositiveInHistory()),
        "in the history within the hour was not measured",
    ),
    "columns that may know the future": (
        results(undeclared=("items.like_count", "items.price")),
        r"static does not name \(items.like_count, items.price\) is 2, at most 0",
    ),
    "columns that nobody looked at": (
        results(undeclared=None),
        "static does not name was not measured: the features do not say",
    ),
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
        "gain over the champion was not measured: not comparable: other features",
    ),
    "a champion without the deciding metric": (
        with_champion(0.2, compared={GUARD: around(0.05)}),
        f"gain over the champion was not measured: the champion has no {METRIC}",
    ),
    "a champion without a gain": (
        with_champion(0.2, gain={}),
        "gain over the champion .* was not measured",
    ),
    "a slice that is clearly worse than the champion's": (
        with_champion(0.2, slice_gain=Interval(value=-0.05, low=-0.08, high=-0.02)),
        "new users: gain over the champion .high end of 95%. is -0.02, at least -0.01",
    ),
    "a slice that was not compared with the champion's": (
        with_champion(0.2, slice_gain=Interval()),
        "new users: gain over the champion .high end of 95%. was not measured",
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
    "a tower that was not tested": (
        results(smoke={"query_tower": SmokeResult(gap=0.0, n=16)}),
        "model server, item tower: largest difference from the model was not measured",
    ),
    "a baseline that did not run and is not excused": (
        with_method(EASE, excused=""),
        "gain over EASE was not measured: too large; if it need not run, say why",
    ),
    "nearly all queries left out, because their items were not seen": (
        results(left_out={"item not seen": 150_000}),
        "share of queries that were left out is 0.9677",
    ),
    "a slice of one busy user": (with_slice(n_users=1), "new users: users is 1, at least 30"),
    "a model that was trained on the test window": (
        with_freshness(overlap_days=0.5),
        "days of the test window that the model was trained on is 0.5, at most 0",
    ),
    "a model that does not say until when it was trained": (
        with_freshness(overlap_days=None, model_days=None),
        "age of the model's newest example in days was not measured: model.json does not say",
    ),
    "an old model": (with_freshness(model_days=91.0), "newest example in days is 91, at most 90"),
    "an old index": (with_freshness(index_days=46.0), "index's items in days is 46, at most 45"),
    "an old test window": (with_freshness(test_days=46.0), "test query in days is 46, at most 45"),
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
        with_smoke(why="UNAVAILABLE"),
        "model server, query tower: .* from the model was not measured: UNAVAILABLE",
    ),
    "a model server with other answers": (
        with_smoke("item_tower", gap=0.3, n=16),
        "model server, item tower: largest difference from the model is 0.3",
    ),
    "a model server without a query": (
        with_smoke(gap=0.0, n=0),
        "model server, query tower: largest difference from the model rests on 0 cases",
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


def decide(value, se, tolerance=0.05, n=5000):
    """The verdict on a champion of 0.2 whose gain is known with this standard error."""
    gain = {METRIC: Interval(value=value, low=value - 1.96 * se, high=value + 1.96 * se, se=se)}
    settings = SETTINGS.model_copy(update={"champion_tolerance": tolerance})
    measured = with_champion(0.2, gain=gain, n_compared=n)
    return apply_gate(settings, measured.model_copy(update={"queries_per_day": 500.0}))


@pytest.mark.parametrize(
    ("value", "se", "outcome"),
    [
        # A margin of 0.01: with a standard error of 0.0027 an equal model passes in 95%.
        (0.0, 0.0, "passed"),  # an identical twin, whatever the seed
        (0.0, 0.0027, "passed"),
        (-0.002, 0.0027, "passed"),
        (-0.005, 0.0027, "cannot tell"),
        (-0.02, 0.0027, "refused"),
        (-0.005, 0.001, "passed"),  # a little worse for certain, within what is tolerated
        (0.004, 0.005, "cannot tell"),  # inside the margin by luck: in 30% of such tests
        (0.0, 0.005, "cannot tell"),
        (-0.009, 0.005, "cannot tell"),
        (-0.015, 0.005, "refused"),  # shown to be worse
        (0.015, 0.005, "passed"),  # shown to be better
    ],
)
def test_equal_models_are_decided_by_the_power_of_the_test(value, se, outcome):
    assert decide(value, se).outcome == outcome


def test_a_test_that_is_too_small_says_how_much_more_would_do():
    (reason,) = decide(0.0, 0.0072).reasons
    assert "an equal model passes in 28% of such tests" in reason
    more = re.search(r"about ([\d,]+) more queries, (\d+) days at this window's rate", reason)
    assert int(more[1].replace(",", "")) == pytest.approx(28_700, rel=0.02)
    assert int(more[2]) == pytest.approx(58, abs=1)


def test_a_champion_that_has_seen_nearly_all_queries_cannot_be_judged():
    verdict = decide(0.1, 0.001, n=20)
    assert verdict.outcome == "cannot tell"
    assert "gain over the champion: queries that it has not seen is 20, at least 500" in str(
        verdict.reasons
    )
    nothing = with_champion(0.2, n_compared=0, users_compared=0, compared={}, gain={})
    assert apply_gate(SETTINGS, nothing).outcome == "cannot tell"


def test_a_gain_over_a_baseline_that_may_be_chance_cannot_be_told():
    near = Interval(value=0.005, low=-0.005, high=0.015, se=0.005)
    guard = {GUARD: around(0.05)}
    verdict = apply_gate(SETTINGS, with_method(COOCCURRENCE, gain={METRIC: near, **guard}))
    assert verdict.outcome == "cannot tell"
    assert "more queries" in verdict.reasons[0]
    worse = Interval(value=-0.02, low=-0.03, high=-0.01, se=0.005)
    verdict = apply_gate(SETTINGS, with_method(COOCCURRENCE, gain={METRIC: worse, **guard}))
    assert verdict.outcome == "refused"


def test_the_best_of_the_last_counts_like_the_champion():
    best = method("the best of the last 10", "champion", 0.35)
    methods = (*results().methods, method("champion", "champion", 0.295), best)
    part = results().slices[0]
    known = {**part.metrics, "champion": around(0.2), best.name: around(0.2)}
    gain = {"champion": around(0.0), best.name: around(0.0)}
    part = part.model_copy(update={"metrics": known, "gain": gain})
    verdict = apply_gate(SETTINGS, results(methods=methods, slices=(part,)))
    assert [r for r in verdict.reasons if "gain over the best of the last 10" in r]
    gone = Method(name=best.name, kind="champion", not_run="it cannot be read")
    reasons = apply_gate(SETTINGS, results(methods=(*results().methods, gone))).reasons
    assert reasons == ("gain over the best of the last 10 was not measured: it cannot be read",)


def float_settings():
    from components.deployment.settings import DeploySettings, RolloutSettings
    from components.evaluation.settings import BaselineSettings

    for cls in (
        EvaluationSettings,
        BaselineSettings,
        SliceFloor,
        DeploySettings,
        RolloutSettings,
    ):
        for name, field in cls.model_fields.items():
            if "float" in str(field.annotation):
                yield cls, name, field.default


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), NAN])
def test_no_threshold_can_be_infinite(value):
    for cls, name, default in float_settings():
        wrong = (value,) if isinstance(default, tuple) else value
        given = {"slice": "all"} if cls is SliceFloor else {}
        with pytest.raises(ValueError, match=name):
            cls(**given, **{name: wrong})
        with pytest.raises(UsageError, match=name):
            cls.parse({**given, name: wrong})


@pytest.mark.parametrize("name", ["champion_tolerance", "guard_tolerance"])
def test_a_tolerance_that_allows_everything_is_an_error(name):
    with pytest.raises(UsageError, match="must be less than 1"):
        EvaluationSettings.parse({name: 1.0})


@pytest.mark.parametrize(
    ("excused", "words"),
    [
        ({"eas": "large"}, "excused, but not in include or extra: eas"),
        ({"ease": " "}, "excused without a reason: ease"),
    ],
)
def test_a_baseline_is_excused_by_its_name_with_a_reason(excused, words):
    with pytest.raises(UsageError, match=words):
        EvaluationSettings.parse({"baselines": {"excused": excused}})


def test_a_later_look_at_the_same_window_has_to_clear_a_wider_interval():
    """A gain of 0.012 +- 0.01 passes the first look; the second needs 1.27 times the half-width."""
    gain = {
        METRIC: {"value": 0.012, "low": 0.002, "high": 0.022},
        GUARD: {"value": 0.1, "low": 0.0},
    }
    measured = with_method(COOCCURRENCE, gain=gain)
    assert not refusals(measured)
    assert not refusals(measured.model_copy(update={"looks": Looks(number=1)}))
    reasons = refusals(measured.model_copy(update={"looks": Looks(number=2)}))
    assert re.search(r"gain over co-occurrence \(low end of 98.75%\) is -0.0007", reasons), reasons


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (3, ""),
        (4, "looks at this test window is 4, at most 3 is allowed"),
        (None, "looks at this test window was not measured: no ledger was kept"),
    ],
)
def test_a_fresh_window_is_demanded_only_by_a_setting(number, expected):
    measured = results(looks=Looks(number=number, most=3))
    assert not refusals(measured)
    settings = SETTINGS.model_copy(update={"looks": LookSettings(most=3, refuse=True)})
    assert expected in refusals(measured, settings)
    assert bool(refusals(measured, settings)) is bool(expected)


@pytest.mark.parametrize("candidates", [1.0, 60.0, 100.0])
def test_a_hit_rate_over_no_more_items_than_its_list_is_refused(candidates):
    verdict = apply_gate(SETTINGS, results(protocol={"candidates_per_snapshot": candidates}))
    assert not verdict.passed
    assert "candidates to choose from, for hit rate at 100" in verdict.reasons[0]


def test_a_choice_that_was_not_recorded_is_refused():
    assert not apply_gate(SETTINGS, results(protocol={})).passed

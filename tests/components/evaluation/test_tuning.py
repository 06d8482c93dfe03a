"""Baselines as extensions: names, options, and failures, which are never taken for a result."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from components.evaluation.data import EvaluationData
from components.evaluation.evaluate import evaluate
from components.evaluation.results import Results
from components.evaluation.settings import BaselineSettings, EvaluationSettings
from components.evaluation.tuning import (
    NotRun,
    Tuned,
    ValidationSet,
    load_baselines,
    pick_best,
    tune_baselines,
)
from refit.errors import RefitError, UsageError
from refit.files import read_json
from refit.settings import Settings
from tests.factories import make_index, make_market, make_model

SETTINGS = EvaluationSettings(
    cuts=(10,),
    metric="hit_rate_at_10",
    guard_metric="hit_rate_at_10",
    min_queries=100,
    min_users=10,
    slice_floors=(),
    replicates=100,
    prediction_queries=50,
    smoke_test=(),
)


class Newest:
    """Scores by newness, times ``factor``."""

    def __init__(self, factor=1.0):
        self.factor = factor

    def at(self, queries, snapshot):
        scores = -self.factor * snapshot.age_days
        return lambda which: np.tile(scores, (len(which), 1))


class Options(Settings):
    factor: float = 1.0


def extension(tune, name="newest", needs=(), **more):
    return SimpleNamespace(NAME=name, NEEDS=needs, tune=tune, **more)


def tune_newest(validation, options):
    scorer = Newest(options.factor)
    return Tuned(scorer, {"factor": options.factor, "validation": validation.measure(scorer)})


class Failing:
    def __init__(self, scores):
        self.scores = scores

    def at(self, queries, snapshot):
        return lambda which: self.scores(len(which), len(snapshot.items))


def returning(scores):
    return extension(lambda validation, options: Tuned(Failing(scores)))


def fail(*_):
    raise ValueError("no such seller")


def refuse(*_):
    raise UsageError("the sellers must be known")


ACME = {
    "NEWEST": extension(tune_newest, OPTIONS=Options),
    "PLAIN": extension(lambda validation, options: Tuned(Newest()), "plain"),
    "NEEDY": extension(tune_newest, "needy", ("brand", "fabric", "occasion", "weather")),
    "UNWILLING": extension(lambda validation, options: NotRun("no seller is known"), "unwilling"),
    "TWIN": extension(tune_newest, "popularity"),
    "MODEL": extension(tune_newest, "model"),
    "LACKING": SimpleNamespace(NAME="lacking", tune=tune_newest),
    "RAISES": extension(fail),
    "REFUSES": extension(refuse),
    "RETURNS_NOTHING": extension(lambda validation, options: None),
    "CHOOSES_ARRAYS": extension(lambda *_: Tuned(Newest(), {"days": np.float32(1)})),
    "SCORES_RAISE": returning(fail),
    "SCORES_ARE_FEW": returning(lambda rows, columns: np.zeros((rows, 1), np.float32)),
    "SCORES_ARE_NAN": returning(lambda rows, columns: np.full((rows, columns), np.nan)),
    "MEASURES_A_COLUMN": extension(
        lambda validation, options: validation.measure(Failing(lambda rows, _: np.zeros((rows, 1))))
    ),
}


@pytest.fixture(autouse=True)
def acme(monkeypatch):
    module = ModuleType("acme")
    vars(module).update(ACME)
    monkeypatch.setitem(sys.modules, "acme", module)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("tuning")
    features = make_market(base / "features", rolling=True)
    model = make_model(base / "model")
    return features, model, make_index(base / "index", features, model)


@pytest.fixture(scope="module")
def data(folders):
    return EvaluationData(folders[0])


def with_baselines(*names, **more):
    grid = BaselineSettings(include=names, **more)
    return SETTINGS.model_copy(update={"baselines": grid})


def tune(data, *names, **more):
    settings = with_baselines(*names, **more)
    outcomes = tune_baselines(load_baselines(settings.baselines), data, settings)
    return {baseline.name: outcome for baseline, outcome in outcomes}


def test_options_are_typed_and_have_defaults(data):
    tuned = tune(data, "acme:NEWEST", options={"acme:NEWEST": {"factor": 2}})["newest"]
    assert tuned.chosen["factor"] == 2.0
    assert tuned.chosen["validation"] >= 0
    assert tune(data, "acme:NEWEST")["newest"].chosen["factor"] == 1.0


def test_a_baseline_without_the_columns_it_needs_is_not_run(data):
    outcomes = tune(data, "popularity", "acme:NEEDY", "acme:UNWILLING")
    assert isinstance(outcomes["popularity"], Tuned)
    assert outcomes["needy"] == NotRun("neither the items nor the queries have fabric, weather")
    assert outcomes["unwilling"] == NotRun("no seller is known")


def test_only_the_included_and_the_extra_baselines_run(data):
    assert list(tune(data, "popularity", extra=("acme:NEWEST",))) == ["popularity", "newest"]
    assert tune(data) == {}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"extra": ["sellers"]},
            "unknown baseline 'sellers': .*known: .*attributes_in_context",
        ),
        ({"extra": ["ease"]}, "named twice in include and extra: ease"),
        ({"include": ["ease", "ease"]}, "named twice in include and extra: ease"),
        ({"options": {"acme:NEWEST": {}}}, "options for baselines that do not run: acme:NEWEST"),
    ],
)
def test_settings_that_cannot_be_meant_are_usage_errors(values, message):
    with pytest.raises(UsageError, match=message):
        BaselineSettings.parse(values)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("acme:LACKING", {}, "baseline 'acme:LACKING' lacks NEEDS"),
        ("acme:NOTHING", {}, "baseline 'acme:NOTHING' cannot be imported"),
        (
            "acme:NEWEST",
            {"factors": 2},
            "acme:NEWEST.*factors: unknown name; did you mean 'factor'",
        ),
        ("acme:PLAIN", {"factor": 2}, "acme:PLAIN.*factor: unknown name"),
        ("acme:MODEL", {}, "'acme:MODEL' has the NAME 'model', which is taken"),
        ("acme:TWIN", {}, "'acme:TWIN' has the NAME 'popularity', which is taken"),
    ],
)
def test_a_baseline_that_cannot_be_loaded_is_a_usage_error(name, options, message):
    settings = BaselineSettings(extra=(name,), options={name: options} if options else {})
    with pytest.raises(UsageError, match=f"(?s){message}") as raised:
        load_baselines(settings)
    assert str(raised.value).count(name) == 1


def test_a_module_that_cannot_be_executed_is_named(tmp_path, monkeypatch, caplog):
    (tmp_path / "acme_broken.py").write_text("NAME = nothing\n")
    monkeypatch.syspath_prepend(tmp_path)
    caplog.set_level("INFO")
    with pytest.raises(
        RefitError, match="'acme_broken:X' cannot be imported: NameError: name 'nothing'"
    ):
        load_baselines(BaselineSettings(extra=("acme_broken:X",)))
    assert "acme_broken.py" in caplog.text  # the traceback


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        (
            "RAISES",
            RefitError,
            "failed with ValueError: no such seller; correct it, or remove it",
        ),
        ("REFUSES", UsageError, "the sellers must be known"),
        ("RETURNS_NOTHING", RefitError, "returned None; it must return Tuned or NotRun"),
        ("CHOOSES_ARRAYS", RefitError, "float32 is not JSON serializable"),
        ("SCORES_RAISE", RefitError, "failed with ValueError: no such seller"),
        ("SCORES_ARE_FEW", RefitError, r"its scores have the shape \(\d+, 1\), not \(\d+, \d\d\)"),
        ("SCORES_ARE_NAN", RefitError, "of its scores are no finite numbers"),
        ("MEASURES_A_COLUMN", RefitError, r"its scores have the shape \(\d+, 1\)"),
    ],
)
def test_a_baseline_that_fails_ends_the_evaluation(folders, tmp_path, name, kind, message):
    settings = with_baselines("popularity", f"acme:{name}")
    with pytest.raises(kind, match=f"baseline 'acme:{name}'.*{message}"):
        evaluate(settings, *folders, tmp_path / "evaluation")
    assert not (tmp_path / "evaluation").exists()


def test_results_gate_and_report_have_the_added_baseline(folders, tmp_path):
    out = tmp_path / "evaluation"
    settings = with_baselines("popularity", extra=("acme:NEWEST", "acme:NEEDY"))
    required = ("newest", "acme:NEEDY")
    settings = settings.model_copy(update={"required_baselines": required})
    verdict = evaluate(settings, *folders, out)
    results = Results.parse(read_json(out / "metrics.json"))
    names = [(m.name, m.extension) for m in results.methods[1:]]
    assert names == [
        ("popularity", "popularity"),
        ("newest", "acme:NEWEST"),
        ("needy", "acme:NEEDY"),
    ]
    assert results.methods[2].gain["hit_rate_at_10"].low > 0
    reasons = " | ".join(verdict.reasons)
    assert "gain over newest" not in reasons
    assert "gain over acme:NEEDY was not measured: neither the items" in reasons
    for page in ("report.html", "report.md"):
        text = (out / page).read_text()
        assert "newest" in text
        assert "not run: neither the items" in text


def test_the_first_of_equals_is_the_best():
    assert pick_best([3, 1, 2], lambda value: -abs(value - 1.5)) == (1, -0.5)


def test_added_scores_are_measured_like_their_sum(data):
    validation = ValidationSet(data, SETTINGS)
    scorer = Newest()
    scores = validation.score(scorer)
    assert validation.measure(scorer) == validation.measure_scores(scores)
    doubled = [block + block for block in scores]
    assert validation.measure(scorer, scores) == validation.measure_scores(doubled)


def test_shared_results_are_computed_once(data):
    validation, calls = ValidationSet(data, SETTINGS), []

    def count(of):
        calls.append(of)
        return len(calls)

    assert [validation.shared(count), validation.shared(count)] == [1, 1]
    assert calls == [validation]

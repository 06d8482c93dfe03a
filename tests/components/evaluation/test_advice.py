"""Where baselines win, and what follows: figures made by hand."""

from pathlib import Path

import pytest

from components.evaluation.advice import advise, find_wins
from components.evaluation.results import (
    Interval,
    Method,
    PositiveInHistory,
    Results,
    SliceResult,
)
from components.evaluation.settings import EvaluationSettings
from refit.features import FeatureSpec
from refit.files import write_json

METRIC = "hit_rate_at_10"
SETTINGS = EvaluationSettings(cuts=(10,), metric=METRIC, guard_metric=METRIC, slice_min_n=50)
SPEC = FeatureSpec(
    item_categorical=("brand", "size"),
    context_categorical=("occasion",),
    popularity_by=("occasion",),
    popularity_half_lives_days=(7.0, 30.0),
    history_length=20,
)


def value(at: float | None) -> Interval:
    return Interval(value=at)


def gain(low: float, high: float) -> Interval:
    return Interval(value=(low + high) / 2, low=low, high=high)


def method(name: str, kind: str, at: float | None, extension: str = "", **more) -> Method:
    return Method(name=name, kind=kind, extension=extension, metrics={METRIC: value(at)}, **more)


def results(*baselines: Method, model: float = 0.2, **more) -> Results:
    return Results(
        protocol={},
        n_queries=1000,
        n_users=500,
        methods=(method("model", "model", model), *baselines),
        **more,
    )


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model folder of a training whose recall rose to its end."""
    write_model(tmp_path, recalls=(0.1, 0.2), chosen=2)
    return tmp_path


def write_model(folder: Path, recalls, chosen: int, **settings) -> None:
    training = {
        "max_epochs": 2, "id_embedding": False, "gate_l2": 0.0001, "learned_size": 48,
        "learning_rate": 0.003, **settings,
    }  # fmt: skip
    epochs = [{"number": i, "recall": r} for i, r in enumerate(recalls, 1)]
    write_json(
        folder / "model.json", {"settings": training, "chosen_epoch": chosen, "epochs": epochs}
    )


COOCCURRENCE = method(
    "co-occurrence", "baseline", 0.18, "cooccurrence", gain={METRIC: gain(0.01, 0.03)}
)
KNOWN = SliceResult(
    name="known users",
    n=300,
    metrics={"model": value(0.2161), "co-occurrence": value(0.2611)},
    gain={"co-occurrence": gain(-0.06, -0.03)},
)


def test_wins_are_slices_in_which_a_baseline_is_better_the_whole_first():
    popular = method("popularity", "baseline", 0.21, "popularity", gain={METRIC: gain(-0.03, 0.01)})
    small = SliceResult(name="size: M", n=49, metrics={"model": value(0.0), "popularity": value(1)})
    equal = SliceResult(
        name="new users", n=700, metrics={"model": value(0.2), "popularity": value(0.2)}
    )
    silent = SliceResult(name="new items", n=60, metrics={"model": value(0.2)})
    found = results(popular, COOCCURRENCE, slices=(small, equal, silent, KNOWN))
    whole, known = find_wins(found, SETTINGS)
    assert (whole.slice, whole.baseline, whole.n) == ("all queries", "popularity", 1000)
    assert whole.lost == pytest.approx(10.0)
    assert not whole.shown
    assert (known.slice, known.baseline) == ("known users", "co-occurrence")
    assert known.lost == pytest.approx(13.5)
    assert known.shown


def test_a_baseline_that_was_not_run_wins_nowhere(model):
    silent = method("EASE", "baseline", None, "ease", not_run="no memory")
    assert find_wins(results(silent), SETTINGS) == ()
    assert advise(results(silent), (), SPEC, model) == ()


def test_where_histories_win_ids_and_longer_histories_are_tried(model):
    known = PositiveInHistory(within_hour=0.0, within_day=0.05, older=0.16, n=1000)
    found = results(COOCCURRENCE, slices=(KNOWN,), positive_in_history=known)
    first, itself, epochs, last = advise(found, find_wins(found, SETTINGS), SPEC, model)
    assert first == (
        "co-occurrence wins on known users, 0.2611 against 0.2161 (n = 300): it goes by the items "
        "that people met before, which the towers miss. Of 21.0% of the test queries the item "
        "stands in the history. Try items that are recognised (training.id_embedding, now false) "
        "and longer histories (features.spec.history_length, now 20), and an encoder that reads "
        "histories in order."
    )
    assert "evaluation.serve_baseline: true" in itself
    assert epochs == (
        "Validation recall still rose in the last epoch (0.1000 to 0.2000): raise "
        "training.max_epochs, now 2."
    )
    assert "refit tune" in last


def context_wins(factors: list[str], half_life: float = 10.0) -> Results:
    return results(
        method(
            "popularity in context",
            "baseline",
            0.3,
            "popularity_in_context",
            tuned={"factors": factors, "half_life_days": half_life},
        )
    )


@pytest.mark.parametrize(
    ("factors", "half_life", "advice"),
    [
        (["item", "item | height (snapshots)"], 10.0, "add height to features.spec.popularity_by"),
        (["item", "item | occasion"], 120.0, "It forgets half in 120 days, the towers' counts in"),
        (["item", "item | occasion"], 14.0, "a larger training.gate_l2, now 0.0001"),
    ],
)
def test_where_context_wins_its_columns_or_half_lives_are_tried(model, factors, half_life, advice):
    found = context_wins(factors, half_life)
    first = advise(found, find_wins(found, SETTINGS), SPEC, model)[0]
    assert first.startswith("popularity in context wins on all queries, 0.3000 against 0.2000")
    assert advice in first


@pytest.mark.parametrize(
    ("factors", "advice"),
    [
        (["colour | occasion"], "colour in features.spec.item_categorical"),
        (["brand | height"], "height in features.spec.context_categorical"),
        (["brand | latest brand"], "the latest item of a history"),
        (["brand | occasion"], "a larger training.learned_size, now 48"),
    ],
)
def test_where_attributes_win_what_they_count_is_tried(model, factors, advice):
    winner = method(
        "attributes in context",
        "baseline",
        0.3,
        "attributes_in_context",
        tuned={"factors": factors, "half_life_days": 7.0},
    )
    found = results(winner)
    assert advice in advise(found, find_wins(found, SETTINGS), SPEC, model)[0]


def test_where_cold_listings_lose_their_content_is_named(model):
    cold = SliceResult(
        name="listed within 24 h",
        n=100,
        metrics={"model": value(0.01), "co-occurrence": value(0.05)},
    )
    found = results(COOCCURRENCE, slices=(cold,))
    texts = advise(found, find_wins(found, SETTINGS), SPEC, model)
    (text,) = [text for text in texts if text.startswith("Listings of the first 24 hours")]
    assert "0.0100 against 0.0500 of co-occurrence (10.0% of the queries)" in text
    assert "no vector of pictures or texts (features.spec.item_vector) and no text" in text


def test_a_recall_that_fell_at_once_asks_for_a_smaller_rate(tmp_path):
    write_model(tmp_path, recalls=(0.3, 0.2), chosen=1)
    found = context_wins(["item"])
    assert "lower training.learning_rate, now 0.003" in " ".join(
        advise(found, find_wins(found, SETTINGS), SPEC, tmp_path)
    )


def test_a_baseline_of_ones_own_is_named_with_its_figures(model):
    found = results(method("lucky", "baseline", 0.25, "acme.lucky"))
    assert advise(found, find_wins(found, SETTINGS), SPEC, model)[0].startswith(
        "lucky wins on all queries, 0.2500 against 0.2000 (n = 1,000"
    )

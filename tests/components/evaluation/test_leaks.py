"""What each group of inputs is worth, on tiny towers whose inputs are known to matter or not."""

from copy import copy
from dataclasses import replace

import numpy as np
import pytest

from components.evaluation.data import EvaluationData
from components.evaluation.leak_checks import check_leaks
from components.evaluation.leak_settings import LeakSettings, check_intended, list_groups
from components.evaluation.leaks import hunt_leaks, share_of, thin_out
from components.evaluation.ranking import Ranking, build_evaluation_set
from components.evaluation.report import limit
from components.evaluation.results import GroupWorth, Interval, LeakResults, Results
from components.evaluation.settings import EvaluationSettings
from components.evaluation.towers import load_model
from refit.features import FeatureSpec
from tests.factories import MANIFEST, example, item, make_market, make_model, write_features

SETTINGS = EvaluationSettings(
    cuts=(1, 5),
    metric="hit_rate_at_5",
    guard_metric="hit_rate_at_1",
    min_queries=100,
    replicates=200,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return EvaluationData(make_market(tmp_path_factory.mktemp("leaks") / "features", rolling=True))


@pytest.fixture(scope="module")
def evaluation_set(data):
    return build_evaluation_set(data, "test")


@pytest.fixture(scope="module")
def hunt(data, evaluation_set, tmp_path_factory):
    def run(kind="perfect", popularity=50, settings=SETTINGS):
        towers = load_model(data, make_model(tmp_path_factory.mktemp(kind) / "model", kind=kind))
        ranks = np.full(len(evaluation_set.queries), popularity, dtype=np.int32)
        empty = np.empty((0, 0))
        ranking = Ranking(ranks, empty, empty, ranks, 0, {})
        return hunt_leaks(settings, evaluation_set, towers, {"popularity": ranking})

    return run


@pytest.fixture(scope="module")
def perfect(hunt):
    return {group.name: group for group in hunt().groups}


def checks_of(leaks, settings=SETTINGS):
    results = Results(protocol={}, n_queries=240, n_users=33, leaks=leaks)
    return {check.name: check.failure for check in check_leaks(settings, results)}


def test_every_input_of_the_spec_is_in_one_group(perfect):
    columns = {f"items.{c}" for c in ("brand", "category_1", "size", "price", "x", "y")}
    columns |= {f"events.{c}" for c in ("occasion", "want_x", "want_y")}
    history = {f"history.{age}" for age in ("last_hour", "last_day", "older")}
    assert perfect.keys() == columns | history | {"popularity", "item_age"}


def test_a_model_owes_its_gain_to_what_it_reads_and_to_nothing_else(perfect):
    for name in ("items.x", "items.y", "events.want_x", "events.want_y"):
        assert perfect[name].share > 0.3, name
        assert perfect[name].fall.low > 0.2, name
    for name in perfect.keys() - {"items.x", "items.y", "events.want_x", "events.want_y"}:
        fall = perfect[name].fall
        assert (fall.value, fall.low, fall.high) == (0.0, 0.0, 0.0), name
        assert perfect[name].share == 0.0


def test_a_view_a_minute_before_its_purchase_is_found(tmp_path):
    random = np.random.default_rng(0)
    angles = 2 * np.pi * np.arange(40) / 40
    items = [item(i, x=float(np.cos(a)), y=float(np.sin(a))) for i, a in enumerate(angles)]
    minute = 1 / 24 / 60

    def visits(first, last, n):
        times = np.sort(random.uniform(first, last, n))
        for number, at in enumerate(times):
            user, chosen = f"u{number % 30}", int(random.integers(40))
            yield example(user, chosen, float(at), event_type="view")
            yield example(user, chosen, float(at) + minute)

    splits = {"train": (0, 10, 60), "validation": (11, 12, 20), "test": (13, 20, 200)}
    rows = {split: list(visits(*window)) for split, window in splits.items()}
    features = write_features(tmp_path / "features", items, rows, [0.0, 11.0, 13.0, 21.0])
    found = EvaluationData(features)
    queries = build_evaluation_set(found, "test")
    towers = load_model(found, make_model(tmp_path / "model", kind="last"))
    last = np.full(len(queries.queries), 40, dtype=np.int32)
    empty = np.empty((0, 0))
    popularity = Ranking(last, empty, empty, last, 0, {})
    leaks = hunt_leaks(SETTINGS, queries, towers, {"popularity": popularity})
    shares = {group.name: group.share for group in leaks.groups}
    assert shares["history.last_hour"] > 0.5
    assert shares["history.last_day"] < 0.2
    assert shares["events.want_x"] == 0.0
    failure = checks_of(leaks)["share of the gain that history.last_hour carries"]
    assert "give session_id" in failure


def test_ids_are_a_group_where_the_item_tower_reads_them(hunt, perfect):
    assert "item_id" not in perfect
    assert "item_id" in {group.name for group in hunt("random").groups}


def test_what_carries_too_much_is_refused_by_name_with_what_to_do(hunt):
    failures = checks_of(hunt())
    found = failures["share of the gain that events.want_x carries"]
    assert "at most 0.1 is allowed" in found
    assert "name events.want_x in evaluation.leaks.intended" in found
    assert "give its versions" in failures["share of the gain that items.x carries"]
    assert failures["share of the gain that items.price carries"] is None
    assert not any("brand" in name or "popularity" in name for name in failures)


def test_what_is_named_as_intended_has_no_limit(hunt):
    intended = ("items.x", "items.y", "events.want_x", "events.want_y")
    settings = SETTINGS.model_copy(update={"leaks": LeakSettings(intended=intended)})
    failures = checks_of(hunt(settings=settings), settings)
    assert not any(failures.values())
    assert "share of the gain that events.occasion carries" in failures


def test_what_changes_from_version_to_version_has_no_limit(data, evaluation_set, tmp_path):
    towers = load_model(data, make_model(tmp_path / "model", kind="perfect"))
    versioned = copy(data)
    versioned.manifest = data.manifest.model_copy(update={"versioned": ("items.x", "users.age")})
    ranks = np.full(len(evaluation_set.queries), 50, dtype=np.int32)
    popularity = Ranking(ranks, np.empty((0, 0)), np.empty((0, 0)), ranks, 0, {})
    leaks = hunt_leaks(
        SETTINGS, replace(evaluation_set, data=versioned), towers, {"popularity": popularity}
    )
    groups = {group.name: group for group in leaks.groups}
    assert not groups["items.x"].limited
    assert groups["items.y"].limited
    assert limit(groups["items.x"], SETTINGS.leaks) == "none: in versions, as of the moment"
    assert limit(groups["items.brand"], SETTINGS.leaks) == "none: part of the listing"


def test_a_listing_column_has_a_limit_when_it_is_left_out():
    free = LeakResults(
        n=500,
        gain=Interval(value=0.3, low=0.2, high=0.4),
        groups=(GroupWorth(name="items.title", kind="item", share=0.5, limited=True),),
    )
    assert "items.title" in checks_of(free).popitem()[1]


def test_shares_are_not_measured_without_the_popularity_baseline(data, evaluation_set, tmp_path):
    towers = load_model(data, make_model(tmp_path / "model"))
    leaks = hunt_leaks(SETTINGS, evaluation_set, towers, {})
    assert all("does not run popularity" in failure for failure in checks_of(leaks).values())


def test_shares_are_not_measured_where_the_model_gains_nothing(hunt):
    leaks = hunt("random", popularity=1)
    failures = checks_of(leaks)
    assert failures
    assert all("gains nothing over popularity" in failure for failure in failures.values())


def test_what_was_not_measured_at_all_fails():
    assert "was not measured" in checks_of(LeakResults()).popitem()[1]


def test_a_thin_sample_fails(hunt):
    settings = SETTINGS.model_copy(update={"min_queries": 100_000})
    assert all("rests on" in failure for failure in checks_of(hunt(), settings).values())


@pytest.mark.parametrize(
    ("fall", "gain", "share"),
    [
        (Interval(value=0.1, low=0.05, high=0.2), 0.4, 0.25),
        (Interval(value=0.1, low=-0.01, high=0.2), 0.4, 0.0),
        (Interval(value=-0.1, low=-0.2, high=-0.05), 0.4, 0.0),
        (Interval(), 0.4, None),
        (Interval(value=0.1, low=0.05, high=0.2), 0.0, None),
        (Interval(value=0.1, low=0.05, high=0.2), None, None),
    ],
)
def test_a_share_needs_a_fall_beyond_chance_and_a_gain(fall, gain, share):
    assert share_of(fall, Interval(value=gain)) == share


def test_the_sample_is_thinned_by_queries_and_by_candidates(evaluation_set):
    everything = thin_out(evaluation_set, SETTINGS)
    assert (everything.positions == np.arange(len(evaluation_set.queries))).all()
    few = SETTINGS.model_copy(update={"leaks": LeakSettings(queries=60, items=1)})
    sample = thin_out(evaluation_set, few)
    assert len(sample.positions) == len(sample.evaluation_set.queries) == 60
    assert len(sample.evaluation_set.groups) == 1
    rows = evaluation_set.queries.rows[sample.positions]
    assert (sample.evaluation_set.queries.rows == rows).all()


def test_intended_groups_are_checked():
    with pytest.raises(ValueError, match="no group of inputs with a limit"):
        LeakSettings(intended=("popularity",))
    settings = LeakSettings(intended=("events.occassion",))
    with pytest.raises(ValueError, match=r"events\.occassion.*it has .*events\.occasion"):
        check_intended(settings, MANIFEST.spec)


def test_a_column_of_items_and_of_users_are_two_groups():
    spec = FeatureSpec(item_categorical=("size",), user_categorical=("size",), item_vector="v")
    names = [group.name for group in list_groups(spec)]
    assert {"items.size", "users.size", "items.v"} <= set(names)
    assert len(names) == len(set(names))

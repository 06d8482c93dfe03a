"""The whole step on a tiny market with real SavedModels, a real index and a real model server."""

import re
import shutil
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow.parquet as pq
import pytest

from components.evaluation.data import EvaluationData
from components.evaluation.evaluate import Champion, evaluate
from components.evaluation.freshness import measure_freshness
from components.evaluation.index_check import check_index
from components.evaluation.leak_settings import LeakSettings
from components.evaluation.predictions import write_predictions
from components.evaluation.ranking import build_evaluation_set, rank
from components.evaluation.results import Results
from components.evaluation.settings import (
    BaselineSettings,
    EvaluationSettings,
    FreshnessSettings,
    SliceFloor,
)
from components.evaluation.slices import cut_slices
from components.evaluation.smoke import SmokeTest
from components.evaluation.towers import TowerScorer, load_champion, load_model
from refit.bundle import find_build_time
from refit.champion_features import ChampionFeatures
from refit.dataset import DatasetManifest, RowCounts, Split
from refit.errors import DataValidationError, RefitError, UsageError
from refit.features import FeaturesManifest
from refit.files import read_json, write_json
from refit.ledger import Ledger
from refit.prediction import PREDICTION_SCHEMA
from refit.verdict import Verdict
from tests.factories import (
    MANIFEST,
    example,
    item,
    make_index,
    make_market,
    make_model,
    write_features,
)

SETTINGS = EvaluationSettings(
    cuts=(1, 5, 10),
    metric="hit_rate_at_5",
    guard_metric="hit_rate_at_1",
    min_queries=100,
    min_users=10,
    slice_floors=(SliceFloor(slice="known users", needs_n=20),),
    slice_min_n=10,
    replicates=200,
    examples=3,
    prediction_queries=50,
    max_index_p99_ms=10_000.0,
    baselines=BaselineSettings(tuning_queries=100),
    leaks=LeakSettings(intended=("items.x", "items.y", "events.want_x", "events.want_y")),
)
NO_SERVER = SETTINGS.model_copy(update={"smoke_test": ()})


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("evaluation")
    features = make_market(base / "features", rolling=True)
    found = {"features": features}
    for kind in ("perfect", "random", "nan"):
        found[kind] = make_model(base / kind, kind=kind)
    found["index"] = make_index(base / "index", features, found["perfect"])
    found["random_index"] = make_index(base / "random_index", features, found["random"])
    return found


@pytest.fixture(scope="module")
def passed(folders, tmp_path_factory):
    out = tmp_path_factory.mktemp("passed") / "evaluation"
    champion = folders["random"]
    verdict = evaluate(
        SETTINGS, folders["features"], folders["perfect"], folders["index"], out, champion
    )
    return verdict, out


def test_a_perfect_model_passes_with_everything_at_one(passed):
    verdict, out = passed
    assert verdict.passed, verdict.reasons
    assert Verdict.parse(read_json(out / "verdict.json")) == verdict
    results = Results.parse(read_json(out / "metrics.json"))
    model = results.methods[0]
    for name, found in model.metrics.items():
        assert (name, found.value, found.low, found.high) == (name, 1.0, 1.0, 1.0)
    assert set(results.smoke) == {"query_tower", "item_tower"}
    assert all(smoke.n > 0 and smoke.gap < 1e-6 for smoke in results.smoke.values())
    champion = next(m for m in results.methods if m.kind == "champion")
    assert champion.metrics["hit_rate_at_5"].value < 0.5
    assert champion.gain["hit_rate_at_5"].low > 0
    assert {m.name for m in results.of_kind("baseline")} > {"popularity", "co-occurrence", "EASE"}
    assert results.wins == results.advice == ()


def test_the_folder_is_complete_and_the_page_needs_no_network(passed):
    _, out = passed
    names = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    assert names == {
        "health.json",
        "metrics.json",
        "verdict.json",
        "report.html",
        "report.md",
        "predictions.parquet",
        "pictures/methods.png",
        "pictures/slices.png",
        "pictures/leaks.png",
    }
    page = (out / "report.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert page.count("<h1") == 1
    assert all(re.search(r'alt="[^"]{10,}"', image) for image in re.findall(r"<img[^>]*>", page))
    for text in (page, (out / "report.md").read_text()):
        assert text.index("Passed") < text.index("Checks of the gate")
        assert "popularity in context" in text
        assert "not recorded with the features" in text
        assert "What each group of inputs is worth" in text
        assert "events.want_x" in text


def test_predictions_are_the_answers_of_the_model(passed, folders):
    _, out = passed
    table = pq.read_table(out / "predictions.parquet")
    assert table.schema.equals(PREDICTION_SCHEMA)
    assert table.num_rows == 50
    data = EvaluationData(folders["features"]).of_requests()
    requests = data.queries["requests"].rows
    wanted = data.catalogue.item_id[data.log.item[requests]]
    positive = dict(zip([f"offline-{row}" for row in requests], wanted, strict=True))
    for row in table.to_pylist():
        assert row["item_ids"][0] == positive[row["request_id"]]
        assert len(row["item_ids"]) == len(row["scores"]) == 10
        assert row["scores"] == sorted(row["scores"], reverse=True)
        assert len(row["query_embedding"]) == 2
        assert (
            row["embedding_version"]
            == read_json(folders["perfect"] / "model.json")["embedding_version"]
        )
    times = table["time"].to_pylist()
    assert times == sorted(times)
    assert {time.date() for time in times} == {time.date() for time in _times(folders, "requests")}
    visitors = {user for user in table["user_id"].to_pylist() if user.startswith("visitor")}
    assert visitors, "visits without a purchase are answered as well"
    buyers = EvaluationData(folders["features"])
    bought = {buyers.log.user_ids[n] for n in buyers.log.user[buyers.queries["test"].rows]}
    assert not visitors & bought


def _times(folders, name):
    return pq.read_table(folders["features"] / f"examples/{name}.parquet")["event_time"].to_pylist()


def test_requests_are_answered_from_live_items_without_own_listings(tmp_path):
    far = example("seller", 2, 11.0, event_type="view", want_x=1.0, want_y=0.0)
    features = write_features(
        tmp_path / "features",
        [
            item(0, x=0.9, known_at=0.0, seller_id="seller"),
            item(1, x=0.8, known_at=11.5),
            item(2, x=0.7, known_at=0.0, gone_at=11.2),
            item(3, x=0.6, known_at=0.0),
        ],
        {
            "train": [example("u", 3, 1.0)],
            "validation": [example("u", 3, 9.0)],
            "test": [example("u", 3, 12.0)],
            "requests": [far, {**far, "user_id": "u", "at": 11.6}],
        },
        [0.0, 9.0, 10.0, 13.0],
    )
    data = EvaluationData(features)
    towers = load_model(data, make_model(tmp_path / "model"))
    write_predictions(tmp_path / "predictions.parquet", data, towers, "t", NO_SERVER)
    first, second = pq.read_table(tmp_path / "predictions.parquet").to_pylist()
    assert first["item_ids"] == ["i2", "i3"]
    assert second["item_ids"] == ["i0", "i1", "i3"]
    assert find_ages(tmp_path / "predictions.parquet") == [0, 0]
    aged = NO_SERVER.model_copy(update={"prediction_index_ages_days": (4,)})
    write_predictions(tmp_path / "aged.parquet", data, towers, "t", aged)
    # There is no snapshot of 6.0; the one before it is of 0.0, ten days older than the newest.
    assert find_ages(tmp_path / "aged.parquet") == [10, 10]
    (features / "examples/requests.parquet").unlink()
    with pytest.raises(DataValidationError, match="run the feature step again"):
        write_predictions(tmp_path / "predictions.parquet", data, towers, "t", NO_SERVER)


def find_ages(predictions):
    """Of the indexes that answered, in whole days, from the ids of their bundles."""
    return [
        (row["time"] - find_build_time(row["bundle_id"])) // timedelta(days=1)
        for row in pq.read_table(predictions).to_pylist()
    ]


def test_a_random_model_is_refused_and_its_folder_replaces_the_old_one(folders, tmp_path):
    out = tmp_path / "evaluation"
    (out / "old").mkdir(parents=True)
    verdict = evaluate(
        NO_SERVER,
        folders["features"],
        folders["random"],
        folders["random_index"],
        out,
        folders["perfect"],
    )
    reasons = " | ".join(verdict.reasons)
    assert not verdict.passed
    assert not (out / "old").exists()
    assert "gain over popularity in context" in reasons
    assert "gain over the champion" in reasons
    assert "the settings name no model server" in reasons
    page, text = ((out / f"report.{suffix}").read_text() for suffix in ("html", "md"))
    assert "Refused" in page
    results = Results.parse(read_json(out / "metrics.json"))
    assert results.wins[0].slice == "all queries"
    assert results.wins[0].shown
    assert {win.slice for win in results.wins} >= {"known users", "known items"}
    part = next(part for part in results.slices if part.name == "known users")
    best = next(win for win in results.wins if win.slice == "known users")
    assert best.gain.value == pytest.approx(best.model - best.value)
    assert best.gain == part.gain[best.baseline]
    assert results.advice[-1].startswith("The settings of the training are tried")
    for shown in (page, text):
        assert "Where baselines were better" in shown
        assert "popularity in context wins on" in shown or "attributes in context wins" in shown


def test_every_judgement_is_kept_and_a_second_model_is_a_second_look(folders, tmp_path):
    registry = str(tmp_path / "registry")
    champion = folders["perfect"]

    def judge(kind, **more):
        settings = NO_SERVER.model_copy(update=more)
        parts = (folders["features"], folders[kind], folders["random_index"])
        evaluate(settings, *parts, tmp_path / "e", champion, registry=registry)
        return Results.parse(read_json(tmp_path / "e/metrics.json")).looks

    assert judge("random").number == 1
    assert judge("nan", seed=8).number == 2
    assert "This is look 2 at this test window" in (tmp_path / "e/report.html").read_text()
    assert "This is look 2 at this test window" in (tmp_path / "e/report.md").read_text()
    assert judge("random", max_queries=100).number == 1, "the same model again"
    first, second, third = Ledger(registry).read()
    assert {one.result for one in (first, second, third)} == {"refused"}
    assert any("gain over popularity" in reason for reason in first.reasons)
    assert first.window == second.window == third.window
    assert first.window.queries > 100
    assert first.model == third.model != second.model
    assert first.settings != third.settings
    assert first.champion == read_json(champion / "model.json")["embedding_version"]
    assert first.value < 1.0
    assert first.gains["champion"] < 0


def test_without_a_ledger_that_can_be_read_there_is_no_verdict(folders, tmp_path):
    registry = tmp_path / "registry"
    (registry / "ledger").mkdir(parents=True)
    (registry / "ledger" / "torn.json").write_text("{")
    parts = (folders["features"], folders["random"], folders["random_index"])
    with pytest.raises(RefitError, match=r"torn.json is not a judgement"):
        evaluate(NO_SERVER, *parts, tmp_path / "e", registry=str(registry))
    assert not (tmp_path / "e").exists()


def test_broken_towers_are_refused(folders, tmp_path):
    verdict = evaluate(
        NO_SERVER, folders["features"], folders["nan"], folders["index"], tmp_path / "e"
    )
    reasons = " | ".join(verdict.reasons)
    assert "non-finite scores of the model is" in reasons
    assert "index built with the model's towers (1 = yes) is 0" in reasons
    assert "largest difference from the item tower was not measured" in reasons


def test_a_model_of_other_features_is_a_usage_error(folders, tmp_path):
    model = shutil.copytree(folders["perfect"], tmp_path / "model")
    MANIFEST.model_copy(update={"popularity_values": {"occasion": ("party",)}}).write(model)
    with pytest.raises(UsageError, match="another popularity_values"):
        evaluate(NO_SERVER, folders["features"], model, folders["index"], tmp_path / "e")


@pytest.fixture(scope="module")
def data(folders):
    return EvaluationData(folders["features"])


def changed_champion(folders, tmp_path, **spec):
    champion = shutil.copytree(folders["perfect"], tmp_path / "champion")
    changed = MANIFEST.spec.model_copy(update=spec)
    MANIFEST.model_copy(update={"spec": changed}).write(champion)
    return champion


def load_champion_on(data, bundle, own):
    """The scorer of a champion that has features of its own, or why it is not comparable."""
    loaded = Champion("champion", bundle.name, bundle, features=own).load(data)
    return loaded if isinstance(loaded, str) else loaded[0]


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"item_categorical": ("brand", "fabric")}, "no column 'fabric'"),
        ({"history_length": 9}, "takes 9 history items"),
        ({"event_weights": {"view": 1.0}}, "another event_weights"),
        ({"popularity_bins": {"occasion": (1.0,)}}, "other popularity_bins of occasion"),
    ],
)
def test_a_champion_with_other_inputs_is_not_comparable(folders, data, tmp_path, spec, why):
    assert why in load_champion(data, changed_champion(folders, tmp_path, **spec))


def test_a_champion_with_another_spec_is_judged_on_its_own_features(folders, tmp_path):
    """The model's features have shorter histories and other weights; the ranks are the same."""
    ours = shutil.copytree(folders["features"], tmp_path / "ours")
    spec = MANIFEST.spec.model_copy(update={"history_length": 1, "event_weights": {"view": 1.0}})
    manifest = FeaturesManifest.read(ours)
    manifest.model_copy(update={"spec": spec}).write(ours)
    data = EvaluationData(ours)
    assert "3 history items" in load_champion(data, folders["perfect"])
    own = tmp_path / "own"
    shutil.copytree(folders["features"], own / "tables")
    ChampionFeatures(champion="b1", needed=True).write(own)
    scorer = load_champion_on(data, folders["perfect"], own)
    judged, alone = build_evaluation_set(data, "test"), EvaluationData(folders["features"])
    ranks = rank(scorer, judged, 5).rank
    expected = rank(load_model(alone, folders["perfect"]), build_evaluation_set(alone, "test"), 5)
    assert ranks.tolist() == expected.rank.tolist()


def test_a_champion_whose_own_features_lack_queries_is_not_comparable(folders, data, tmp_path):
    own = tmp_path / "own"
    tables = shutil.copytree(folders["features"], own / "tables")
    examples = pq.read_table(tables / "examples" / "test.parquet")
    pq.write_table(examples[1:], tables / "examples" / "test.parquet")
    ChampionFeatures(champion="b1", needed=True).write(own)
    assert "lack the query" in load_champion_on(data, folders["perfect"], own)
    ChampionFeatures(champion="b1", needed=True, problem="no column 'fabric'").write(own)
    assert "no column 'fabric'" in load_champion_on(data, folders["perfect"], own)
    ChampionFeatures(champion="b1").write(own)
    assert isinstance(load_champion_on(data, folders["perfect"], own), TowerScorer)


def test_a_missing_champion_is_not_comparable(data, tmp_path):
    assert "cannot be loaded" in load_champion(data, tmp_path / "nothing")


def test_a_champions_popularity_is_rearranged(folders, data, tmp_path):
    champion = shutil.copytree(folders["perfect"], tmp_path / "champion")
    spec = MANIFEST.spec.model_copy(update={"popularity_half_lives_days": (30.0, 7.0)})
    values = {"occasion": ("work", "party")}
    theirs = MANIFEST.model_copy(update={"spec": spec, "popularity_values": values})
    theirs.write(champion)
    scorer = load_champion(data, champion)
    snapshot = data.read_candidates(3)
    rearranged = scorer._popularity(snapshot)
    ours = snapshot.popularity  # 7 days: all, party, work
    assert rearranged.shape == (len(snapshot.items), 6)
    assert rearranged[:, 3:] == pytest.approx(ours[:, [0, 2, 1]])
    assert rearranged[:, 0] == pytest.approx(rearranged[:, 1] + rearranged[:, 2], rel=1e-5)
    assert (rearranged[:, 0] >= ours[:, 0] - 1e-6).all()


def test_an_index_is_compared_with_the_towers(folders, data):
    model = load_model(data, folders["perfect"])
    queries = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    whole = check_index(folders["index"], data, model, queries)
    assert (whole.recall, whole.n) == (1.0, 50)
    assert whole.vector_gap < 1e-6
    other = check_index(folders["random_index"], data, model, queries)
    assert "vectors of length 8" in other.why
    assert other.recall is None


def test_an_index_with_vectors_in_another_order_is_detected(folders, data, tmp_path):
    index = shutil.copytree(folders["index"], tmp_path / "index")
    vectors = np.load(index / "vectors.npy")
    np.save(index / "vectors.npy", vectors[::-1])
    model = load_model(data, folders["perfect"])
    queries = np.ones((3, 2), dtype=np.float32)
    assert check_index(index, data, model, queries).vector_gap > 0.1


def test_an_index_without_manifest_is_not_measured(folders, data, tmp_path):
    model = load_model(data, folders["perfect"])
    found = check_index(tmp_path, data, model, np.ones((3, 2), dtype=np.float32))
    assert found.recall is None
    assert "cannot be read" in found.why


def test_a_model_server_that_ends_is_not_measured(folders, tmp_path):
    data = EvaluationData(folders["features"])
    model = load_model(data, folders["perfect"])
    few = data.queries["test"].take(np.arange(3))
    inputs, expected = model.query_inputs(few), model.run_query_tower(few).vectors
    for command, why in (
        (("{python}", "-c", "raise SystemExit('no space')"), "no space"),
        (("/no/such/server",), "FileNotFoundError"),
        (("{python}", "-c", "import time; time.sleep(60)"), "UNAVAILABLE"),
    ):
        settings = SETTINGS.model_copy(update={"smoke_test": command, "smoke_test_seconds": 2.0})
        with SmokeTest(settings, folders["perfect"], "query_tower") as smoke:
            smoke.send(inputs, {"embedding": expected})
            found = smoke.result()
        assert found.gap is None
        assert why in found.why


def test_slices_have_the_right_queries(data):
    evaluation_set = build_evaluation_set(data, "test")
    slices = cut_slices(evaluation_set, SETTINGS)
    items = data.log.item[evaluation_set.queries.rows]
    sizes = np.array(data.catalogue.table["size"].to_pylist(), dtype=object)[items]
    assert (slices["size: M"] == (sizes == "M")).all()
    assert (slices["known users"] == ~evaluation_set.queries.new_user).all()
    bands = [flags for name, flags in slices.items() if name.startswith("price: ")]
    assert (np.sum(bands, axis=0) == 1).all()


def test_the_slice_of_cold_listings_has_items_of_the_last_24_hours(tmp_path):
    """Each item is chosen at day 38.5, from the snapshot of day 38."""
    items = [item(i, known_at=known_at) for i, known_at in enumerate((0.0, 37.4, 37.6, 37.99))]
    early = [example("user", 0, at) for at in (1.0, 31.0)]
    examples = {
        "train": early[:1],
        "validation": early[1:],
        "test": [example(f"user-{i}", i, 38.5) for i in range(4)],
    }
    folder = write_features(tmp_path / "features", items, examples, [0.0, 30.0, 38.0, 40.0])
    data = EvaluationData(folder)
    evaluation_set = build_evaluation_set(data, "test")
    cold = cut_slices(evaluation_set, SETTINGS)["listed within 24 h"]
    items = data.log.item[evaluation_set.queries.rows]
    assert {int(i): bool(flag) for i, flag in zip(items, cold, strict=True)} == {
        0: False,
        1: False,
        2: True,
        3: True,
    }


def test_the_slice_of_cold_listings_is_in_every_report(data, passed):
    assert "listed within 24 h" in cut_slices(build_evaluation_set(data, "test"), SETTINGS)
    _, out = passed
    assert "listed within 24 h" in (out / "report.md").read_text()


def test_a_slice_with_a_floor_is_included_even_if_it_is_empty(data):
    floor = SliceFloor(slice="brand: nobody")
    settings = SETTINGS.model_copy(update={"slice_floors": (floor,)})
    found = cut_slices(build_evaluation_set(data, "test"), settings)
    assert not found["brand: nobody"].any()


def test_the_page_describes_the_dataset(folders, tmp_path):
    features = shutil.copytree(folders["features"], tmp_path / "features")
    days = [datetime(2026, 1, d, tzinfo=UTC) for d in (1, 20, 25, 30)]
    dataset = DatasetManifest(
        source="simulated",
        simulated=True,
        terms="made <up>",
        counts={"events": RowCounts(rows_in=12, kept=10, rejected=1, duplicates=1)},
        split=Split(start=days[0], validation_start=days[1], test_start=days[2], end=days[3]),
        fingerprint="f00",
    )
    manifest = FeaturesManifest.read(features).model_copy(update={"dataset": dataset})
    manifest.write(features)
    evaluate(NO_SERVER, features, folders["perfect"], folders["index"], tmp_path / "e")
    page = (tmp_path / "e" / "report.html").read_text()
    assert "no real people or goods" in page
    assert "made &lt;up&gt;" in page
    assert "10 kept of 12" in page


def champion_trained_until(folders, tmp_path, moment):
    champion = shutil.copytree(folders["random"], tmp_path / "champion")
    written = read_json(champion / "model.json") | {"trained_until": moment}
    write_json(champion / "model.json", written)
    return champion


def find_champion(folders, champion, out):
    verdict = evaluate(
        NO_SERVER, folders["features"], folders["perfect"], folders["index"], out, champion
    )
    return verdict, Results.parse(read_json(out / "metrics.json")).of_kind("champion")[0]


def test_a_champion_is_compared_on_queries_that_it_has_not_seen(folders, data, tmp_path):
    times = data.log.time[data.queries["test"].rows]
    middle = int(np.median(times))
    moment = datetime.fromtimestamp(middle / 1e6, UTC).isoformat()
    champion = champion_trained_until(folders, tmp_path, moment)
    _, found = find_champion(folders, champion, tmp_path / "e")
    n_queries = len(build_evaluation_set(data, "test").queries)
    assert found.n_compared == (times >= middle).sum() < n_queries
    assert found.compared.keys() == found.metrics.keys()
    seen = f"{n_queries - found.n_compared} queries that it has seen are not compared"
    assert seen in (tmp_path / "e" / "report.md").read_text()


def test_a_champion_that_has_seen_every_query_cannot_be_judged(folders, tmp_path):
    champion = champion_trained_until(folders, tmp_path, "2027-01-01T00:00:00+00:00")
    verdict, found = find_champion(folders, champion, tmp_path / "e")
    assert found.n_compared == 0
    assert "queries that it has not seen is 0, at least 100" in " | ".join(verdict.reasons)


def test_a_champion_that_does_not_say_what_it_has_seen_is_not_comparable(folders, tmp_path):
    champion = champion_trained_until(folders, tmp_path, "")
    verdict = evaluate(
        NO_SERVER, folders["features"], folders["perfect"], folders["index"], tmp_path / "e",
        champion,
    )  # fmt: skip
    assert "it does not say when its training ended" in " | ".join(verdict.reasons)


def test_an_identical_twin_differs_by_nothing_and_passes(folders, tmp_path):
    verdict, found = find_champion(folders, folders["perfect"], tmp_path / "e")
    gain = found.gain["hit_rate_at_5"]
    assert (gain.value, gain.low, gain.high, gain.se) == (0.0, 0.0, 0.0, 0.0)
    assert "champion" not in " | ".join(verdict.reasons)


def test_ages_are_counted_from_the_end_of_the_data_or_from_now(folders, data, tmp_path):
    times = data.log.time[data.queries["test"].rows]
    given = (data, folders["perfect"], folders["index"], times)
    found = measure_freshness(SETTINGS, *given)
    assert found.test_days == 0.0
    assert found.overlap_days < 0
    fresh = FreshnessSettings(as_of="now")
    now = measure_freshness(SETTINGS.model_copy(update={"freshness": fresh}), *given)
    days = (datetime.now(UTC) - datetime.fromisoformat(found.as_of)).days
    assert now.test_days == pytest.approx(days, abs=1)
    assert now.model_days > found.model_days


def test_several_relevant_items_are_evaluated_from_end_to_end(folders, tmp_path):
    several = NO_SERVER.model_copy(
        update={
            "relevant": "together",
            "metric": "recall_at_5",
            "baselines": BaselineSettings(include=("popularity", "cooccurrence")),
        }
    )
    evaluate(several, folders["features"], folders["perfect"], folders["index"], tmp_path / "out")
    results = Results.parse(read_json(tmp_path / "out" / "metrics.json"))
    assert results.protocol["relevant"] == "together"
    for method in results.methods:  # here nobody takes two items at one time
        recall, hit_rate = (method.metrics[f"{name}_at_5"] for name in ("recall", "hit_rate"))
        assert recall == hit_rate
    assert results.leaks.metric.value == 1.0
    report = (tmp_path / "out" / "report.md").read_text()
    assert "Refused: recall at 5 is 1.0000" in report
    assert "the events of a user at one time are one query" in report


def test_recall_needs_several_relevant_items():
    with pytest.raises(ValueError, match="unknown metric 'recall_at_5'"):
        EvaluationSettings(cuts=(5,), metric="recall_at_5", guard_metric="hit_rate_at_5")
    EvaluationSettings(
        cuts=(5,), metric="recall_at_5", guard_metric="ndcg_at_5", relevant="together"
    )

"""The lived market writes what the monitor reads, and its stand-in model recommends for real."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from monitoring.measure import measure
from monitoring.reference import Reference
from monitoring.settings import MeasureSettings
from refit.drift import DriftState
from refit.prediction import PREDICTION_SCHEMA
from tests.benchmarks.drift.lived import LivedMarket, LivedSettings, _keep_recent

SMALL = {
    "days": 14,
    "n_shoppers": 400,
    "listings_per_day": 120.0,
    "visits_per_day": 500.0,
    "requests_per_day": 100,
}


@pytest.fixture(scope="module")
def lived(tmp_path_factory):
    market = LivedMarket(SMALL, tmp_path_factory.mktemp("lived"), LivedSettings(refresh_every=2))
    market.live(3)
    return market


def test_the_monitor_can_measure_a_lived_market(lived):
    settings = MeasureSettings()
    reference = Reference.read(lived.build_reference(settings))
    newest = measure(settings, reference, lived.data(), lived.windows(1)).results
    measured = {r.subject for r in newest if r.state is not DriftState.INSUFFICIENT_DATA}
    assert {"query-embedding", "scores", "mix:category_1", "input:items.price"} <= measured
    assert {"input:events.wanted_category", "input:items.image_embedding"} <= measured


def test_the_log_is_a_prediction_log_whose_outcomes_are_events(lived):
    log = pq.read_table(lived.folder / "log", schema=PREDICTION_SCHEMA)
    assert log.num_rows == 3 * SMALL["requests_per_day"]
    assert len(set(log["request_id"].to_pylist())) == log.num_rows
    events = pq.read_table(lived.data().events)
    outcomes = events.filter(pc.is_valid(events["request_id"]))
    assert outcomes.num_rows > 50
    assert set(outcomes["request_id"].to_pylist()) <= set(log["request_id"].to_pylist())


def test_the_model_sells_more_than_a_random_list(lived):
    quality = lived.quality().to_pandas()
    assert quality.chance_of_sale.mean() > 3 * quality.random_chance.mean()
    assert list(quality.index_age) == [0, 1, 0]


def test_vectors_have_unit_length_and_one_version(lived):
    log = pq.read_table(lived.folder / "log", schema=PREDICTION_SCHEMA)
    queries = np.stack(log["query_embedding"].to_pylist())
    assert np.allclose(np.linalg.norm(queries, axis=1), 1.0, atol=1e-4)
    assert set(log["embedding_version"].to_pylist()) == {lived.embedding_version}


def test_a_holdout_gets_what_is_popular(lived, tmp_path):
    fork = lived.fork(tmp_path / "fork")
    fork.operate(holdout=0.3)
    fork.live(1)
    newest = sorted((fork.folder / "log").iterdir())[-1]
    log = pq.read_table(newest / "part-0.parquet").to_pandas()
    held = log.fallback == "holdout"
    assert 0.1 < held.mean() < 0.5
    assert not set(log.user_id[held]) & set(log.user_id[~held])
    assert fork.quality()["requests"][-1].as_py() == (~held).sum()
    shown = [frozenset(items) for items in log.item_ids]
    assert len(set(log.index[held].map(shown.__getitem__))) < held.sum(), "popular for many"


def test_a_fork_lives_on_by_itself_and_a_refit_has_new_towers(lived, tmp_path):
    before = lived.embedding_version
    fork = lived.fork(tmp_path / "fork")
    fork.refit()
    fork.live(1)
    assert fork.embedding_version != before == lived.embedding_version
    assert fork.quality().num_rows == lived.quality().num_rows + 1
    assert len(list((lived.folder / "log").iterdir())) == lived.quality().num_rows
    assert fork.predictions.is_relative_to(fork.folder)


def test_the_same_settings_live_the_same_days(tmp_path):
    days = []
    for name in ("one", "two"):
        market = LivedMarket(SMALL, tmp_path / name)
        market.live(1)
        days.append(market.quality())
    assert days[0].equals(days[1])


def test_a_fault_shows_in_what_is_exported_and_not_in_what_is_true(tmp_path):
    def free_items(tables, _):
        items = tables["items"]
        place = items.column_names.index("price")
        return {
            **tables,
            "items": items.set_column(place, "price", pc.multiply(items["price"], 100.0)),
        }

    market = LivedMarket(SMALL, tmp_path, faults=(free_items,))
    written = pc.mean(pq.read_table(market.data().items)["price"]).as_py()
    assert written == pytest.approx(100 * pc.mean(market.true_tables()["items"]["price"]).as_py())


def test_recent_events_are_kept_wherever_they_are():
    events = pa.table({"day": [1, 2, 3, 4]})
    for recent, kept in (
        ([False, False, True, True], [3, 4]),
        ([True, None, True, True], [1, 3, 4]),
        ([False] * 4, []),
    ):
        found = _keep_recent(events, pa.chunked_array([pa.array(recent, pa.bool_())]))
        assert found["day"].to_pylist() == kept

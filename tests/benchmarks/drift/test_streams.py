"""The bench on real streams, on a shop whose customers change their taste once."""

import dataclasses
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from refit.alert import Action
from refit.drift import DriftState
from refit.prediction import PREDICTION_SCHEMA
from tests.benchmarks.drift.pool import open_pool
from tests.benchmarks.drift.stream_data import (
    Inputs,
    choose_length,
    count_decayed,
    encode_column,
    encode_words,
    make_stream,
)
from tests.benchmarks.drift.stream_models import StreamModels
from tests.benchmarks.drift.stream_picture import draw_streams
from tests.benchmarks.drift.stream_walk import StreamWalk, Watched
from tests.benchmarks.drift.streams import (
    DATA,
    Difference,
    StreamRun,
    choose_models,
    find_delay,
    judge_streams,
    print_alerts,
    print_refits,
    print_streams,
    space_equally,
)

DAY = datetime(2020, 1, 6, tzinfo=UTC)


def make_shop(days=240, customers=40, items=30, turn=100):
    """People buy coats for work and bags for parties, and from ``turn`` on the other way round."""
    random = np.random.default_rng(0)
    rows = []
    for day in range(days):
        for user in random.choice(2 * customers, customers, replace=False):
            party = random.random() < 0.5
            item = random.integers(items // 2) + (items // 2) * (party != (day >= turn))
            when = DAY + timedelta(days=day)
            rows.append((f"u{user}", f"i{item:02d}", when, ("work", "party")[party]))
    users, bought, times, occasions = zip(*rows, strict=True)
    events = pa.table(
        {
            "user_id": pa.array(users),
            "item_id": pa.array(bought),
            "event_type": ["purchase"] * len(rows),
            "event_time": pa.array(times, pa.timestamp("us", tz="UTC")),
            "occasion": pa.array(occasions),
        }
    )
    names = [f"i{i:02d}" for i in range(items)]
    titles = [f"{('red', 'blue')[i % 2]} {('coat', 'bag')[2 * i // items]}" for i in range(items)]
    table = pa.table({"item_id": names, "title": titles, "price": np.linspace(1, 9, items)})
    return make_stream("shop", events, table, ("occasion",))


@pytest.fixture(scope="module")
def shop():
    return make_shop()


@pytest.mark.parametrize(("a_day", "days"), [(200, 1), (199, 7), (29, 7), (8, 28), (1, 28)])
def test_windows_are_as_long_as_traffic_needs(a_day, days):
    visits = np.repeat(np.arange(1000 - 112, 1000), a_day)
    assert choose_length(visits, 1000) == days


def test_a_stream_is_cut_into_whole_windows_and_visits(shop):
    assert shop.days == 7
    assert shop.begin(shop.first) >= DAY + timedelta(days=80)
    assert shop.begin(shop.count) <= DAY + timedelta(days=240)
    assert np.all(np.diff(shop.visit_window) >= 0)
    visits = shop.visits(shop.first)
    assert len(visits) == 7 * 40
    assert set(shop.visit_window[visits]) == {shop.first}


def test_popularity_is_what_happened_before_a_window(shop):
    counts = count_decayed(shop)
    assert counts.shape == (shop.count + 1, 30, 3)
    assert counts[0].max() == 0.0
    end = shop.begin(5)
    bought = [
        when
        for item, when in zip(
            *(shop.events[n].to_pylist() for n in ("item_id", "event_time")), strict=True
        )
        if item == "i03" and when < end
    ]
    expected = sum(0.5 ** ((end - when).days / 7.0) for when in bought)
    row = shop.items["item_id"].to_pylist().index("i03")
    assert counts[5, row, 0] == pytest.approx(np.log1p(expected), rel=1e-4)


def test_columns_become_numbers():
    words = encode_words(["red coat", None, "RED"])
    assert words.shape == (3, 2)
    assert np.allclose(np.linalg.norm(words, axis=1), [1, 0, 1])
    assert encode_column(pa.chunked_array([["a", None, "a", "b"]])).tolist() == [
        [1, 0],
        [0, 0],
        [1, 0],
        [0, 1],
    ]
    bands = encode_column(pa.chunked_array([[1.0, None, *np.linspace(1, 9, 30)]]))
    assert bands.sum(axis=1).tolist() == [1, 0, *[1] * 30]
    assert bands[:, 0].sum() == pytest.approx(4, abs=1)


@pytest.fixture(scope="module")
def models(shop):
    return StreamModels(shop, Inputs(shop))


def test_a_refit_finds_what_a_frozen_model_does_not(shop, models):
    last = shop.count - 1
    assert models.score(shop.first, shop.first).mean() > 0.5
    assert models.score(last, last).mean() > models.score(shop.first, last).mean() + 0.2


def test_schedules():
    windows = range(10, 20)
    assert space_equally(windows, 1) == [15]
    assert space_equally(windows, 4) == [12, 14, 16, 18]
    assert choose_models(windows, [15, 12]) == [10, 10, 12, 12, 12, 15, 15, 15, 15, 15]
    assert choose_models(windows, []) == [10] * 10


def test_differences_of_one_person_count_as_one():
    values = np.tile([0.1, 0.3], 50).astype(np.float32)
    alone = Difference.of(values, np.arange(100))
    together = Difference.of(values, np.arange(100) % 4)
    assert alone.mean == together.mean == pytest.approx(0.2)
    assert alone.is_real
    assert together.high - together.low > 3 * (alone.high - alone.low)
    assert not Difference.of(values - 0.2, np.arange(100)).is_real


def test_a_window_is_served_and_measured(tmp_path, shop, models):
    walk = StreamWalk(models, tmp_path / "walk", refits=False)
    watched = walk.step(shop.first)
    assert (watched.window, watched.model) == (shop.first, shop.first)
    log = pq.read_table(tmp_path / "walk" / "log", schema=PREDICTION_SCHEMA)
    assert log.num_rows == len(shop.visits(shop.first))
    events = pq.read_table(tmp_path / "walk" / "events.parquet")
    named = events.filter(pc.starts_with(events["request_id"], "live-"))
    assert set(named["request_id"].to_pylist()) <= set(log["request_id"].to_pylist())
    assert 0.5 < named.num_rows / log.num_rows < 0.9
    version = models.fit(shop.first).embedding_version
    states = {r.name: r.state for r in walk.store.results(version, 1)}
    assert states["query-embedding/mean_shift"] is DriftState.OK
    assert states["input:events.occasion/value_shares"] is DriftState.OK
    assert states["scores/quantile_shares"] is not DriftState.INSUFFICIENT_DATA


def watch(window, model, raised=False, is_open=False):
    return Watched(window, model, Action.NOTHING, raised, is_open, (), None, ())


def test_the_rows_and_the_picture(shop, models, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tests.benchmarks.drift.streams.DRAWS", 2)
    windows = range(shop.first, shop.first + 9)
    shorter = dataclasses.replace(shop, count=windows.stop)
    models = StreamModels(shorter, models.inputs, models._towers)
    turned = 3
    frozen = [watch(w, windows[0], w == windows[turned], w >= windows[turned]) for w in windows]
    operated = [watch(w, windows[0] if w < windows[5] else windows[5]) for w in windows]
    falls = [Difference(0.1, 0.1 if i >= 5 else -0.1, 0.3) for i in range(1, 9)]
    run = StreamRun(models, frozen, operated, falls)
    assert run.refits == [windows[5]]
    assert find_delay(run) == 0
    print_alerts(run)
    print_refits(run)
    printed = capsys.readouterr().out
    assert "4 of 8" in printed  # real falls
    assert "4 of 4" in printed  # under an open alert
    assert "schedule: 2 refits" in printed
    draw_streams([run], tmp_path / "picture.svg")
    assert (tmp_path / "picture.svg").read_text().startswith("<?xml")


def test_without_data_the_bench_says_what_to_set(monkeypatch, capsys):
    monkeypatch.delenv(DATA, raising=False)
    with open_pool(1) as pool:
        assert list(print_streams(list(judge_streams(pool)))) == []
    assert DATA in capsys.readouterr().out

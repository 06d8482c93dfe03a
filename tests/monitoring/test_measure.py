import json
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from monitoring import tables
from monitoring.measure import daily_windows, measure
from monitoring.reference import Reference, build_reference
from refit.drift import DriftState, Window
from refit.errors import DataValidationError, RefitError, UsageError
from refit.prediction import PREDICTION_SCHEMA
from tests.monitoring.conftest import SETTINGS
from tests.monitoring.marketplace import START, TOWERS, Market


def measured(world, windows=None, **changes):
    sources = {
        "reference": world.reference,
        "log": world.log,
        "events": getattr(world, "events", None),
        "items": getattr(world, "items", None),
        "index": getattr(world, "index_now", None),
    } | changes
    windows = windows or daily_windows(world.end, 2)
    return measure(SETTINGS, windows=windows, **sources)


def states(results, subject, statistic=None):
    return [
        result.state
        for result in results
        if result.subject == subject and statistic in (None, result.statistic)
    ]


def drifting(results):
    return {f"{r.subject}/{r.statistic}" for r in results if r.state is DriftState.DRIFT}


def test_where_nothing_changed_nothing_drifts(world):
    results = measured(world.live(Market(), 4), daily_windows(world.end, 4))
    assert sum(r.state is DriftState.OK for r in results) > 80
    # 90 results at a nominal .01: more than 4 has a probability of .002.
    assert sum(r.state is DriftState.DRIFT for r in results) <= 4


@pytest.mark.parametrize(
    ("change", "expected", "silent"),
    [
        (
            {"tastes": (0.1, 0.2, 0.3, 0.4)},
            {"query-embedding/frechet", "mix:category_1/jensenshannon"},
            "input:",
        ),
        (
            {"new_category": 0.25},
            {"query-embedding/frechet", "input:items.category_1/new-values"},
            "input:items.image_embedding",
        ),
        ({"brand_null": 1.0}, {"input:items.brand/null-share"}, "query-embedding"),
        ({"encoder": 1}, {"input:items.image_embedding/centroid-shift"}, "query-embedding"),
        ({"buys": 0.01}, {"live:purchase-rate/drop"}, "query-embedding"),
    ],
)
def test_a_change_is_found_by_the_readings_that_are_about_it(world, change, expected, silent):
    world.live(Market(), 3).live(Market().change(**change), 2)
    found = drifting(measured(world))
    assert expected <= found
    if silent != "input:":
        assert not any(name.startswith(silent) for name in found)


def test_vectors_of_other_towers_are_counted_and_never_compared(world):
    world.live(Market(), 1)
    world.live(Market().change(tastes=(0.1, 0.2, 0.3, 0.4)), 1, towers="towers-2")
    results = measured(world)
    assert states(results, "query-embedding") == [DriftState.OK, DriftState.INSUFFICIENT_DATA]
    last = [r for r in results if r.subject == "query-embedding"][-1]
    assert last.value is None
    assert "0 usable rows" in last.why
    answers = tables.read_answers(
        world.log,
        daily_windows(world.end, 1)[0],
        TOWERS,
        100,
        SETTINGS,
        tables.Attributes(set(), {}),
    )
    assert (answers.total, answers.foreign, answers.own) == (300, 300, 0)


def test_a_mixed_window_is_measured_on_its_own_towers_and_says_what_was_left_out(world):
    world.live(Market(), 1)
    folder = next(world.log.iterdir())
    other = Market(seed=3).answers(world.stock, world.kinds, 10, towers="towers-2")
    pq.write_table(other, folder / "part-other.parquet")
    result = next(
        r for r in measured(world, daily_windows(world.end, 1)) if r.subject == "query-embedding"
    )
    assert result.state is DriftState.OK
    assert result.n_current == 300
    assert result.detail == "left out: 300 answers of other towers"


def test_an_index_of_other_towers_cannot_tell(world):
    world.live(Market(), 1)
    other = world.write_index("other", world.stock, world.kinds, world.end, towers="towers-2")
    results = measured(world, index=other)
    assert states(results, "listing-embedding") == [DriftState.INSUFFICIENT_DATA]
    why = next(r.why for r in results if r.subject == "listing-embedding")
    assert "vectors of other towers cannot be compared" in why


def test_the_mix_of_items_that_nobody_knows_cannot_tell(world):
    world.live(Market(), 5)
    results = measured(world, daily_windows(world.end, 1), items=None)
    mix = next(r for r in results if r.subject == "mix:category_1")
    assert mix.state is DriftState.INSUFFICIENT_DATA
    assert "recommended items are not in the items table" in mix.why
    assert states(results, "scores") == [DriftState.OK]


def test_a_stale_index_cannot_tell(world):
    world.live(Market(), 3)
    results = measured(world, index=world.index, windows=daily_windows(world.end, 1))
    assert states(results, "listing-embedding") == [DriftState.INSUFFICIENT_DATA]


def test_an_empty_window_and_an_empty_log_cannot_tell(world):
    world.live(Market(), 1)
    later = [Window(start=world.end, end=world.end + timedelta(days=1))]
    for changes in ({}, {"log": world.root / "nothing"}):
        results = measured(world, later, **changes)
        assert results
        assert {r.state for r in results if r.subject != "listing-embedding"} == {
            DriftState.INSUFFICIENT_DATA
        }
        assert all(r.why for r in results if r.state is DriftState.INSUFFICIENT_DATA)


def test_nothing_given_is_cannot_tell_and_never_ok(world):
    world.live(Market(), 1)
    results = measured(world, events=None, items=None, index=None)
    about = ("input:", "listing-embedding", "live:click", "live:purchase")
    assert {r.state for r in results if r.subject.startswith(about)} == {
        DriftState.INSUFFICIENT_DATA
    }


def test_one_row_or_nan_vectors_cannot_tell(world):
    world.live(Market(), 1)
    part = next(world.log.rglob("*.parquet"))
    whole = pq.read_table(part)
    window = daily_windows(world.end, 1)

    pq.write_table(whole.slice(0, 1), part)
    assert states(measured(world, window), "query-embedding") == [DriftState.INSUFFICIENT_DATA]

    rows = whole.to_pylist()
    for row in rows:
        row["query_embedding"] = [float("nan")] * 16
    pq.write_table(pa.Table.from_pylist(rows, schema=PREDICTION_SCHEMA), part)
    results = measured(world, window)
    assert states(results, "query-embedding") == [DriftState.INSUFFICIENT_DATA]
    assert states(results, "scores") == [DriftState.OK]


def test_a_column_that_is_gone_cannot_tell(world):
    world.live(Market(), 1)
    pq.write_table(pq.read_table(world.items).drop_columns(["brand"]), world.items)
    results = measured(world)
    assert set(states(results, "input:items.brand")) == {DriftState.INSUFFICIENT_DATA}
    assert any("'brand' is missing" in r.why for r in results)


def test_a_torn_log_part_cannot_tell(world):
    world.live(Market(), 1)
    part = next(world.log.rglob("*.parquet"))
    part.write_bytes(part.read_bytes()[:1000])
    results = measured(world, daily_windows(world.end, 1))
    for subject in ("query-embedding", "scores", "live:click-rate", "live:fallback-share"):
        assert set(states(results, subject)) == {DriftState.INSUFFICIENT_DATA}


def test_an_error_in_one_statistic_cannot_tell_and_spares_the_others(world, monkeypatch):
    from dataclasses import replace

    from monitoring import statistics

    def burst(reference, current):
        raise ZeroDivisionError("burst")

    broken = dict(statistics.STATISTICS)
    broken["frechet"] = replace(broken["frechet"], compare=burst)
    broken["wasserstein"] = replace(broken["wasserstein"], compare=lambda a, b: float("nan"))
    monkeypatch.setattr("monitoring.evidently_report.STATISTICS", broken)
    results = measured(world.live(Market(), 1), daily_windows(world.end, 1))
    failed = next(r for r in results if r.subject == "query-embedding")
    assert failed.state is DriftState.INSUFFICIENT_DATA
    assert "burst" in failed.why
    assert states(results, "scores") == [DriftState.INSUFFICIENT_DATA]
    assert states(results, "mix:category_1") == [DriftState.OK]


def test_fallbacks_are_left_out_of_drift_and_counted_as_such(world):
    world.live(Market(), 1, fallback=0.3)
    results = measured(world, daily_windows(world.end, 1))
    share = next(r for r in results if r.subject == "live:fallback-share")
    assert share.state is DriftState.DRIFT
    assert share.interval[0] < share.level < share.interval[1]
    query = next(r for r in results if r.subject == "query-embedding")
    assert query.n_current == 300 - round(300 * share.value)


def test_outcomes_need_a_level_to_be_held_against(world):
    world.live(Market(), 2)
    results = measured(world)
    assert states(results, "live:purchase-rate") == [DriftState.INSUFFICIENT_DATA, DriftState.OK]
    second = [r for r in results if r.subject == "live:purchase-rate"][-1]
    bought = pq.read_table(world.events).to_pylist()
    yesterday = world.end - timedelta(days=1)
    hits = {
        e["request_id"]
        for e in bought
        if e["event_type"] == "purchase" and e["event_time"] >= yesterday
    }
    assert second.level == pytest.approx(len(hits) / 300, abs=0.004)


def test_a_level_that_jumps_by_itself_tells_of_no_fall(world):
    for buys in (0.5, 0.01, 0.5, 0.01, 0.5, 0.01):
        world.live(Market(buys=buys), 1)
    (last,) = (
        r for r in measured(world, daily_windows(world.end, 1)) if r.subject == "live:purchase-rate"
    )
    assert last.state is DriftState.INSUFFICIENT_DATA
    assert "not even a fall" in last.why


def test_snapshots_land_in_an_evidently_workspace_once_a_window(world):
    from evidently.ui.workspace import Workspace

    world.live(Market(), 2)
    for _ in range(2):
        measured(world, workspace=world.root / "workspace")
    workspace = Workspace.create(str(world.root / "workspace"))
    (project,) = workspace.search_project("refit")
    runs = [workspace.get_run(project.id, run) for run in workspace.list_runs(project.id)]
    assert sorted(run.name for run in runs) == ["2024-03-11", "2024-03-12"]
    tests = [test for result in runs[0].metric_results.values() for test in result.tests]
    assert len(tests) > 15
    json.loads(runs[0].json())


def test_memory_is_bounded_by_a_sample_that_gives_every_day_its_share():
    days = np.repeat([0, 1, 2], [1000, 100, 10])
    chosen = tables.stratify(days, 90, seed=0)
    assert len(set(chosen)) == 90
    assert np.bincount(days[chosen]).tolist() == [40, 40, 10]


def test_no_windows_and_no_reference_are_errors(world, tmp_path):
    world.live(Market(), 1)
    with pytest.raises(UsageError, match="no windows"):
        measure(SETTINGS, world.reference, world.log, None, None, None, [])
    with pytest.raises(RefitError, match=r"thresholds\.json does not exist"):
        measured(world, reference=tmp_path / "none")


def test_a_reference_needs_its_own_towers(world, tmp_path):
    args = (SETTINGS, world.predictions, world.index, world.dataset)
    with pytest.raises(DataValidationError, match="index was built with towers towers-1"):
        build_reference(*args, "towers-9", tmp_path / "r")
    foreign = world.write_index("foreign", world.stock, world.kinds, START, towers="towers-9")
    with pytest.raises(
        DataValidationError, match=r"holds 0 answers of towers towers-9 \(3000 of others"
    ):
        build_reference(
            SETTINGS, world.predictions, foreign, world.dataset, "towers-9", tmp_path / "r"
        )
    assert not (tmp_path / "r").exists()


def test_a_reference_keeps_how_its_thresholds_came_about(built):
    manifest = Reference.read(built.root / "reference").manifest
    assert manifest.embedding_version == TOWERS
    assert manifest.rows["answers"] == 3000
    for metric in manifest.metrics:
        assert metric.false_alarm_rate == SETTINGS.false_alarm_rate
        assert metric.trials == 99
        assert metric.needs_n == SETTINGS.minimum_rows
        assert all(t.value >= max(t.resampling, metric.floor) for t in metric.thresholds)
    assert {y.blocks for y in manifest.metrics if y.table == "answers"} == {10}

import json
import shutil
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from monitoring import tables
from monitoring.drift_metrics import mean_shift, quantile_shares
from monitoring.measure import measure
from monitoring.reference import THRESHOLDS_FILE, Reference, build_reference
from monitoring.settings import MeasureSettings
from monitoring.windows import MonitoredData, daily_windows
from refit.bundle import name_bundle
from refit.drift import DriftState, Window
from refit.errors import DataValidationError, RefitError, UsageError
from refit.prediction import PREDICTION_SCHEMA
from tests.monitoring.conftest import QUALITY, SETTINGS
from tests.monitoring.marketplace import START, TOWERS, Market


def measured(marketplace, windows=None, **changes):
    data = MonitoredData(
        marketplace.log,
        getattr(marketplace, "events", None),
        getattr(marketplace, "items", None),
        getattr(marketplace, "index_now", None),
    )
    reference, workspace = (
        changes.pop("reference", marketplace.reference),
        changes.pop("workspace", None),
    )
    windows = windows or daily_windows(marketplace.end, 2)
    opened = Reference.read(reference)
    data = replace(data, **changes)
    return measure(SETTINGS, opened, data, windows, workspace, quality=QUALITY).results


def states(results, subject, statistic=None):
    return [
        result.state
        for result in results
        if result.subject == subject and statistic in (None, result.statistic)
    ]


def drifting(results):
    return {result.name for result in results if result.state is DriftState.DRIFT}


def test_where_nothing_changed_nothing_drifts(marketplace):
    results = measured(marketplace.run(Market(), 4), daily_windows(marketplace.end, 4))
    assert sum(r.state is DriftState.OK for r in results) > 80
    # 90 results at a nominal .01: more than 4 has a probability of .002.
    assert sum(r.state is DriftState.DRIFT for r in results) <= 4


@pytest.mark.parametrize(
    ("change", "expected", "unchanged"),
    [
        (
            {"tastes": (0.1, 0.2, 0.3, 0.4)},
            {"query-embedding/mean_shift", "mix:category_1/value_shares"},
            "input:",
        ),
        (
            {"new_category": 0.25},
            {"query-embedding/mean_shift", "input:items.category_1/new_values"},
            "input:items.image_embedding",
        ),
        ({"brand_null": 1.0}, {"input:items.brand/null_share"}, "query-embedding"),
        ({"encoder": 1}, {"input:items.image_embedding/centroid_shift"}, "query-embedding"),
        ({"buys": 0.01}, {"live:purchase-rate/drop"}, "query-embedding"),
    ],
)
def test_a_change_is_found_by_the_results_that_are_about_it(
    marketplace, change, expected, unchanged
):
    marketplace.run(Market(), 3).run(Market().change(**change), 2)
    found = drifting(measured(marketplace))
    assert expected <= found
    if unchanged != "input:":
        assert not any(name.startswith(unchanged) for name in found)


def test_vectors_of_other_towers_are_counted_and_never_compared(marketplace):
    marketplace.run(Market(), 1)
    marketplace.run(Market().change(tastes=(0.1, 0.2, 0.3, 0.4)), 1, towers="towers-2")
    results = measured(marketplace)
    assert states(results, "query-embedding", "mean_shift") == [
        DriftState.OK,
        DriftState.INSUFFICIENT_DATA,
    ]
    last = [r for r in results if r.subject == "query-embedding"][-1]
    assert last.value is None
    assert "0 usable rows" in last.why
    answers = tables.read_answers(
        marketplace.log,
        daily_windows(marketplace.end, 1)[0],
        TOWERS,
        100,
        SETTINGS,
        tables.Attributes(pa.array([], pa.string()), {}),
    )
    assert (answers.total, answers.foreign, answers.own) == (300, 300, 0)


def test_a_mixed_window_is_measured_on_its_own_towers_and_names_what_was_left_out(marketplace):
    marketplace.run(Market(), 1)
    folder = next(marketplace.log.iterdir())
    other = Market(seed=3).answers(marketplace.stock, marketplace.kinds, 10, towers="towers-2")
    pq.write_table(other, folder / "part-other.parquet")
    result = next(
        r
        for r in measured(marketplace, daily_windows(marketplace.end, 1))
        if r.subject == "query-embedding"
    )
    assert result.state is DriftState.OK
    assert result.n_current == 300
    assert result.detail == "left out: 300 answers of other towers"


def test_an_index_of_other_towers_is_insufficient_data(marketplace):
    marketplace.run(Market(), 1)
    other = marketplace.write_index(
        "other", marketplace.stock, marketplace.kinds, marketplace.end, towers="towers-2"
    )
    results = measured(marketplace, index=other)
    assert set(states(results, "listing-embedding")) == {DriftState.INSUFFICIENT_DATA}
    why = next(r.why for r in results if r.subject == "listing-embedding")
    assert "vectors of other towers cannot be compared" in why


def test_a_mix_of_unknown_items_is_insufficient_data(marketplace):
    marketplace.run(Market(), 5)
    results = measured(marketplace, daily_windows(marketplace.end, 1), items=None)
    mix = next(r for r in results if r.subject == "mix:category_1")
    assert mix.state is DriftState.INSUFFICIENT_DATA
    assert "recommended items are not in the items table" in mix.why
    assert states(results, "scores") == [DriftState.OK]


def test_an_index_that_is_too_old_is_insufficient_data(marketplace):
    marketplace.run(Market(), 3)
    window = daily_windows(marketplace.end, 1)
    soon = measured(marketplace, index=marketplace.index, windows=window)
    assert states(soon, "listing-embedding") == [], "no index came, so there is nothing to measure"
    marketplace.run(Market(), 5)
    late = measured(marketplace, index=marketplace.index, windows=daily_windows(marketplace.end, 1))
    assert set(states(late, "listing-embedding")) == {DriftState.INSUFFICIENT_DATA}
    assert any("run index_refresh" in r.why for r in late)


def test_listings_are_those_that_are_new_in_the_index(marketplace):
    marketplace.run(Market(), 3)
    results = measured(marketplace, windows=daily_windows(marketplace.end, 1))
    (found,) = (r for r in results if r.name == "listing-embedding/mean_shift")
    assert found.n_current == 600
    assert found.state is DriftState.OK


def test_an_empty_window_and_an_empty_log_are_insufficient_data(marketplace):
    marketplace.run(Market(), 1)
    later = [Window(start=marketplace.end, end=marketplace.end + timedelta(days=1))]
    for changes in ({}, {"log": marketplace.root / "nothing"}):
        results = measured(marketplace, later, **changes)
        assert results
        others = ("listing-embedding", "panel", "feed:")
        assert {r.state for r in results if not r.subject.startswith(others)} == {
            DriftState.INSUFFICIENT_DATA
        }
        assert {"feed:items/stale", "feed:events/stale"} <= drifting(results)
        assert all(r.why for r in results if r.state is DriftState.INSUFFICIENT_DATA)


def test_tables_that_were_not_given_are_insufficient_data(marketplace):
    marketplace.run(Market(), 1)
    results = measured(marketplace, events=None, items=None, index=None)
    about = ("input:", "listing-embedding", "live:click", "live:purchase")
    assert {r.state for r in results if r.subject.startswith(about)} == {
        DriftState.INSUFFICIENT_DATA
    }


def test_one_row_or_nan_vectors_are_insufficient_data(marketplace):
    marketplace.run(Market(), 1)
    part = next(marketplace.log.rglob("*.parquet"))
    whole = pq.read_table(part)
    window = daily_windows(marketplace.end, 1)

    pq.write_table(whole.slice(0, 1), part)
    assert set(states(measured(marketplace, window), "query-embedding")) == {
        DriftState.INSUFFICIENT_DATA
    }

    rows = whole.to_pylist()
    for row in rows:
        row["query_embedding"] = [float("nan")] * 16
    pq.write_table(pa.Table.from_pylist(rows, schema=PREDICTION_SCHEMA), part)
    results = measured(marketplace, window)
    assert set(states(results, "query-embedding")) == {DriftState.INSUFFICIENT_DATA}
    assert states(results, "scores") == [DriftState.OK]


def test_what_was_drawn_at_random_and_later_pages_do_not_count(marketplace):
    marketplace.run(Market(), 2)
    _, last = sorted(marketplace.log.rglob("*.parquet"))
    expected = [(r.subject, r.statistic, r.state, r.value) for r in measured(marketplace)]
    rows = pq.read_table(last).to_pylist()
    pages = []
    for number, row in enumerate(rows):
        k = len(row["item_ids"])
        pages.append(
            {
                **row,
                "request_id": f"page-{number}",
                "positions": list(range(k, 2 * k)),
                "scores": [score - 50 for score in row["scores"]],
            }
        )
        row["positions"] = list(range(k + 1))
        if number % 3:
            place = number % k
            row["item_ids"].insert(place, "drawn")
            row["scores"].insert(place, -50.0)
            row["sources"] = ["exploration" if i == place else "towers" for i in range(k + 1)]
        else:
            row["positions"] = None if number % 2 else list(range(k))
    pq.write_table(pa.Table.from_pylist(rows + pages, schema=PREDICTION_SCHEMA), last)
    found = [(r.subject, r.statistic, r.state, r.value) for r in measured(marketplace)]
    compared = [
        (one, other)
        for one, other in zip(expected, found, strict=True)
        if one[0].startswith(("scores", "mix:", "query-embedding"))
    ]
    assert len(compared) > 3
    assert all(one == other for one, other in compared)


def test_a_missing_column_is_insufficient_data(marketplace):
    marketplace.run(Market(), 1)
    pq.write_table(pq.read_table(marketplace.items).drop_columns(["brand"]), marketplace.items)
    results = measured(marketplace)
    assert set(states(results, "input:items.brand")) == {DriftState.INSUFFICIENT_DATA}
    assert any("'brand' is missing" in r.why for r in results)


def test_a_truncated_log_file_is_insufficient_data(marketplace):
    marketplace.run(Market(), 1)
    part = next(marketplace.log.rglob("*.parquet"))
    part.write_bytes(part.read_bytes()[:1000])
    results = measured(marketplace, daily_windows(marketplace.end, 1))
    for subject in ("query-embedding", "scores", "live:click-rate", "live:fallback-share"):
        assert set(states(results, subject)) == {DriftState.INSUFFICIENT_DATA}


def test_an_error_in_one_metric_is_insufficient_data_and_spares_the_others(
    marketplace, monkeypatch
):
    def fail(frame, column, parameters):
        raise ZeroDivisionError("burst")

    monkeypatch.setattr(mean_shift, "encode", fail)
    not_finite = (np.full((60, 18), np.nan), np.arange(60))
    monkeypatch.setattr(quantile_shares, "encode", lambda *_: not_finite)
    results = measured(marketplace.run(Market(), 1), daily_windows(marketplace.end, 1))
    failed = next(r for r in results if r.name == "query-embedding/mean_shift")
    assert failed.state is DriftState.INSUFFICIENT_DATA
    assert "burst" in failed.why
    (scores,) = (r for r in results if r.subject == "scores")
    assert scores.state is DriftState.INSUFFICIENT_DATA
    assert "'quantile_shares' returned a feature that is not finite" in scores.why
    assert states(results, "mix:category_1") == [DriftState.OK]


def test_a_metric_that_cannot_be_loaded_is_insufficient_data(marketplace, tmp_path):
    marketplace.run(Market(), 1)
    copy = tmp_path / "copy"
    shutil.copytree(marketplace.reference, copy)
    thresholds = (copy / "thresholds.json").read_text()
    (copy / "thresholds.json").write_text(
        thresholds.replace('"quantile_shares"', '"acme.distance"')
    )
    results = measured(marketplace, daily_windows(marketplace.end, 1), reference=copy)
    (scores,) = (r for r in results if r.subject == "scores")
    assert (scores.state, scores.statistic) == (DriftState.INSUFFICIENT_DATA, "acme.distance")
    assert "must be installed" in scores.why
    assert states(results, "mix:category_1") == [DriftState.OK]


def test_fallbacks_are_left_out_of_drift_and_counted_as_such(marketplace):
    marketplace.run(Market(), 1, fallback=0.3)
    results = measured(marketplace, daily_windows(marketplace.end, 1))
    share = next(r for r in results if r.subject == "live:fallback-share")
    assert share.state is DriftState.DRIFT
    assert share.interval[0] < share.level < share.interval[1]
    query = next(r for r in results if r.subject == "query-embedding")
    assert query.n_current == 300 - round(300 * share.value)


def test_a_rate_needs_an_earlier_level(marketplace):
    marketplace.run(Market(), 2)
    results = measured(marketplace)
    assert states(results, "live:purchase-rate") == [DriftState.INSUFFICIENT_DATA, DriftState.OK]
    second = [r for r in results if r.subject == "live:purchase-rate"][-1]
    bought = pq.read_table(marketplace.events).to_pylist()
    yesterday = marketplace.end - timedelta(days=1)
    hits = {
        e["request_id"]
        for e in bought
        if e["event_type"] == "purchase" and e["event_time"] >= yesterday
    }
    assert second.level == pytest.approx(len(hits) / 300, abs=0.004)


def test_a_rate_that_varies_too_much_is_insufficient_data(marketplace):
    for buys in (0.5, 0.01, 0.5, 0.01, 0.5, 0.01):
        marketplace.run(Market(buys=buys), 1)
    (last,) = (
        r
        for r in measured(marketplace, daily_windows(marketplace.end, 1))
        if r.subject == "live:purchase-rate"
    )
    assert last.state is DriftState.INSUFFICIENT_DATA
    assert "even a fall" in last.why


def test_an_evidently_workspace_gets_a_report_of_each_table_and_a_dashboard(marketplace):
    from evidently.ui.workspace import Workspace

    marketplace.run(Market(), 2)
    for _ in range(2):
        results = measured(marketplace, workspace=marketplace.root / "workspace")
    workspace = Workspace.create(str(marketplace.root / "workspace"))
    (project,) = workspace.search_project("refit")
    runs = [workspace.get_run(project.id, run) for run in workspace.list_runs(project.id)]
    by_name = {run.name: run for run in runs}
    assert len(runs) == len(by_name) == 7, "two days of answers, items, events; one of listings"
    answers = by_name["2024-03-12 00:00 answers"]
    shown = {result.display_name: result for result in answers.metric_results.values()}
    _, scores = (r for r in results if r.subject == "scores")
    told = shown["scores/quantile_shares: probability without drift"]
    assert told.value == pytest.approx(scores.p_value)
    assert [test.status.value for test in told.tests] == ["SUCCESS"]
    ratio = shown["scores/quantile_shares: distance over threshold"]
    assert ratio.value == pytest.approx(scores.value / scores.threshold)
    assert "Value drift for score" in shown
    dashboard = project.dashboard.model()
    assert [tab.title for tab in dashboard.tabs] == [
        "Live quality",
        "Embeddings",
        "Scores and mix",
        "Inputs",
    ]
    titles = {panel.id: panel.title for panel in dashboard.panels}
    shown_under = {tab.title: [titles[panel] for panel in tab.panels] for tab in dashboard.tabs}
    assert shown_under["Embeddings"] == ["Embeddings", "query-embedding", "listing-embedding"]
    assert shown_under["Live quality"][1] == "live:purchase-rate"
    levels = [
        (str(found.metric_value_location.metric.params), found.value)
        for run in runs
        for found in run.metric_results.values()
        if found.display_name == "live:click-rate: level"
    ]
    series, values = (len(set(each)) for each in zip(*levels, strict=True))
    assert (series, values) == (1, 2), "a level that changes is one line"


def test_a_sample_has_the_same_number_of_rows_of_each_day():
    days = np.repeat([0.5, 1.5, 2.5], [1000, 100, 10])
    sampled = tables.stratify(days, 90, seed=0)
    assert len(set(sampled)) == 90
    assert np.bincount(days[sampled].astype(int)).tolist() == [40, 40, 10]


def test_no_windows_and_no_reference_are_errors(marketplace, tmp_path):
    marketplace.run(Market(), 1)
    opened = Reference.read(marketplace.reference)
    with pytest.raises(UsageError, match="no windows"):
        measure(SETTINGS, opened, MonitoredData(marketplace.log), [])
    with pytest.raises(RefitError, match=r"thresholds\.json does not exist"):
        measured(marketplace, reference=tmp_path / "none")


def test_the_reference_of_an_earlier_state_says_what_builds_a_new_one(marketplace, tmp_path):
    shutil.copytree(marketplace.reference, tmp_path / "old")
    path = tmp_path / "old" / THRESHOLDS_FILE
    manifest = json.loads(path.read_text())
    manifest["settings"] |= {"trials": 999, "sample_size": 2000}
    manifest["thresholds"] = manifest.pop("metrics")
    path.write_text(json.dumps(manifest))
    with pytest.raises(RefitError, match=r"was built by another state of Refit.*with refit run$"):
        Reference.read(tmp_path / "old")


def test_a_reference_needs_its_own_towers(marketplace, tmp_path):
    args = (SETTINGS, marketplace.predictions, marketplace.index, marketplace.dataset)
    with pytest.raises(DataValidationError, match="index was built with towers towers-1"):
        build_reference(*args, "towers-9", tmp_path / "r")
    foreign = marketplace.write_index(
        "foreign", marketplace.stock, marketplace.kinds, START, towers="towers-9"
    )
    with pytest.raises(
        DataValidationError, match=r"holds 0 answers of towers towers-9 \(3000 of others"
    ):
        build_reference(
            SETTINGS,
            marketplace.predictions,
            foreign,
            marketplace.dataset,
            "towers-9",
            tmp_path / "r",
        )
    assert not (tmp_path / "r").exists()


def test_an_extra_metric_that_can_measure_none_of_its_subjects_is_an_error(marketplace, tmp_path):
    extra = {"metric": "quantile_shares", "subjects": ("input:items.brand",)}
    settings = MeasureSettings.parse({**SETTINGS.model_dump(), "extra_metrics": (extra,)})
    args = (marketplace.predictions, marketplace.index, marketplace.dataset, TOWERS)
    with pytest.raises(DataValidationError, match="'brand' does not hold numbers"):
        build_reference(settings, *args, tmp_path / "r")


def test_a_floor_that_is_set_replaces_the_metric_s_own(marketplace, tmp_path):
    settings = MeasureSettings.parse({**SETTINGS.model_dump(), "floors": {"quantile_shares": 5.0}})
    args = (marketplace.predictions, marketplace.index, marketplace.dataset, TOWERS)
    build_reference(settings, *args, tmp_path / "r")
    floors = {m.statistic: m.floor for m in Reference.read(tmp_path / "r").manifest.metrics}
    assert (floors["quantile_shares"], floors["null_share"]) == (5.0, 0.0)
    marketplace.run(Market(price_factor=3.0), 1)
    results = measured(marketplace, daily_windows(marketplace.end, 1), reference=tmp_path / "r")
    (price,) = (r for r in results if r.name == "input:items.price/quantile_shares")
    assert (price.state, price.threshold) == (DriftState.OK, 5.0)
    assert price.p_value < 1e-6


def test_a_reference_names_what_it_was_built_from(built):
    manifest = Reference.read(built.root / "reference").manifest
    assert manifest.embedding_version == TOWERS
    assert manifest.rows["answers"] == 3000
    assert all(m.days == 10 for m in manifest.metrics if m.table == "answers")
    faults = {m.name for m in manifest.metrics if m.is_fault}
    assert "input:items.brand/null_share" in faults
    assert "query-embedding/mean_shift" not in faults


def test_a_window_that_drifted_is_not_what_later_ones_are_compared_with(marketplace):
    opened = Reference.read(marketplace.reference)
    changed = Market().change(tastes=(0.1, 0.2, 0.3, 0.4))
    marketplace.run(Market(), 2).run(changed, 6)
    data = MonitoredData(
        marketplace.log, marketplace.events, marketplace.items, marketplace.index_now
    )
    windows = daily_windows(marketplace.end, 8)
    whole = measure(SETTINGS, opened, data, windows)
    found = states(whole.results, "query-embedding", "mean_shift")
    assert found == [DriftState.OK] * 2 + [DriftState.DRIFT] * 6
    # Measured one by one, with what was kept of those before, they are the same.
    kept, one_by_one = [], []
    of_days = ("query-embedding", "scores", "mix:", "input:")
    for window in windows:
        found = measure(SETTINGS, opened, data, [window], history=kept)
        kept += found.summaries
        one_by_one += [r for r in found.results if r.subject.startswith(of_days)]
    together = [r for r in whole.results if r.subject.startswith(of_days)]
    assert [(r.name, r.value) for r in one_by_one] == [(r.name, r.value) for r in together]


def test_a_reference_counts_the_ages_of_indexes_in_whole_days(marketplace, tmp_path):
    """A slope could be fitted to ages of one part of a day, which hides what an old index shows."""
    answers = pq.read_table(marketplace.predictions)
    times = answers["time"].to_pylist()
    ages = [2.5 if time.day % 2 else 0.1 for time in times]
    names = [
        name_bundle(time - timedelta(days=age), "offline")
        for time, age in zip(times, ages, strict=True)
    ]
    place = answers.column_names.index("bundle_id")
    predictions = tmp_path / "aged.parquet"
    pq.write_table(answers.set_column(place, "bundle_id", pa.array(names)), predictions)
    build_reference(
        SETTINGS, predictions, marketplace.index, marketplace.dataset, TOWERS, tmp_path / "aged"
    )
    metrics = Reference.read(tmp_path / "aged").metrics
    scores = next(metric for metric in metrics if metric.entry.subject == "scores")
    assert set(scores.reference.age) == {0.0, 2.0}

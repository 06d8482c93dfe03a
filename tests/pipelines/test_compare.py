"""Runs side by side: what they measured, where their settings differ, and what they cost."""

import json
from datetime import UTC, datetime

import pytest

from pipelines.compare import compare_runs, show_cell, write_comparison
from pipelines.home import Home
from refit.errors import UsageError
from refit.files import write_json


def make_run(home, name, hit_rate=0.5, batch=64, cached=(), **more):
    folder = home.runs / name
    evaluation = folder / "evaluation"
    interval = {"value": hit_rate, "low": hit_rate - 0.1, "high": hit_rate + 0.1}
    gain = {"hit_rate_at_10": {"value": 0.2, "low": 0.1, "high": 0.3}}
    write_json(
        evaluation / "metrics.json",
        {
            "protocol": {
                "metric": "hit_rate_at_10",
                "from": "2026-05-01T00:00:00",
                "until": "2026-05-08T00:00:00",
                "examples": {"train": 9000, "validation": 800, "test": 700},
                "items": 60,
            },
            "n_queries": 650,
            "n_users": 300,
            "looks": {"number": 2, "most": 10, "earlier_passes": 0},
            "methods": [
                {"name": "model", "kind": "model", "metrics": {"hit_rate_at_10": interval}},
                {"name": "popularity", "kind": "baseline", "gain": gain},
            ],
        },
    )
    write_json(evaluation / "verdict.json", {"passed": hit_rate > 0.4})
    training = {"batch_size": batch, "towers": {"width": 8, "layers": [64, 32]}}
    write_json(
        folder / "arguments.json",
        {"training": json.dumps(training), "registry": f"/{name}", "champion": "", **more},
    )
    seconds = {"ingest": 2.0, "features": 3.0, "train": 40.0, "evaluate": 9.0, "gate": 0.5}
    metadata = {
        "ingest": {"counts": {"events": {"kept": 10_500, "rows_in": 10_600}}},
        "gate": {"passed": True, "evaluation": str(evaluation)},
    }
    steps = [
        {
            "step": step,
            "seconds": took,
            "exit_code": 0,
            "error": None,
            "metadata": metadata.get(step, {}),
        }
        for step, took in seconds.items()
        if step not in cached
    ]
    write_json(
        folder / "outcome.json",
        {
            "run_id": name,
            "pipeline": "continuous_training",
            "started_at": datetime(2026, 5, 9, tzinfo=UTC).isoformat(),
            "seconds": 60.0,
            "succeeded": True,
            "steps": steps,
            "folder": str(folder),
        },
    )
    return folder


@pytest.fixture
def home(tmp_path):
    home = Home.at(tmp_path / "home")
    make_run(home, "run-a")
    make_run(home, "run-b", hit_rate=0.3, batch=128, cached=("ingest", "features"))
    make_run(home, "other")
    return home


def test_metrics_costs_and_only_the_settings_that_differ(home):
    found = compare_runs(["run-a", "run-b"], home)
    assert found.names == ("run-a", "run-b")
    assert found.settings == {"training.batch_size": (64, 128)}
    assert found.metrics["hit_rate_at_10"] == (0.5, 0.3)
    assert found.metrics["gain over popularity, hit_rate_at_10"] == (0.2, 0.2)
    assert found.metrics["verdict"] == ("passed", "refused")
    assert found.metrics["look at the test window"] == (2, 2)
    assert found.metrics["test window from"] == ("2026-05-01", "2026-05-01")
    assert found.seconds["train"] == (40.0, 40.0)
    assert found.seconds["ingest"] == (2.0, "cached")
    assert found.seconds["all"] == (60.0, 60.0)
    assert "calibrate" not in found.seconds, "it did not run in either"
    assert found.rows["train examples"] == (9000, 9000)
    assert found.rows["events"] == (10_500, None)
    assert found.without_settings == ()


def test_runs_of_the_same_settings_differ_in_none(home):
    assert compare_runs(["run-a", "other"], home).settings == {}


def test_a_setting_that_only_one_has_is_a_difference(home):
    make_run(home, "new", webhook="https://a", note="x")
    assert compare_runs(["run-a", "new"], home).settings == {"note": (None, "x")}


def test_a_run_is_found_by_its_folder_and_by_the_start_of_its_id(home):
    found = compare_runs([str(home.runs / "run-a"), "oth"], home)
    assert found.names == ("run-a", "other")
    with pytest.raises(UsageError, match="'run' is not one run: run-a, run-b"):
        compare_runs(["run", "other"], home)
    with pytest.raises(UsageError, match=r"no run or bundle .x.: .*the latest runs: "):
        compare_runs(["run-a", "x"], home)


def test_a_run_that_has_not_ended_is_refused(home):
    (home.runs / "run-b" / "outcome.json").unlink()
    with pytest.raises(UsageError, match="run-b has not ended"):
        compare_runs(["run-a", "run-b"], home)


def test_a_run_that_failed_before_its_evaluation_has_no_metrics(home):
    write_json(
        home.runs / "run-b" / "outcome.json",
        {
            "run_id": "run-b",
            "pipeline": "continuous_training",
            "started_at": "2026-05-09T00:00:00Z",
            "seconds": 1.0,
            "succeeded": False,
            "steps": [],
            "folder": str(home.runs / "run-b"),
        },
    )
    found = compare_runs(["run-a", "run-b"], home)
    assert found.metrics["hit_rate_at_10"] == (0.5, None)
    assert found.seconds["train"] == (40.0, None)


def test_the_page_shows_every_part_and_escapes_names(home, tmp_path):
    make_run(home, "run-c", batch="<b>")
    write_comparison(compare_runs(["run-a", "run-b", "run-c"], home), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    for text in ("Metrics", "Settings that differ", "Seconds by step", "Rows", "batch_size"):
        assert text in page
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert 'src="' not in page


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (None, "-"),
        ("a", "a"),
        (3.0, "3"),
        (12345.0, "12,345"),
        (0.12345, "0.1235"),
        (99.26, "99.3"),
    ],
)
def test_a_cell_is_short(cell, text):
    assert show_cell(cell) == text


def test_the_command(refit, tmp_path, monkeypatch):
    home = Home.at(tmp_path / "home")
    make_run(home, "run-a")
    make_run(home, "run-b", batch=128)
    shown = refit("runs", "compare", "run-a", "run-b", "--html", tmp_path / "page.html")
    assert shown.code == 0, shown.err
    assert "training.batch_size\t64\t128" in shown.out
    assert (tmp_path / "page.html").exists()
    assert json.loads(refit("runs", "compare", "run-a", "run-b", "--json").out)["settings"] == {
        "training.batch_size": [64, 128]
    }
    assert refit("runs", "compare", "run-a").code == 2
    assert "run-b" in refit("runs", "list").out
    assert json.loads(refit("runs", "ledger", "--json").out) == []

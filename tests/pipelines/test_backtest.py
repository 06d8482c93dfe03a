"""refit backtest through the command line: a real loop over cuts on the local runner."""

import json
import os
import subprocess
import sys

import pytest

from pipelines.compare import compare_runs
from pipelines.home import Home
from pipelines.local import list_runs
from refit.ledger import Ledger
from refit.registry import Registry

pytestmark = pytest.mark.timeout(900)
QUICK = (
    "training.max_epochs=2",
    "training.in_process_tower=false",
    "evaluation.smoke_test=[]",
    "evaluation.baselines.include=[popularity]",
    "backtest.better_in=1",
)


def run(home, *arguments):
    command = [sys.executable, "-m", "pipelines.cli", *map(str, arguments)]
    environment = {**os.environ, "REFIT_HOME": str(home), "OMP_NUM_THREADS": "2"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def done(home, configs):
    changes = [word for change in QUICK for word in ("--set", change)]
    config = configs / "valid" / "tiny_market.yaml"
    return run(
        home, "backtest", "--config", config, *changes, "--cuts", 2, "--run-id", "b", "--json"
    )


def test_every_cut_is_fitted_judged_and_reported_and_nothing_is_deployed(done, home):
    (outcome,) = list_runs(Home.at(home))
    assert outcome.succeeded, done.stderr
    judged = outcome.metadata("judge")
    assert done.returncode == (0 if judged["passed"] else 3), done.stderr
    found = json.loads(done.stdout)
    later, earlier = found["cuts"]
    assert (later["cut"], earlier["cut"]) == ("2024-03-15", "2024-03-12")
    assert earlier["until"] < "2024-03-12" <= later["start"], "windows do not overlap"
    for cut in found["cuts"]:
        assert cut["n_queries"] > 100
        assert 0 < cut["value"] < 1
        assert cut["best_baseline"]["over"] == "popularity"
        assert cut["best_baseline"]["low"] < cut["best_baseline"]["value"]
        assert cut["champion_state"] == "none"
    page = Home.at(home).artifacts.glob("backtest-*/judge-backtest/backtest/report.html")
    assert "2024-03-12" in next(page).read_text()
    assert Registry(Home.at(home).registry).list() == ()


def test_both_windows_are_in_the_ledger_each_looked_at_once(done, home):
    judgements = Ledger(Home.at(home).registry).read()
    assert [(one.look, one.run) for one in judgements] == [(1, "b"), (1, "b")]
    assert judgements[0].window.start > judgements[1].window.until
    assert len({one.model for one in judgements}) == 2


def test_backtests_are_compared_by_cut(done, home):
    found = compare_runs(["b", "b"], Home.at(home))
    for cut in json.loads(done.stdout)["cuts"]:
        assert found.metrics[f"value at {cut['cut']}"] == (cut["value"],) * 2
        assert found.rows[f"test queries at {cut['cut']}"] == (cut["n_queries"],) * 2
    assert found.seconds["train"][0] > 0


def test_a_finished_backtest_of_this_name_is_not_run_again(done, home, configs):
    config = configs / "valid" / "tiny_market.yaml"
    again = run(home, "backtest", "--config", config, "--cuts", 2, "--run-id", "b", "--json")
    assert again.returncode == done.returncode
    assert json.loads(again.stdout) == json.loads(done.stdout)


def test_what_cannot_be_demanded_is_a_usage_error(refit):
    result = refit("backtest", "--cuts", 2, "--set", "backtest.better_in=3")
    assert result.code == 2
    assert "better_in is 3, but there are 2 cuts" in result.err
    assert refit("backtest", "--cuts", 0).code == 2

"""refit tune through the command line: a real study on the local runner."""

import json
import os
import subprocess
import sys

import pytest

from pipelines.home import Home
from pipelines.local import list_runs
from pipelines.settings import load_config
from refit.registry import Registry

pytestmark = pytest.mark.timeout(900)
QUICK = (
    "training.max_epochs=2",
    "tuning.only=[training.learning_rate,training.temperature]",
    "tuning.full_trials=2",
)


def run(home, *arguments):
    command = [sys.executable, "-m", "pipelines.cli", *map(str, arguments)]
    environment = {**os.environ, "REFIT_HOME": str(home), "OMP_NUM_THREADS": "2"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def tune(home, configs, *arguments):
    changes = [word for change in QUICK for word in ("--set", change)]
    config = configs / "valid" / "tiny_market.yaml"
    return run(home, "tune", "--config", config, *changes, "--minutes", 5, *arguments)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def done(home, configs):
    done = tune(home, configs, "--trials", 3, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_study_is_measured_on_validation_and_deploys_nothing(done, home):
    assert len(done["trials"]) == 3
    assert done["trials"][0]["own"]
    assert all(0 < trial["recall"] < 1 for trial in done["trials"])
    best = max(t["recall"] for t in done["trials"] if t["outcome"] == "measured")
    assert best >= done["trials"][0]["recall"]
    assert Registry(Home.at(home).registry).list() == ()
    (outcome,) = list_runs(Home.at(home))
    assert outcome.metadata("choose")["changes"] == done["changes"]


def test_the_chosen_config_extends_the_one_that_was_tuned(done, configs):
    chosen = load_config(done["config"])
    before = load_config(str(configs / "valid" / "tiny_market.yaml"), ["training.max_epochs=2"])
    values = {name.rpartition(".")[2]: value for name, value in done["changes"].items()}
    assert chosen.settings == before.settings.model_copy(
        update={"training": before.settings.training.model_copy(update=values)}
    )
    assert done["page"].endswith(f"{done['study']}.html")


def test_the_same_command_continues_the_study(done, home, configs, tmp_path):
    more = tune(home, configs, "--trials", 4, "--out", tmp_path / "tuned.yaml")
    assert more.returncode == 0, more.stderr
    assert "[tune] started" in more.stderr
    assert "[features] started" not in more.stderr  # from the cache
    assert "4 trials are done" in more.stderr
    assert "own settings" in more.stdout
    assert (tmp_path / "tuned.yaml").is_file()
    assert "4 trials" in (tmp_path / "tuned.html").read_text()


def test_a_mistake_in_the_space_is_found_before_anything_runs(configs, tmp_path):
    wrong = tune(tmp_path, configs, "--set", "tuning.only=[training.learning_rat]")
    assert wrong.returncode == 2
    assert "did you mean training.learning_rate?" in wrong.stderr
    assert not (tmp_path / "runs").exists()

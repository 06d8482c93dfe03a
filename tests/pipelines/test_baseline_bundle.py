"""A baseline that is served as itself: a whole run, and the model after it."""

import json
import os
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.home import Home
from pipelines.local import list_runs
from refit.bundle import load_bundle
from refit.files import read_json
from refit.registry import Registry

pytestmark = pytest.mark.timeout(900)
AS_ITSELF = ("training.towers=popularity", "training.max_epochs=2")
ALLOWED = (*AS_ITSELF, "evaluation.serve_baseline=true")


def refit(home, *arguments):
    command = [sys.executable, "-m", "pipelines.cli", *map(str, arguments)]
    environment = {**os.environ, "REFIT_HOME": str(home), "OMP_NUM_THREADS": "2"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def run(home, configs, settings, *arguments):
    changes = [word for change in settings for word in ("--set", change)]
    config = configs / "valid" / "tiny_market.yaml"
    return refit(home, "run", "--config", config, *changes, *arguments)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def served(home, configs):
    return run(home, configs, ALLOWED, "--first-model")


def test_a_baseline_is_deployed_and_flagged_everywhere(served, home):
    assert served.returncode == 0, served.stderr
    store = Registry(Home.at(home).registry)
    champion = store.champion()
    assert champion.reason.endswith("(a baseline as itself)")
    assert f"champion: {champion.bundle_id} (a baseline as itself)" in served.stdout
    bundle = load_bundle(store.get(champion.bundle_id).path)
    assert bundle.manifest.kind == "baseline"
    assert "a baseline as itself" in (bundle.evaluation / "report.html").read_text()
    assert read_json(bundle.evaluation / "metrics.json")["kind"] == "baseline"
    listed = json.loads(refit(home, "bundles", "list", "--json").stdout)
    assert listed == [{"bundle_id": champion.bundle_id, "role": "champion", "kind": "baseline"}]
    assert "champion, a baseline" in refit(home, "bundles", "list").stdout


def test_everybody_is_asked_for_by_popularity_alone(served, home):
    """Where no column is counted, the query is the same for everybody: 0 but for popularity."""
    (outcome,) = list_runs(Home.at(home))
    evaluation = home / outcome.metadata("gate")["evaluation"]
    predictions = pq.read_table(evaluation / "predictions.parquet", columns=["query_embedding"])
    queries = np.unique(np.array(predictions["query_embedding"].to_pylist()), axis=0)
    np.testing.assert_array_equal(queries, [[*[0.0] * 8, 1.0]])
    metrics = read_json(evaluation / "metrics.json")
    values = {
        m["name"]: m["metrics"]["hit_rate_at_10"]["value"]
        for m in metrics["methods"]
        if not m["not_run"]
    }
    assert values["model"] >= 0.9 * values["popularity"]


def test_a_model_has_to_beat_the_baseline_that_serves(served, home, configs):
    """And the baseline does not come back in its place."""
    model = run(home, configs, ("training.max_epochs=3",))
    assert model.returncode in (0, 3), model.stderr
    (latest, *_) = list_runs(Home.at(home))
    metrics = read_json(home / latest.metadata("gate")["evaluation"] / "metrics.json")
    assert metrics["kind"] == "model"
    assert [m["kind"] for m in metrics["methods"]].count("champion") == 1
    again = run(home, configs, ALLOWED)
    assert again.returncode == 3
    assert "champions that the baseline would take the place of is 1" in again.stderr

"""continuous_training through the command line: one process per step, real models.

The runs of this module share one home, in the order of the fixtures: a run that is killed while it
trains, the run after it, and a run under a gate that nothing can pass.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from pipelines.home import Home
from pipelines.local import LOG_FILE, OUTCOME_FILE, RunOutcome, list_runs
from refit.bundle import load_bundle
from refit.registry import Registry

pytestmark = pytest.mark.timeout(900)

STEPS = [
    *("ingest", "encode", "features", "train", "index"),
    *("champion", "evaluate", "gate", "calibrate", "deploy"),
]


class Done(NamedTuple):
    code: int
    out: str
    err: str
    outcome: RunOutcome | None


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "pipelines.cli", "run", *map(str, arguments)]


def environment(home: Path) -> dict[str, str]:
    values = {"REFIT_HOME": str(home), "OMP_NUM_THREADS": "2", "PYTHONUNBUFFERED": "1"}
    return {**os.environ, **values}


def run(home: Path, *arguments: object) -> Done:
    done = subprocess.run(
        command(*arguments), env=environment(home), capture_output=True, text=True, check=False
    )
    runs = list_runs(Home.at(home))
    return Done(done.returncode, done.stdout, done.stderr, runs[0] if runs else None)


def steps(done: Done) -> list[str]:
    """The steps that ran and were not taken from the cache, without the report."""
    assert done.outcome is not None, done.err
    assert done.outcome.steps[-1].step == "report"
    return [record.step for record in done.outcome.steps[:-1]]


@pytest.fixture(scope="module")
def market(configs: Path) -> Path:
    return configs / "valid" / "tiny_market.yaml"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def killed(home: Path, market: Path) -> list[str]:
    """The output of a run whose runner, and nothing else, was killed during training."""
    with subprocess.Popen(
        command("--config", market, "--first-model"),
        env=environment(home),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "search: epoch 1/" in line:
                process.kill()
                break
        process.wait()
    assert process.returncode == -signal.SIGKILL, "".join(lines)
    return lines


@pytest.fixture(scope="module")
def deployed(killed: list[str], home: Path, market: Path) -> Done:
    first = ("--first-model", "--run-id", "first", "--reason", "to see")
    return run(home, "--config", market, *first)


@pytest.fixture(scope="module")
def refused(deployed: Done, home: Path, market: Path) -> Done:
    """A run whose gate has floors that nothing reaches, and no model server for its check."""
    impossible = ["evaluation.margin=1000", "evaluation.smoke_test=[]", "evaluation.min_users=9999"]
    changes = [part for change in impossible for part in ("--set", change)]
    return run(home, "--config", market, *changes, "--json")


def test_the_run_after_a_killed_one_works(killed, deployed):
    assert any("[features] done" in line for line in killed)
    assert deployed.code == 0, deployed.err
    assert deployed.outcome.succeeded


def test_finished_steps_of_a_killed_run_come_from_the_cache(deployed):
    assert steps(deployed) == STEPS[3:]


def test_a_passed_gate_deploys(deployed, home):
    registry = Registry(Home.at(home).registry)
    champion = registry.champion()
    assert champion is not None
    assert champion.bundle_id == deployed.outcome.metadata("deploy")["bundle_id"]
    assert (champion.by, champion.reason) == ("pipeline", "to see")
    assert f"champion: {champion.bundle_id}" in deployed.out
    bundle = load_bundle(registry.get(champion.bundle_id).path)
    assert bundle.read_verdict().passed
    assert deployed.outcome.metadata("gate") == {
        "passed": True,
        "outcome": "passed",
        "reasons": [],
        "evaluation": deployed.outcome.metadata("gate")["evaluation"],
    }


def test_the_output_of_a_run(deployed):
    table, rest = deployed.out.split("report: ")
    rows = [line.split("\t") for line in table.splitlines()]
    assert rows[0] == ["step", "seconds", "outcome"]
    assert [row[0] for row in rows[1:]] == [*STEPS[3:], "report"]
    assert Path(rest.splitlines()[0]).is_file()
    assert "\x1b" not in deployed.out + deployed.err
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in deployed.err.splitlines())
    assert "[report] done" in deployed.err.splitlines()[-1]


def test_a_finished_run_is_not_run_again(deployed, home, market):
    again = run(home, "--config", market, "--run-id", "first", "--first-model")
    assert (again.code, again.err) == (0, "")
    assert again.outcome == deployed.outcome


def test_a_refusal_deploys_nothing(refused, deployed, home):
    assert refused.code == 3
    assert refused.outcome.succeeded
    assert refused.outcome.metadata("gate")["passed"] is False
    champion = Registry(Home.at(home).registry).champion()
    assert champion.bundle_id == deployed.outcome.metadata("deploy")["bundle_id"]


def test_a_refused_bundle_is_kept_whole(refused, deployed, home):
    registry = Registry(Home.at(home).registry)
    kept = refused.outcome.metadata("keep")["refused_bundle_id"]
    assert registry.roles()[kept] == "refused"
    assert f"refit bundles promote {kept} --force" in refused.err
    bundle = load_bundle(registry.get(kept).path)
    assert not bundle.read_verdict().passed
    assert (bundle.reference / "thresholds.json").is_file()


def test_a_refusal_gives_its_reasons(refused):
    message = refused.err[refused.err.index("error: the gate refused, nothing was deployed:") :]
    assert "test users is" in message
    assert "at least 9999" in message
    assert "model server" in message
    assert "gain over the champion" not in message  # the same model is not worse than itself
    assert json.loads(refused.out)["run_id"] == refused.outcome.run_id


def test_only_what_changed_runs_again(refused):
    assert steps(refused) == ["champion", "evaluate", "gate", "calibrate", "keep"]


def test_the_branch_behind_a_gate_that_refused_does_not_run(refused, deployed):
    ran, skipped = (
        (done.outcome.folder / LOG_FILE).read_text("utf-8") for done in (deployed, refused)
    )
    assert "'deploy-bundle'" in ran
    assert "'deploy-bundle'" not in skipped
    assert "'keep-refused-bundle'" in skipped
    assert "'keep-refused-bundle'" not in ran


def test_status_lists_both_runs(refused, home):
    runs = list_runs(Home.at(home))
    assert [outcome.metadata("gate")["passed"] for outcome in runs] == [False, True]
    assert all((outcome.folder / OUTCOME_FILE).is_file() for outcome in runs)


@pytest.fixture
def broken_data(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "market"
    folder.mkdir()
    rows = [f"u{i},i{i},2024-05-{1 + i % 20:02d}T00:00:00Z" for i in range(60)]
    (folder / "events.csv").write_text("\n".join(["user_id,item_id,event_time", *rows]) + "\n")
    yield folder
    shutil.rmtree(folder)


def test_invalid_data_end_with_the_error_of_the_step(broken_data, configs, tmp_path):
    config = configs / "valid" / "least.yaml"
    path = f"ingestion.path={broken_data}"
    done = run(tmp_path, "--config", config, "--first-model", "--set", path)
    assert done.code == 4
    assert steps(done) == ["ingest"]
    before, error = done.err.split("error: step ingest failed: ")
    *_, log = error.splitlines()
    assert "events: column 'event_type' is missing" in error
    assert log == f"full log: {done.outcome.folder / LOG_FILE}"
    assert len(before.splitlines()) < 12
    assert len(error.splitlines()) < 10
    assert "Traceback" not in done.err
    assert done.outcome.steps[-1].metadata["state"] == "FAILED"
    assert not Path(Home.at(tmp_path).registry).exists()


@pytest.fixture(scope="module")
def invalid_index(refused: Done, home: Path, market: Path) -> Done:
    floor = ("--set", "indexing.validation.min_queries=100000")
    return run(home, "index_refresh", "--config", market, *floor)


@pytest.fixture(scope="module")
def refreshed(invalid_index: Done, home: Path, market: Path) -> Done:
    return run(home, "index_refresh", "--config", market)


def test_an_invalid_index_changes_nothing(invalid_index, deployed, home):
    assert invalid_index.code == 3
    assert "error: the gate cannot tell, nothing was deployed:" in invalid_index.err
    assert "100000" in invalid_index.err
    assert steps(invalid_index) == ["features", "gate"]


def test_an_index_refresh_keeps_the_towers(refreshed, deployed, home):
    assert refreshed.code == 0, refreshed.err
    assert steps(refreshed) == ["gate", "deploy"]  # the refused run's features were at hand
    registry = Registry(Home.at(home).registry)
    champion = registry.champion()
    assert champion.previous == deployed.outcome.metadata("deploy")["bundle_id"]
    new, old = registry.get(champion.bundle_id), registry.get(champion.previous)
    assert new.manifest.embedding_version == old.manifest.embedding_version
    assert len(registry.list()) == 3  # one of them was refused


def test_a_run_without_a_champion_ends_before_it_trains(market, tmp_path):
    done = run(tmp_path, "--config", market)
    assert done.code == 2
    assert "there is no champion in" in done.err
    assert "pass --first-model if this is the first" in done.err
    assert done.outcome is None


def test_a_forced_champion_can_be_reindexed(refreshed, refused, home, market):
    registry = Registry(Home.at(home).registry)
    kept = refused.outcome.metadata("keep")["refused_bundle_id"]
    registry.promote(kept, "ann", "it is better than its numbers", force=True)
    done = run(home, "index_refresh", "--config", market)
    assert done.code == 0, done.err
    champion = registry.champion()
    assert (champion.previous, champion.forced) == (kept, True)
    assert "index refreshed" in champion.reason

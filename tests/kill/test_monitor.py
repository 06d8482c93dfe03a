"""kill -9 at random moments of ``refit monitor`` while it measures, alerts and refits."""

import random
import sqlite3
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from monitoring.store import RefitState, SqlStore
from pipelines.home import Home
from pipelines.local import OUTCOME_FILE
from refit.files import write_atomically
from refit.prediction import PREDICTION_SCHEMA
from refit.registry import Registry
from tests.kill.killing import SEED, RefitProcess, Report, check_for_torn_files

KILLS = 5
TRIALS = (("clock", "clock", "promotion"), ("clock", "promotion"))
"""How each monitor is killed, before it may finish; each has its own alert."""
WITHIN = {"clock": 30.0, "promotion": 1.5}
"""Seconds within which the kill falls, counted from its start, or from the refit's promotion on."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def test_no_kill_of_the_monitor_refits_twice_or_never(
    home: Home, config: Path, champion: str, report: Report
):
    rng, registry = random.Random(SEED), Registry(home.registry)
    kills = trial = 0
    while kills < KILLS:
        until = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(days=10 * trial)
        write_drifted_log(home, registry, until)
        history, outcomes = registry.history(), list(home.runs.glob(f"*/{OUTCOME_FILE}"))
        for moment in TRIALS[trial % len(TRIALS)]:
            command = watch(home, config, until)
            if moment == "promotion":
                n = len(history)
                assert command.runs_until(lambda n=n: len(registry.history()) > n), describe(
                    command, home
                )
            if not command.runs_for(rng.uniform(0, WITHIN[moment])):
                report(f"trial {trial}: was over before its kill; {describe(command, home)}")
                break
            seconds = command.seconds
            command.kill()
            kills += 1
            check_for_torn_files(home)
            look_at_store(home)
            claimed = states(home)[trial:] or ["none yet"]
            report(
                f"trial {trial}: kill {kills} after {seconds:.1f} s ({moment}), refit {claimed[0]}"
            )
        last = watch(home, config, until)
        assert last.ends() == 0, describe(last, home)
        report(f"trial {trial}: the next run took {last.seconds:.1f} s")
        check_for_torn_files(home)
        look_at_store(home)
        refits = SqlStore(home.alerts).refits()
        assert len(refits) == trial + 1
        done = refits[-1]
        assert done.state is RefitState.SUCCEEDED, done.outcome
        new = registry.history()[len(history) :]
        assert [(change.action, change.bundle_id) for change in new] == [("promote", done.outcome)]
        assert new[0].reason == f"drift alert {done.alert_id}"
        alert = SqlStore(home.alerts).alert(done.alert_id)
        assert (alert.refit_run, alert.outcome) == (done.key, f"refit succeeded: {done.outcome}")
        ended = {path.parent.name for path in home.runs.glob(f"*/{OUTCOME_FILE}")}
        ended -= {path.parent.name for path in outcomes}
        assert [name for name in ended if not name.startswith("drift_monitoring")] == [done.key]
        trial += 1


def states(home: Home) -> list[str]:
    refits = SqlStore(home.alerts).refits()
    return [f"{refit.state}, attempt {refit.attempt}: {refit.outcome}" for refit in refits]


def describe(command: RefitProcess, home: Home) -> str:
    return "\n".join([command.output, *states(home)])


def watch(home: Home, config: Path, until: datetime) -> RefitProcess:
    events = next(home.artifacts.glob("*/ingest-data/dataset/events.parquet"))
    return RefitProcess(
        home.folder,
        *("monitor", "--config", config),
        *("--until", until.isoformat(), "--outcomes", events),
    )


def write_drifted_log(home: Home, registry: Registry, until: datetime) -> None:
    """The answers that the champion's reference was made from, a day old, with other scores."""
    champion = registry.champion()
    assert champion is not None
    bundle = registry.get(champion.bundle_id)
    answers = pq.read_table(bundle.evaluation / "predictions.parquet").slice(0, 400)
    columns = {name: answers[name].to_pylist() for name in PREDICTION_SCHEMA.names}
    n = answers.num_rows
    columns["request_id"] = [f"{until:%Y%m%d}-{row}" for row in range(n)]
    columns["bundle_id"] = [bundle.bundle_id] * n
    columns["time"] = [until - timedelta(minutes=1 + row) for row in range(n)]
    columns["scores"] = [(np.asarray(scores) + 5.0).tolist() for scores in columns["scores"]]
    folder = home.predictions / f"date={until - timedelta(days=1):%Y-%m-%d}"
    with write_atomically(folder / "drifted.parquet") as staging:
        pq.write_table(pa.table(columns, schema=PREDICTION_SCHEMA), staging)


def look_at_store(home: Home) -> None:
    """The database is sound, and nothing was claimed twice."""
    if not Path(home.alerts).exists():
        return
    db = sqlite3.connect(home.alerts)
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    db.close()
    counts = Counter(refit.alert_id for refit in SqlStore(home.alerts).refits())
    assert set(counts.values()) <= {1}

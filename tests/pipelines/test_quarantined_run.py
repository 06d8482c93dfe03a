"""A quarantine of the alert store, through refit run: left out, released, learned again."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from monitoring.quarantines import publish_quarantines
from monitoring.store import SqlStore
from pipelines.home import Home
from pipelines.local import list_runs
from refit.quarantine import Quarantine
from refit.registry import Registry

pytestmark = pytest.mark.timeout(300)


def test_a_run_leaves_out_what_is_in_quarantine_until_it_is_released(tmp_path, configs):
    def refit(*words):
        environment = {**os.environ, "REFIT_HOME": str(tmp_path)}
        environment.pop("REFIT_REGISTRY", None)
        environment.pop("REFIT_ALERT_STORE", None)
        command = [sys.executable, "-m", "pipelines.cli", *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    def ingest():
        """What a run reads; it ends at the next step, which finds no such column."""
        config = str(configs / "valid" / "tiny_market.yaml")
        done = refit(
            *("run", "--first-model", "--config", config),
            *("--set", "features.spec.item_vector=nothing"),
        )
        assert "step features failed" in done.stderr, done.stderr
        return list_runs(place)[0].metadata("ingest")["counts"]

    place = Home.at(tmp_path)
    store, registry = SqlStore(place.alerts), Registry(place.registry)
    start = datetime(2024, 3, 5, tzinfo=UTC)
    store.add_quarantine(
        Quarantine(
            quarantine_id="items-20240305T0000",
            table="items",
            start=start,
            end=start + timedelta(days=1),
            reason="prices in cents",
        )
    )
    assert publish_quarantines(store, registry) == ""
    without = ingest()
    assert without["items"]["quarantined"] > 0
    assert without["events"]["quarantined"] > 0
    assert without["items"]["rejected"] == without["events"]["rejected"] == 0
    released = refit("quarantine", "release", "items-20240305T0000", "--reason", "x", "--by", "ana")
    assert released.stdout == "items-20240305T0000 released by ana\n", released.stderr
    again = ingest()
    for table in ("items", "events"):
        assert again[table]["quarantined"] == 0
        assert again[table]["kept"] == without[table]["kept"] + without[table]["quarantined"]

"""A refit that runs as a process of this machine ends when it is no longer wanted."""

import json
import sys
import threading
import time
from functools import partial

import pytest

from components.monitoring.launch import command_launcher
from monitoring.refits import carry_out, is_ours, stop
from monitoring.settings import MonitorSettings
from monitoring.store import RefitState, SqlStore
from refit.errors import GateRefused, RefitError
from tests.monitoring.alerts import LONG_AGO, NOW, alert

SLEEPS = "import time, pathlib, sys; pathlib.Path(sys.argv[1]).touch(); time.sleep(600)"


def printing(steps, code=0):
    said = json.dumps({"steps": steps})
    return [sys.executable, "-c", f"import sys; print({said!r}); sys.exit({code})"]


@pytest.fixture
def claimed(tmp_path):
    store = SqlStore(tmp_path / "alerts.sqlite")
    store.add_alert(alert())
    return store, store.claim_refit("a1", alert(), NOW, LONG_AGO, 60)


def test_what_the_command_says_is_what_came_of_the_refit(claimed):
    _, refit = claimed
    deployed = [{"step": "deploy", "metadata": {"bundle_id": "b2"}}]
    assert command_launcher(printing(deployed))(refit, alert()) == "b2"
    refused = [{"step": "gate", "metadata": {"reasons": ["worse", "older"]}}]
    with pytest.raises(GateRefused, match="worse; older"):
        command_launcher(printing(refused, 3))(refit, alert())
    with pytest.raises(RefitError, match="ended with 4; see its log"):
        command_launcher(printing([], 4))(refit, alert())


def test_what_a_failed_run_says_last_is_what_people_read(claimed, capfd):
    _, refit = claimed
    says = "import sys; print('step 1', file=sys.stderr); sys.exit('error: no space on the disk')"
    with pytest.raises(RefitError, match="run a1 ended with 1: no space on the disk"):
        command_launcher([sys.executable, "-c", says])(refit, alert())
    assert "step 1" in capfd.readouterr().err


def test_a_refit_that_a_person_stops_ends_within_seconds(claimed, tmp_path, monkeypatch):
    monkeypatch.setattr("components.monitoring.launch.POLL_SECONDS", 0.1)
    store, refit = claimed
    started = tmp_path / "started"
    command = [sys.executable, "-c", SLEEPS, str(started)]
    launch = command_launcher(command, partial(is_ours, store))
    ended = []
    thread = threading.Thread(
        target=lambda: ended.append(
            carry_out(MonitorSettings(), store, tmp_path / "pages", refit, launch)
        )
    )
    thread.start()
    while not started.exists():
        time.sleep(0.05)
    assert store.refits()[0].state is RefitState.RUNNING
    stop(store, "a1", "ana", "too late")
    thread.join(20)
    (result,) = ended
    assert (result.state, result.outcome) == (RefitState.STOPPED, "by ana: too late")
    assert store.alert("a1").outcome == "refit stopped: by ana: too late"

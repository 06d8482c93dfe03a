import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from monitoring.alerts import acknowledge, resolve
from monitoring.monitor import MonitorInputs, accept_settled, monitor
from monitoring.reference import Reference
from monitoring.refits import carry_out, resume_refits
from monitoring.review.evidence import AlertEvidence
from monitoring.settings import MonitorSettings, PolicySettings
from monitoring.store import RefitState, SqlStore
from monitoring.windows import MonitoredData, daily_windows
from refit.alert import Action
from refit.drift import DriftState
from refit.errors import DataValidationError, GateRefused
from refit.files import read_json
from refit.incident import Cause, Incident
from tests.monitoring.alerts import LONG_AGO, NOW, alert
from tests.monitoring.conftest import QUALITY, SETTINGS
from tests.monitoring.marketplace import Market
from tests.postgres import NEWEST

POLICY = PolicySettings(minimum_new_events=100, refit_minutes=1)
MONITOR = MonitorSettings(measure=SETTINGS, policy=POLICY, quality=QUALITY, lease_seconds=60)


def inputs(marketplace, count=3):
    return MonitorInputs(
        bundle_id="b1",
        reference=Reference.read(marketplace.reference),
        data=MonitoredData(
            marketplace.log, marketplace.events, marketplace.items, marketplace.index_now
        ),
        windows=daily_windows(marketplace.end, count),
    )


def drifted(marketplace):
    return marketplace.run(Market(), 2).run(Market().change(new_category=0.3, buys=0.01), 2)


def run_monitor(marketplace, launch, settings=MONITOR, notes=()):
    store, pages = SqlStore(marketplace.root / "store.sqlite"), marketplace.root / "pages"
    given = replace(inputs(marketplace), notes=notes)
    outcome = monitor(settings, given, store, pages, marketplace.end, launch)
    return store, outcome


def test_a_feed_that_cannot_be_read_is_an_alert_in_the_store(marketplace):
    marketplace.run(Market(), 2)
    error = DataValidationError("/feeds/outcomes: event_time: has no time zone")
    given = inputs(marketplace, 1)
    data = replace(given.data, events=None, unreadable={"events": error})
    store, pages = SqlStore(marketplace.root / "store.sqlite"), marketplace.root / "pages"
    outcome = monitor(MONITOR, replace(given, data=data), store, pages, marketplace.end)
    assert outcome.decision.action is Action.ALERT
    (kept,) = store.alerts()
    assert "has no time zone" in kept.decision.reasons[-1]
    assert "has no time zone" in (pages / kept.report).read_text()


def test_the_pages_say_what_is_not_checked_and_why(marketplace):
    store, outcome = run_monitor(drifted(marketplace), None)
    left = [r for r in outcome.results if r.state is DriftState.NOT_CHECKED]
    assert {r.name for r in left} >= {"feed:items.title/missing"}
    assert not any("feed:" in result.name for result in outcome.alert.results)
    pages = marketplace.root / "pages"
    for name in ("index.html", outcome.alert.report):
        words = " ".join(Tags((pages / name).read_text()).words)
        assert "What is not checked" in words
        assert "no title column in items: nothing is checked of it" in words
    assert {r.name for r in store.newest_results()} >= {r.name for r in left}


class Tags(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.open, self.pictures, self.words = [], [], []
        self.feed(page.replace("<wbr>", ""))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        assert not str(attrs.get("src", "")).startswith("http"), "the page needs a network"
        if tag == "img" and attrs["src"].startswith("data:image/svg+xml;base64,"):
            self.pictures.append(attrs["alt"])

    def handle_data(self, data):
        self.words.append(data)


def test_drift_gets_a_page_and_one_refit(marketplace):
    launched = []

    def launch(refit, alert):
        launched.append(refit.key)
        return "b2"

    store, outcome = run_monitor(drifted(marketplace), launch)
    assert outcome.decision.action is Action.REFIT
    assert outcome.refit.state is RefitState.SUCCEEDED
    assert outcome.alert.outcome == "refit succeeded: b2"

    _, again = run_monitor(marketplace, launch)
    assert again.refit is None
    assert launched == [outcome.alert.alert_id]
    assert len(store.alerts()) == 1
    assert len(store.decisions()) == 2

    pages = marketplace.root / "pages"
    page = Tags((pages / outcome.alert.report).read_text())
    text = " ".join(" ".join(page.words).split())
    assert len(page.pictures) >= 4
    assert all(page.pictures), "every picture has a text alternative"
    for expected in (
        "query-embedding/mean_shift",
        "standard deviations",
        "the mean moved from left to right",
        "Queries differ from those that the model was trained on.",
        "Decision",
        "Purchase rate: it fell",
        "What to do.",
        "passed its gate: b2",
        "hats",
        "New listings with category_1 “hats”",
        "Queries unlike the reference's",
    ):
        assert expected in text
    assert outcome.alert.alert_id in (pages / "index.html").read_text()

    evidence = AlertEvidence.parse(read_json(pages / f"{outcome.alert.alert_id}.json"))
    hats = next(each for each in evidence.examples if each.value == "hats")
    assert len(hats.item_ids) == 4
    assert {evidence.items[item]["category_1"] for item in hats.item_ids} == {"hats"}
    named = {item for each in evidence.panel for item in each.after}
    assert named <= evidence.items.keys()

    acknowledge(store, outcome.alert.alert_id, "on <call>", pages)
    assert "by on &lt;call&gt;" in (pages / outcome.alert.report).read_text()


def test_an_alert_of_a_window_without_listings_has_its_evidence(marketplace):
    drifted(marketplace)
    listings = pq.read_table(marketplace.items)
    cut = pa.scalar(marketplace.end - timedelta(days=3), pa.timestamp("us", "UTC"))
    pq.write_table(listings.filter(pc.less(listings["listed_at"], cut)), marketplace.items)
    _, outcome = run_monitor(marketplace, lambda refit, alert: "b2")
    evidence = read_json(marketplace.root / "pages" / f"{outcome.alert.alert_id}.json")
    assert evidence["shares"]


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (GateRefused("not better"), RefitState.REFUSED),
        (ValueError("broke"), RefitState.FAILED),
    ],
)
def test_a_refit_without_a_bundle_is_recorded(marketplace, error, state):
    def launch(refit, alert):
        raise error

    _, outcome = run_monitor(drifted(marketplace), launch)
    assert outcome.refit.state is state
    assert str(error) in outcome.alert.outcome


def test_a_dry_run_starts_nothing(marketplace):
    dry = MONITOR.model_copy(update={"policy": POLICY.model_copy(update={"dry_run": True})})
    store, outcome = run_monitor(
        drifted(marketplace), lambda refit, alert: pytest.fail("started"), dry
    )
    assert outcome.decision.action is Action.REFIT
    assert store.refits() == []
    assert "nothing was started" in (marketplace.root / "pages" / outcome.alert.report).read_text()


def test_a_broken_feed_is_quarantined_and_never_trained_on(marketplace):
    broken = Market().change(new_category=0.3, brand_null=1.0)
    marketplace.run(Market(), 2).run(broken, 2)
    store, outcome = run_monitor(marketplace, lambda refit, alert: pytest.fail("started"))
    assert outcome.decision.action is Action.QUARANTINE
    # A new category came on the same day: which of the two is the story may stay open.
    assert outcome.alert.incident.cause in (Cause.UPSTREAM_FAULT, Cause.UNKNOWN)
    (quarantine,) = store.quarantines()
    assert (quarantine.table, quarantine.end) == ("items", marketplace.end)
    assert "brand is missing in 100% of the new rows" in quarantine.reason
    (entry,) = store.entries(outcome.alert.alert_id)
    assert (entry.did, entry.by) == ("quarantine", "monitor")
    run_monitor(marketplace, lambda refit, alert: pytest.fail("started"))
    assert len(store.quarantines()) == 1


def test_what_a_person_settles_is_normal_from_then_on(marketplace):
    store, outcome = run_monitor(drifted(marketplace), None)
    name, towers = "query-embedding/mean_shift", outcome.alert.embedding_version
    assert name in {result.name for result in outcome.alert.results}
    marketplace.run(Market().change(new_category=0.3, buys=0.01), 2)
    run_monitor(marketplace, None)
    alert_id = outcome.alert.alert_id
    resolved = resolve(store, alert_id, "ana", "a new category, it stays")
    assert resolved.settled_until == marketplace.end, "also what drifted after the alert"
    own = [s for s in store.summaries(towers) if s.name == name and s.drifted]
    assert len(own) > 1
    settled = accept_settled(own, store.alerts(towers))
    assert not any(summary.drifted for summary in settled)
    fault = Incident(cause=Cause.UPSTREAM_FAULT, summary="broken", began=marketplace.end)
    broken = [resolved.model_copy(update={"incident": fault})]
    assert all(summary.drifted for summary in accept_settled(own, broken))


def test_an_alert_may_be_due_for_a_refit_again(marketplace):
    keys = []

    def launch(refit, alert):
        keys.append(refit.key)
        raise GateRefused("not better")

    eager = POLICY.model_copy(update={"cooldown_hours": 0.0, "retry_days": 0.0})
    settings = MONITOR.model_copy(update={"policy": eager})
    _, first = run_monitor(drifted(marketplace), launch, settings)
    run_monitor(marketplace, launch, settings)
    assert keys == [first.alert.alert_id], "the same window starts none again"
    marketplace.run(Market().change(new_category=0.3, buys=0.01), 1)
    _, later = run_monitor(marketplace, launch, settings)
    assert later.decision.action is Action.REFIT
    assert keys[1:] == [f"{later.alert.alert_id}-{marketplace.end:%Y%m%dT%H%M}"]


def test_without_drift_no_alert_is_raised(marketplace):
    store, outcome = run_monitor(
        marketplace.run(Market(), 3),
        lambda refit, alert: pytest.fail("started"),
        notes=("b1 was trained on days that are in quarantine since",),
    )
    assert outcome.decision.action is Action.NOTHING
    assert outcome.decision.reasons[0] == "b1 was trained on days that are in quarantine since"
    assert store.alerts() == []
    assert (marketplace.root / "pages" / "index.html").exists()


DIES = """
import sys, time
from pathlib import Path
from monitoring.reference import Reference
from monitoring.refits import carry_out
from monitoring.settings import MonitorSettings
from monitoring.store import SqlStore
from tests.monitoring.alerts import LONG_AGO, NOW, alert
root, place, moment = Path(sys.argv[1]), *sys.argv[2:]
settings = MonitorSettings(lease_seconds=1)
store = SqlStore(place)
def wait():
    sys.stdout.write("here\\n"); sys.stdout.flush(); time.sleep(60)
def launch(refit, alert):
    (root / f"{refit.key}.started").touch()
    if moment == "launching": wait()
    (root / f"{refit.key}.done").touch()
    wait()
store.add_alert(alert())
if moment == "raised": wait()
refit = store.claim_refit("a1", alert(), NOW, LONG_AGO, 1)
if moment == "claimed": wait()
carry_out(settings, store, root / "pages", refit, launch)
"""


@pytest.mark.parametrize("place", ["sqlite", NEWEST], indirect=True)
@pytest.mark.parametrize("moment", ["raised", "claimed", "launching", "launched"])
def test_killed_at_any_moment_the_next_run_completes_the_refit_once(tmp_path, place, moment):
    process = subprocess.Popen(
        [sys.executable, "-c", DIES, str(tmp_path), place, moment],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "here\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()

    store = SqlStore(place)
    settings = MonitorSettings(lease_seconds=1)
    done = tmp_path / "a1.done"
    launched = []

    def launch(refit, alert):
        # As a launcher must, it finds what the first attempt finished and does not repeat it.
        if not done.exists():
            done.touch()
            launched.append(refit.attempt)
        return "b2"

    if moment == "raised":
        assert not store.add_alert(alert())
        assert store.claim_refit("a1", alert(), NOW, LONG_AGO, 1) is not None
    assert store.claim_refit("a1", alert(), NOW, LONG_AGO, 1) is None
    deadline = time.monotonic() + 20
    finished = []
    while not finished and time.monotonic() < deadline:
        finished = resume_refits(settings, store, tmp_path / "pages", launch)
        time.sleep(0.1)
    assert [(r.key, r.state, r.attempt) for r in finished] == [("a1", "succeeded", 2)]
    assert launched == ([] if moment == "launched" else [2])
    assert resume_refits(settings, store, tmp_path / "pages", launch) == []
    assert store.alert("a1").outcome == "refit succeeded: b2"


def test_a_claim_is_renewed_while_its_launch_runs(tmp_path):
    store = SqlStore(tmp_path / "store.sqlite")
    store.add_alert(alert())
    refit = store.claim_refit("a1", alert(), NOW, LONG_AGO, 0.6)
    settings = MonitorSettings(lease_seconds=0.6)
    stolen = []

    def launch(refit, alert):
        for _ in range(6):
            time.sleep(0.3)
            stolen.append(store.take_over_refit(60))
        return "b2"

    assert carry_out(settings, store, tmp_path / "pages", refit, launch).state == "succeeded"
    assert stolen == [None] * 6


def test_a_claim_survives_a_short_outage_of_the_store(postgres, monkeypatch, tmp_path):
    place = postgres.empty()
    store = SqlStore(place)
    store.add_alert(alert())
    refit = store.claim_refit("a1", alert(), NOW, LONG_AGO, 6)

    def launch(refit, alert):
        monkeypatch.setenv("PGPASSWORD", "another")
        time.sleep(3)  # the claim is renewed every two seconds
        monkeypatch.setenv("PGPASSWORD", postgres.password)
        time.sleep(4)
        assert store.take_over_refit(60) is None
        return "b2"

    settings = MonitorSettings(lease_seconds=6)
    assert carry_out(settings, store, tmp_path / "pages", refit, launch).state == "succeeded"


def test_a_refit_that_was_abandoned_too_often_is_given_up(tmp_path):
    store = SqlStore(tmp_path / "store.sqlite")
    store.add_alert(alert())
    store.claim_refit("a1", alert(), NOW, LONG_AGO, -1)
    for _ in range(3):
        store.take_over_refit(-1)
    settings = MonitorSettings(maximum_attempts=3)
    (given_up,) = resume_refits(
        settings, store, tmp_path / "pages", lambda refit, alert: pytest.fail("started")
    )
    assert given_up.state is RefitState.FAILED
    assert "given up" in store.alert("a1").outcome


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        ("monitoring.monitor, monitoring.reference", "evidently tensorflow kfp matplotlib"),
        ("monitoring.alerts, monitoring.refits", "evidently scipy pyarrow pandas matplotlib"),
    ],
)
def test_importing_loads_nothing_heavy(modules, heavy):
    code = f"import sys, {modules}; print(*set('{heavy}'.split()) & set(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert loaded.stdout.strip() == b""

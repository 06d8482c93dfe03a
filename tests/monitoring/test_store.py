import subprocess
import sys
import threading
import time
from datetime import timedelta

import pytest
from sqlalchemy import inspect

from monitoring.alerts import acknowledge, list_alerts, resolve, show_alert
from monitoring.store import (
    ALERTS,
    AUDIT,
    SCHEMA,
    SCHEMA_VERSION,
    ClaimLost,
    RefitState,
    SqlStore,
    UnknownId,
    WrongState,
    open_store,
)
from monitoring.store.tables import TABLES
from refit.alert import AlertStatus, AuditEntry
from refit.database import Database, parse_place
from refit.errors import RefitError, ServiceUnreachable, UsageError
from refit.quarantine import Quarantine
from tests.monitoring.alerts import BRAND, DRIFT, LONG_AGO, NOW, OK, QUERY, alert, series


@pytest.fixture
def store(place):
    return SqlStore(place)


def test_what_is_written_is_read_back(store):
    results = series(QUERY, OK, DRIFT, OK) + series(BRAND, OK, OK, OK)
    store.add_results(results)
    store.add_results(results)
    assert len(store.results("t1", 10)) == 6
    assert {r.window.end for r in store.results("t1", 2)} == {NOW, NOW - timedelta(days=1)}
    assert store.results("t2", 10) == []
    assert {r.window.end for r in store.newest_results()} == {NOW}
    assert sorted(store.results("t1", 10), key=str) == sorted(results, key=str)

    store.add_decision("b1", alert().decision)
    assert store.decisions("b1") == store.decisions() == [alert().decision]
    assert store.add_alert(alert())
    assert not store.add_alert(alert())
    assert store.alert("a1") == alert()
    store.add_alert(alert("a2", NOW + timedelta(days=1)))
    assert [each.alert_id for each in store.alerts("t1")] == ["a2", "a1"]
    assert store.alerts("t2") == store.decisions("b2") == []
    store.add_results([])


def test_another_process_reads_what_was_written(place, store):
    store.add_alert(alert())
    assert SqlStore(place).alerts() == [alert()]


def test_a_result_that_is_measured_again_replaces_the_earlier_one(store):
    (first,) = series(QUERY, OK)
    (again,) = series(QUERY, DRIFT)
    store.add_results([first, again])
    assert store.results("t1", 1) == [again]
    store.add_results([first])
    assert store.results("t1", 1) == [first]


def test_names_are_sorted_by_their_bytes(store):
    names = ["b", "a-b", "ab", "B", "é", "a b"]
    store.add_results([result for name in names for result in series((name, "x"), OK)])
    assert [result.subject for result in store.results("t1", 1)] == sorted(names)


def test_alerts_go_from_open_to_acknowledged_to_resolved(store):
    store.add_alert(alert())
    assert acknowledge(store, "a1", "on call").status is AlertStatus.ACKNOWLEDGED
    with pytest.raises(UsageError, match="a1 is acknowledged"):
        acknowledge(store, "a1", "on call")
    done = resolve(store, "a1", "on call", "a season")
    assert (done.status, done.resolved_by, done.note) == ("resolved", "on call", "a season")
    for again in (
        lambda: acknowledge(store, "a1", "on call"),
        lambda: resolve(store, "a1", "on call", "again"),
    ):
        with pytest.raises(UsageError, match="a1 is resolved"):
            again()
    assert list_alerts(store, AlertStatus.OPEN) == []
    assert list_alerts(store) == [show_alert(store, "a1")]


@pytest.mark.parametrize(("by", "note"), [("", "note"), ("on call", " ")])
def test_resolving_needs_a_name_and_a_note(store, by, note):
    store.add_alert(alert())
    with pytest.raises(UsageError, match="name who"):
        resolve(store, "a1", by, note)


def test_an_unknown_alert_is_a_usage_error(store):
    for call in (lambda: show_alert(store, "x"), lambda: acknowledge(store, "x", "me")):
        with pytest.raises(UsageError, match="no alert 'x'"):
            call()


def test_a_refit_is_claimed_once_and_one_at_a_time(store):
    first = store.claim_refit("k1", alert(), NOW, LONG_AGO, 60)
    assert first.state is RefitState.REQUESTED
    assert store.claim_refit("k1", alert(), NOW, LONG_AGO, 60) is None
    assert store.claim_refit("k2", alert("a2"), NOW, LONG_AGO, 60) is None
    store.set_refit(first, RefitState.SUCCEEDED, "b2")
    assert store.claim_refit("k1", alert(), NOW, LONG_AGO, 60) is None
    within_cooldown = NOW - timedelta(hours=1)
    assert store.claim_refit("k2", alert("a2"), NOW, within_cooldown, 60) is None
    assert store.claim_refit("k2", alert("a2"), NOW, NOW, 60) is not None


def test_a_claim_that_is_not_renewed_is_taken_over_and_its_first_owner_fenced_off(store):
    first = store.claim_refit("k1", alert(), NOW, LONG_AGO, 60)
    assert store.take_over_refit(60) is None
    store.renew_refit(first, -1)
    second = store.take_over_refit(60)
    assert (second.key, second.attempt) == ("k1", 2)
    assert store.take_over_refit(60) is None
    for late in (
        lambda: store.renew_refit(first, 60),
        lambda: store.set_refit(first, RefitState.SUCCEEDED, "b2"),
    ):
        with pytest.raises(ClaimLost):
            late()
    store.set_refit(second, RefitState.FAILED, "no")
    assert [(r.state, r.outcome) for r in store.refits()] == [("failed", "no")]
    with pytest.raises(ClaimLost):
        store.set_refit(second, RefitState.SUCCEEDED)


RACE = """
import sys
from monitoring.store import SqlStore
from tests.monitoring.alerts import LONG_AGO, NOW, alert
store = SqlStore(sys.argv[1])
sys.stdout.write("ready\\n"); sys.stdout.flush()
sys.stdin.readline()
claims = [store.claim_refit(f"k{i % 3}", alert(), NOW, LONG_AGO, 60) for i in range(20)]
raised = store.add_alert(alert())
sys.stdout.write(f"{sum(c is not None for c in claims)} {int(raised)}\\n")
"""


def test_of_many_processes_exactly_one_claims(place):
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, place],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    outputs = [racer.communicate(timeout=60)[0].split() for racer in racers]
    assert all(racer.returncode == 0 for racer in racers)
    assert sum(int(claims) for claims, _ in outputs) == 1
    assert sum(int(raised) for _, raised in outputs) == 1


def test_a_change_that_fails_leaves_nothing(place, store):
    store.add_alert(alert())

    def fail():
        with Database(place).writing() as db:
            db.execute(ALERTS.delete())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert store.alerts() == [alert()]


def test_a_reader_sees_one_state_and_blocks_no_writer(postgres):
    place = postgres.empty()
    store = SqlStore(place)
    with Database(place, read_only=True).reading() as db:
        assert db.execute(ALERTS.select()).all() == []
        store.add_alert(alert())
        assert db.execute(ALERTS.select()).all() == []
    assert store.alerts() == [alert()]


def test_a_writer_waits_for_another_and_gives_up_with_a_message(place, store):
    hasty = SqlStore(place, patience_seconds=1)
    with (
        Database(place).writing(),
        pytest.raises(ServiceUnreachable, match=r"cannot be used.*lock"),
    ):
        hasty.add_alert(alert())
    waiting = threading.Thread(target=lambda: SqlStore(place).add_alert(alert()))
    with Database(place).writing():
        waiting.start()
        time.sleep(0.3)
        assert store.alerts() == []
    waiting.join(10)
    assert store.alerts() == [alert()]


def test_a_writer_that_stalls_does_not_block_the_others(postgres):
    place = postgres.empty()
    store = SqlStore(place)

    def stall():
        with Database(place, patience_seconds=1).writing() as db:
            db.execute(ALERTS.delete())
            assert store.add_alert(alert())  # once the one that stalls has lost the lock
            db.execute(ALERTS.delete())

    with pytest.raises(ServiceUnreachable, match="idle-in-transaction"):
        stall()
    assert store.alerts() == [alert()]


OLD_TABLES = (
    "CREATE TABLE readings (towers_id TEXT, subject TEXT, body TEXT)",
    "CREATE TABLE alerts (alert_id TEXT PRIMARY KEY, towers_id TEXT, status TEXT, body TEXT)",
)


def test_a_store_of_another_version_is_refused_and_left_as_it_is(place):
    with Database(place).writing() as db:
        for table in OLD_TABLES:
            db.exec_driver_sql(table)
    for _ in range(2):
        with pytest.raises(UsageError, match="another version of Refit wrote this alert store"):
            SqlStore(place)
    with Database(place).reading() as db:
        assert sorted(inspect(db).get_table_names()) == ["alerts", "readings"]


def test_a_store_of_a_later_version_is_refused(place):
    SqlStore(place)
    with Database(place).writing() as db:
        db.execute(SCHEMA.update().values(version=SCHEMA_VERSION + 1))
    with pytest.raises(UsageError, match="move the SQLite file away, or drop the tables"):
        SqlStore(place)


def test_without_a_server_the_store_is_unreachable(tmp_path, monkeypatch):
    monkeypatch.setenv("PGPASSWORD", "hush")
    for place in (
        "postgresql+psycopg://refit@127.0.0.1:1/refit",
        f"postgresql://r@/r?host={tmp_path}",
    ):
        with pytest.raises(ServiceUnreachable, match="check that the server runs") as refused:
            SqlStore(place)
        assert place in str(refused.value)
        assert "hush" not in str(refused.value)


@pytest.mark.parametrize("password", ["hush", None])
def test_a_wrong_password_is_named_as_the_cause_and_not_repeated(postgres, monkeypatch, password):
    place = postgres.empty()
    monkeypatch.delenv("PGPASSWORD")
    if password:
        monkeypatch.setenv("PGPASSWORD", password)
    with pytest.raises(ServiceUnreachable, match=r"password.*PGPASSWORD holds") as refused:
        SqlStore(place)
    assert "hush" not in str(refused.value)


def test_a_user_who_may_not_create_tables_gets_a_message(postgres):
    place = postgres.empty()
    with postgres.connect() as db:
        db.execute(f"CREATE ROLE guest LOGIN PASSWORD '{postgres.password}'".encode())
    with pytest.raises(ServiceUnreachable, match="permission denied"):
        SqlStore(place.replace("//refit@", "//guest@"))


def test_a_file_that_is_no_store_is_unreachable(tmp_path):
    path = tmp_path / "store.sqlite"
    path.write_text("nothing of ours, and longer than the head of a database" * 10)
    with pytest.raises(ServiceUnreachable, match="not a database; check that the file"):
        SqlStore(path)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("postgresql+psycopg://refit:hush@db/refit", "put it into the environment variable"),
        ("postgresql+psycopg://refit:hu/s@hush@db/refit", "PGPASSWORD|cannot be read"),
        ("postgresql+psycopg://refit:1/hush@db/refit", "PGPASSWORD"),
        ("postgresql+psycopg://refit@db/refit?password=hush", "PGPASSWORD"),
        ("postgresql+psycopg://refit:hush@db:port/refit", "cannot be read: give a path"),
        ("postgresql+asyncpg://refit@db/refit", "cannot be a postgresql.asyncpg database"),
        ("mysql://refit@db/refit", "cannot be a mysql database: give a path"),
        ("sqlite://", "give a path"),
        ("s3://refit/alerts.sqlite", "give a path"),
    ],
)
def test_an_invalid_place_is_a_usage_error_and_no_password_is_repeated(place, words):
    with pytest.raises(UsageError, match=words) as refused:
        SqlStore(place)
    assert "hush" not in str(refused.value)


def test_a_url_of_a_file_is_that_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    SqlStore(f"sqlite:///{tmp_path}/a b.sqlite").add_alert(alert())
    for same in ("a b.sqlite", tmp_path / "a b.sqlite", "sqlite:///a b.sqlite"):
        assert SqlStore(same).alerts() == [alert()]
        assert parse_place(same) == parse_place("a b.sqlite")


def entry(did="acknowledge", alert_id="a1"):
    return AuditEntry(
        at=NOW, by="ana", role="on-call", did=did, subject=alert_id, reason="why", alert_id=alert_id
    )


def make_older(place):
    """A store of version 1: it has neither the later tables nor what they refuse."""
    with Database(place).writing() as db:
        later = [TABLES.tables[n] for n in TABLES.tables if n not in OF_VERSION_1]
        TABLES.drop_all(db, later)
        if db.dialect.name == "postgresql":
            db.exec_driver_sql("DROP FUNCTION refuse_audit_change()")
        db.execute(SCHEMA.update().values(version=1))


OF_VERSION_1 = ("schema_version", "results", "decisions", "alerts", "refits")


def test_an_older_store_becomes_one_of_this_version_and_loses_nothing(place, store):
    results = series(QUERY, OK, DRIFT)
    store.add_results(results)
    store.add_decision("b1", alert().decision)
    store.add_alert(alert())
    refit = store.claim_refit("a1", alert(), NOW, LONG_AGO, 60)
    make_older(place)
    newer = SqlStore(place)
    assert newer.results("t1", 9) == results
    assert (newer.alerts(), newer.decisions(), newer.refits()) == (
        [alert()],
        [alert().decision],
        [refit],
    )
    acknowledge(newer, "a1", "ana")
    assert [each.did for each in newer.entries("a1")] == ["acknowledge"]
    with Database(place).reading() as db:
        assert set(TABLES.tables) <= set(inspect(db).get_table_names())
        assert db.scalar(SCHEMA.select()) == SCHEMA_VERSION


def test_an_older_store_can_be_read_before_it_is_changed(place, store):
    store.add_alert(alert())
    make_older(place)
    assert open_store(place).alerts() == [alert()]


def test_nothing_is_opened_or_created_where_no_monitor_has_run(place, tmp_path):
    assert open_store(place) is None
    assert not list(tmp_path.iterdir())
    SqlStore(place)
    assert open_store(place).alerts() == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET body = '{}'",
        "DELETE FROM audit",
        "DELETE FROM audit WHERE id = 1",
        "TRUNCATE audit",
    ],
)
def test_the_database_refuses_to_change_the_audit_trail(place, store, statement):
    if not place.startswith("postgresql"):
        statement = statement.replace("TRUNCATE", "DELETE FROM")  # which SQLite has not
    store.add_entry(entry())

    def change():
        with Database(place).writing() as db:
            db.exec_driver_sql(statement)

    with pytest.raises(ServiceUnreachable, match="the audit trail cannot be changed"):
        change()
    assert store.entries() == [entry()]
    assert store.check_audit() == 1


def test_an_entry_that_was_changed_behind_the_databases_back_shows(place, store):
    for did in ("acknowledge", "mute", "resolve"):
        store.add_entry(entry(did))
    assert store.check_audit() == 3
    with Database(place).writing() as db:
        if db.dialect.name == "postgresql":
            db.exec_driver_sql("ALTER TABLE audit DISABLE TRIGGER ALL")
        else:
            db.exec_driver_sql("DROP TRIGGER audit_no_update")
        changed = entry("mute").model_copy(update={"by": "nobody"})
        db.execute(AUDIT.update().where(AUDIT.c.id == 2).values(body=changed.model_dump_json()))
    with pytest.raises(RefitError, match="entry 2 of the audit trail was changed"):
        store.check_audit()


def test_a_change_and_its_entry_are_written_together_or_not_at_all(store):
    store.add_alert(alert())
    with pytest.raises(WrongState):
        store.update_alert("a1", (AlertStatus.RESOLVED,), entry=entry(), note="x")
    assert store.entries() == []
    store.update_alert("a1", (AlertStatus.OPEN,), entry=entry(), note="x")
    assert (store.alert("a1").note, store.entries("a1")) == ("x", [entry()])
    assert store.entries("a2") == []


def test_a_quarantine_is_in_force_until_it_is_released(store):
    kept = Quarantine(quarantine_id="a1-items", table="items", start=NOW, reason="x", alert_id="a1")
    assert store.add_quarantine(kept, entry("quarantine"))
    assert not store.add_quarantine(kept)
    assert store.quarantines() == [kept]
    released = store.release_quarantine("a1-items", NOW, "ana", "mended", entry("release"))
    assert (released.is_in_force, released.released_by) == (False, "ana")
    assert (store.quarantines(), store.quarantines(in_force=False)) == ([], [released])
    with pytest.raises(WrongState, match="released by ana already"):
        store.release_quarantine("a1-items", NOW, "bo", "again")
    with pytest.raises(UnknownId, match="no quarantine 'x'"):
        store.release_quarantine("x", NOW, "bo", "again")
    assert not store.add_quarantine(kept)  # the same fault is not quarantined anew by itself
    assert [each.did for each in store.entries("a1")] == ["release", "quarantine"]


def test_a_message_is_claimed_by_one_until_it_is_sent(store):
    first = store.claim_notification("k", "a1", "webhook", 60)
    assert store.claim_notification("k", "a1", "webhook", 60) is None
    waiting = store.set_notification(first, sent=False, error="away", wait_seconds=60)
    assert (waiting.sent, waiting.error) == (False, "away")
    assert store.claim_notification("k", "a1", "webhook", 60) is None
    store.set_notification(waiting, sent=False, wait_seconds=-1)
    second = store.claim_notification("k", "a1", "webhook", 60)
    assert second.attempt == 2
    with pytest.raises(ClaimLost):
        store.set_notification(first, sent=True)
    store.set_notification(second, sent=True)
    assert store.claim_notification("k", "a1", "webhook", 60) is None
    assert [(each.attempt, each.sent) for each in store.notifications()] == [(2, True)]


def test_how_runs_are_started_is_kept(store):
    assert store.run_request("index_refresh") == ""
    store.keep_run_request("index_refresh", "{}")
    store.keep_run_request("index_refresh", '{"a": 1}')
    assert store.run_request("index_refresh") == '{"a": 1}'


def test_a_refit_under_way_is_stopped_whoever_runs_it(store):
    refit = store.claim_refit("k1", alert(), NOW, LONG_AGO, 60)
    assert store.stop_refit("k1", "by ana: too late").state is RefitState.STOPPED
    with pytest.raises(ClaimLost):
        store.renew_refit(refit, 60)
    with pytest.raises(WrongState, match="no refit k1 is under way"):
        store.stop_refit("k1", "again")
    assert store.take_over_refit(60) is None

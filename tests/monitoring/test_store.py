import subprocess
import sys
import threading
import time
from datetime import timedelta

import pytest
from sqlalchemy import inspect

from monitoring.alerts import acknowledge, list_alerts, resolve, show_alert
from monitoring.store import ALERTS, SCHEMA, SCHEMA_VERSION, ClaimLost, RefitState, SqlStore
from refit.alert import AlertStatus
from refit.database import Database, parse_place
from refit.errors import ServiceUnreachable, UsageError
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
        for _ in range(8)
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

import os
import socket
import sqlite3
from pathlib import Path

import pytest

from monitoring.store import SqlStore
from pipelines.doctor import machine
from pipelines.doctor.checks import CheckResult, exit_code_of, run_check
from pipelines.doctor.machine import (
    check_alert_store,
    check_disk,
    check_home,
    check_ports,
    check_registry,
)
from refit.files import write_json
from refit.ports import free_ports
from serving.settings import ServeSettings
from tests.disks import disk, full_disk


def only(results) -> CheckResult:
    (result,) = results
    return result


def test_free_ports_are_ok_and_a_taken_one_is_named(monkeypatch):
    names = ("http_port", "grpc_port", "metrics_port", "model_server_port")
    # The real defaults may be in use on this machine.
    for name, port in zip(names, free_ports(len(names)), strict=True):
        monkeypatch.setattr(ServeSettings.model_fields[name], "default", port)
    assert only(check_ports()).ok
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", ServeSettings.model_fields["grpc_port"].default))
        taken.listen()
        result = only(check_ports())
    assert not result.ok
    assert result.exit_code == 2
    assert f"{taken and ServeSettings.model_fields['grpc_port'].default} (gRPC, --grpc-port)" in (
        result.detail
    )


def test_a_home_is_checked_and_left_as_it_was(tmp_path):
    home = tmp_path / "not" / "yet"
    result = only(check_home(home))
    assert result.ok
    assert "the first command creates it" in result.detail
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "reason"), [("ro,size=256k", "Read-only file system"), ("size=256k", "No space")]
)
def test_a_home_on_a_read_only_or_full_disk_is_not_ok(tmp_path, options, reason):
    full = options.startswith("size")
    mounted = full_disk(tmp_path / "disk") if full else disk(tmp_path / "disk", options)
    with mounted as folder:
        result = only(check_home(folder / "home"))
    assert not result.ok
    assert reason in result.detail
    assert "REFIT_HOME" in result.detail


def test_a_home_that_is_a_file_is_not_ok(tmp_path):
    (tmp_path / "file").touch()
    assert "is a file, a folder is needed" in only(check_home(tmp_path / "file" / "home")).detail


def test_a_disk_with_little_space_is_not_ok(tmp_path, monkeypatch):
    assert only(check_disk(tmp_path / "home")).ok
    monkeypatch.setattr(machine, "LEAST_FREE_BYTES", 10**18)
    result = only(check_disk(tmp_path / "home"))
    assert not result.ok
    assert "1000000000 GB are needed" in result.detail


def test_a_disk_without_room_for_files_is_not_ok(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "LEAST_FREE_BYTES", 0)
    with disk(tmp_path / "disk", "size=256k,nr_inodes=4") as folder:
        for number in range(3):
            (folder / str(number)).touch()
        result = only(check_disk(folder))
    assert not result.ok
    assert "inodes" in result.detail


def test_a_registry(tmp_path):
    assert "has no bundles yet" in only(check_registry(str(tmp_path / "registry"))).detail
    promotion = {
        "number": 1,
        "action": "promote",
        "bundle_id": "b1",
        "previous": None,
        "at": "2024-05-01T00:00:00Z",
        "by": "tester",
        "reason": "first",
    }
    write_json(tmp_path / "registry" / "champion.json", promotion)
    result = only(check_registry(str(tmp_path / "registry")))
    assert not result.ok
    assert "b1 is not among the bundles" in result.detail
    (tmp_path / "registry" / "champion.json").write_text("{")
    result = only(run_check("registry", lambda: check_registry(str(tmp_path / "registry"))))
    assert not result.ok
    assert "champion.json" in result.detail


def test_an_alert_store(tmp_path, place):
    assert "creates it" in only(check_alert_store(str(tmp_path / "none.sqlite"))).detail
    assert not (tmp_path / "none.sqlite").exists()
    SqlStore(place)
    assert only(check_alert_store(place)).ok


def test_an_alert_store_of_another_version_is_not_ok(tmp_path):
    with sqlite3.connect(tmp_path / "old.sqlite") as db:
        db.execute("CREATE TABLE alerts (alert_id TEXT PRIMARY KEY, body TEXT)")
    place = str(tmp_path / "old.sqlite")
    result = only(run_check("alert store", lambda: check_alert_store(place)))
    assert not result.ok
    assert "another version of Refit wrote this alert store" in result.detail


def test_an_alert_store_that_is_something_else_is_not_ok(tmp_path):
    (tmp_path / "text.sqlite").write_text("not a database at all" * 100)
    result = only(run_check("store", lambda: check_alert_store(str(tmp_path / "text.sqlite"))))
    assert (result.ok, result.exit_code) == (False, 5)
    assert "not a database" in result.detail
    with sqlite3.connect(tmp_path / "other.sqlite") as other:
        other.execute("CREATE TABLE songs (title TEXT)")
    assert "is another database" in only(check_alert_store(str(tmp_path / "other.sqlite"))).detail
    result = only(run_check("store", lambda: check_alert_store("postgresql://u@127.0.0.1:1/d")))
    assert (result.ok, result.exit_code) == (False, 5)


def test_what_could_not_be_checked_is_not_ok():
    def check():
        raise KeyError("x")

    result = only(run_check("subject", check))
    assert (result.ok, result.exit_code) == (False, 2)
    assert result.detail == "it could not be checked: KeyError: 'x'"


def test_the_exit_code_is_that_of_the_unreachable_service():
    def result(code: int) -> CheckResult:
        return CheckResult(subject="s", ok=not code, detail="d", exit_code=code)

    assert exit_code_of([result(0)]) == 0
    assert exit_code_of([result(0), result(2)]) == 2
    assert exit_code_of([result(2), result(5), result(0)]) == 5


def test_root_is_named_by_its_number(tmp_path):
    with disk(tmp_path / "disk", "ro,size=256k") as folder:
        assert f"user {os.getuid()}" in only(check_home(Path(folder))).detail

"""Errors of disks, networks, services and files: each gets a sentence and an exit code.

The errors are raised by the libraries themselves, wherever that needs no service.
"""

import errno
import importlib
import json
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from refit.errors import UsageError
from refit.failures import explain, summarize

CLOSED = "http://127.0.0.1:1"
S3 = {"key": "k", "secret": "s", "client_kwargs": {"endpoint_url": CLOSED}}


def connect_to_nothing() -> None:
    socket.create_connection(("127.0.0.1", 1))


def resolve_nothing() -> None:
    socket.getaddrinfo("no-such-host.invalid", 80)


def request_with_requests() -> None:
    importlib.import_module("requests").get(CLOSED)


def request_with_urllib3() -> None:
    importlib.import_module("urllib3").request("GET", CLOSED, retries=False)


def request_with_urllib() -> None:
    importlib.import_module("urllib.request").urlopen(CLOSED)


def list_a_bucket() -> None:
    from s3fs import S3FileSystem

    S3FileSystem(**S3, config_kwargs={"retries": {"max_attempts": 0}}).ls("bucket")


def refused_by_a_bucket() -> None:
    """As s3fs reports it: a PermissionError that was made from botocore's."""
    from botocore.exceptions import ClientError
    from s3fs.errors import translate_boto_error

    answer = {"Error": {"Code": "InvalidAccessKeyId", "Message": "no such key"}}
    raise translate_boto_error(ClientError(answer, "ListObjectsV2"))


def call_grpc() -> None:
    import grpc

    channel = grpc.insecure_channel("127.0.0.1:1")
    channel.unary_unary("/service/method")(b"", timeout=5)


def call_kubernetes() -> None:
    from kubernetes.client import ApiException

    raise ApiException(status=403, reason="Forbidden")


def read_no_kubeconfig() -> None:
    from kubernetes import config

    config.load_kube_config("/no/such/kubeconfig")


def open_a_broken_sqlite_file(folder: Path) -> None:
    (folder / "text.sqlite").write_text("not a database" * 100)
    sqlite3.connect(folder / "text.sqlite").execute("SELECT * FROM t")


def open_sqlite_in_no_folder(folder: Path) -> None:
    from sqlalchemy import create_engine, text

    with create_engine(f"sqlite:///{folder}/no/such/folder.sqlite").connect() as connection:
        connection.execute(text("SELECT 1"))


def connect_to_no_postgresql() -> None:
    from sqlalchemy import create_engine

    create_engine("postgresql+psycopg://u@127.0.0.1:1/d").connect()


def use_up_duckdb() -> None:
    import duckdb

    with duckdb.connect(config={"memory_limit": "10MB", "temp_directory": ""}) as connection:
        connection.execute("SELECT list(range) FROM range(20_000_000)").fetchall()


def read_broken_parquet(folder: Path) -> None:
    import pyarrow.parquet as pq

    (folder / "events.parquet").write_bytes(b"PAR1 and then nothing of the kind")
    pq.read_table(folder / "events.parquet")


def read_broken_yaml() -> None:
    import yaml

    yaml.safe_load("a: [1, 2")


def validate_settings() -> None:
    from monitoring.settings import MonitorSettings

    MonitorSettings.model_validate({"measure": {"depth": "many"}})


def write_to_a_full_device() -> None:
    with Path("/dev/full").open("wb", buffering=0) as file:
        file.write(b"x")


def bind_a_taken_port() -> None:
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        first.listen()
        second.bind(first.getsockname())


def allocate_too_much() -> None:
    import numpy as np

    np.zeros((10**9, 10**9))


def save_to_a_full_disk() -> None:
    import tensorflow as tf

    tf.io.write_file("/dev/full", b"x")


CASES: list[tuple[Callable[..., None], int, str]] = [
    (write_to_a_full_device, 1, "no space is left on a disk"),
    (lambda folder: (folder / "missing").read_text(), 2, "missing does not exist: check the path"),
    (lambda folder: folder.read_text(), 2, "is a folder, a file is needed"),
    (lambda folder: (folder / "file" / "x").write_text(""), 2, "is not a folder, or is below"),
    (lambda folder: Path(folder / ("x" * 300)).touch(), 2, "is too long"),
    (connect_to_nothing, 5, "a service cannot be reached: [Errno 111] Connection refused"),
    (resolve_nothing, 5, "the name of a host cannot be resolved"),
    (bind_a_taken_port, 2, "a port is in use already"),
    (request_with_requests, 5, "a request failed"),
    (request_with_urllib3, 5, "a request failed"),
    (request_with_urllib, 5, "a request failed"),
    (list_a_bucket, 5, "the object store failed"),
    (refused_by_a_bucket, 5, "the object store refused ListObjectsV2: InvalidAccessKeyId"),
    (call_grpc, 5, "a gRPC call failed: UNAVAILABLE"),
    (call_kubernetes, 5, "the cluster's API answered 403 Forbidden"),
    (read_no_kubeconfig, 2, "the kubeconfig cannot be used"),
    (open_a_broken_sqlite_file, 1, "file is not a database"),
    (open_sqlite_in_no_folder, 1, "check that its folder exists"),
    (connect_to_no_postgresql, 5, "the PostgreSQL database cannot be used"),
    (use_up_duckdb, 1, "the memory for tables is used up"),
    (read_broken_parquet, 4, "a data file cannot be read"),
    (read_broken_yaml, 2, "a file is not YAML at line 1, column 9"),
    (validate_settings, 2, "measure.depth: Input should be a valid integer"),
    (lambda: importlib.import_module("no_such_package"), 2, "refit doctor checks"),
    (lambda: b"\xff".decode(), 2, "is not UTF-8 text"),
    (lambda: subprocess.run([sys.executable, "-c", "exit(3)"], check=True), 1, "ended with code 3"),
    (allocate_too_much, 1, "memory is used up"),
    (save_to_a_full_disk, 1, "no space is left on a disk"),
]


def error_of(fail: Callable[..., object], folder: Path) -> BaseException:
    (folder / "file").touch()
    with pytest.raises(BaseException) as caught:
        fail(folder) if fail.__code__.co_argcount else fail()
    return caught.value


@pytest.mark.parametrize(("fail", "code", "words"), CASES, ids=[case[2][:60] for case in CASES])
def test_an_error_that_a_user_can_fix_is_explained(fail, code, words, tmp_path):
    error = error_of(fail, tmp_path)
    found = explain(error)
    assert found is not None, summarize(error)
    assert words in str(found)
    assert found.exit_code == code
    assert ":" in str(found) or ";" in str(found)  # what happened, then what to do


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.EROFS, "/data/x is on a read-only disk"),
        (errno.EACCES, f"user {os.getuid()} has no permission for /data/x"),
        (errno.EPERM, "is not permitted to do this with /data/x"),
        (errno.EDQUOT, "the disk quota is used up at /data/x"),
        (errno.EMFILE, "too many files are open"),
        (errno.EIO, "the disk failed at /data/x"),
        (errno.EHOSTUNREACH, "a host is unreachable"),
        (errno.ETIMEDOUT, "did not answer in time"),
    ],
)
def test_os_errors_are_explained_by_errno(code, words):
    assert words in str(explain(OSError(code, os.strerror(code), "/data/x")))


@pytest.mark.parametrize(
    "error",
    [
        KeyError("x"),
        ValueError("no"),
        AssertionError(),
        RuntimeError("x"),
        json.JSONDecodeError("x", "y", 0),
        OSError("without a number"),
    ],
)
def test_a_bug_is_not_explained(error):
    assert explain(error) is None


def test_a_bug_in_an_except_block_is_not_explained():
    def read() -> None:
        try:
            Path("/no/such/file").read_text()
        except OSError:
            {}["key"]

    with pytest.raises(KeyError) as caught:
        read()
    assert explain(caught.value) is None


def test_a_refit_error_in_the_chain_is_the_explanation():
    usage = UsageError("name another folder")
    assert explain(usage) is usage
    outer = RuntimeError("outer")
    outer.__cause__ = usage
    assert explain(outer) is usage


def test_a_summary_is_one_short_line():
    text = summarize(ValueError("one\ntwo " + "x" * 1000))
    assert text.startswith("ValueError: one two xxx")
    assert len(text) < 400
    assert summarize(KeyError()) == "KeyError"


def test_explaining_imports_no_library():
    code = (
        "import sys; from refit.failures import explain; explain(OSError(28, 'x')); "
        "print(*{m.partition('.')[0] for m in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    libraries = {"yaml", "pydantic", "botocore", "requests", "grpc", "kubernetes", "sqlalchemy"}
    assert not libraries & set(done.stdout.split())

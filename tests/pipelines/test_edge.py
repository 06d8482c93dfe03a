"""Nothing ends in a traceback: one line that says what to do, and the documented exit code."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.disks import disk, full_disk
from tests.pipelines.terminal import take_interrupts

CODES = {0, 1, 2, 3, 4, 5}


@pytest.fixture
def full(tmp_path):
    with full_disk(tmp_path / "full") as folder:
        yield folder


@pytest.fixture
def read_only(tmp_path):
    with disk(tmp_path / "read-only", "ro,size=256k") as folder:
        yield folder


@pytest.fixture
def taken_by_a_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("not a folder")
    return path


def is_one_line(err: str) -> bool:
    return err.count("error: ") == 1 and "Traceback" not in err


@pytest.mark.parametrize(
    ("place", "code", "words"),
    [
        ("full", 1, "no space is left"),
        ("read_only", 2, "is on a read-only disk"),
        ("taken_by_a_file", 2, "is not a folder, or is below a file"),
    ],
)
@pytest.mark.parametrize("command", ["run", "simulate", "demo", "alerts list"])
def test_a_place_that_cannot_be_written(refit, request, place, code, words, command):
    folder = request.getfixturevalue(place)
    options = {
        "run": ("--first-model", "--home", folder),
        "simulate": (folder / "market", "--days", 1),
        "demo": ("--out", folder / "demo"),
        "alerts list": ("--home", folder),
    }[command]
    result = refit(*command.split(), *options)
    assert is_one_line(result.err), result.err
    if command != "alerts list":  # what SQLite reports is explained by its own words
        assert words in result.err
        assert result.code == code, result.err
    assert result.code in CODES - {0}


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("bundles list --registry foo://bucket", 2, "Protocol not known"),
        ("bundles list --registry s3://bucket/x", 5, "cannot be reached"),
        ("run --config /dev/null", 2, "must hold settings by name"),
        ("run --config {folder}", 2, "Is a directory"),
        ("run --config {folder}/broken.yaml", 2, "is not YAML"),
        ("submit --cluster {folder}/broken.yaml", 2, "is not YAML"),
        ("submit --cluster {folder}", 2, "Is a directory"),
        ("alerts list --store {folder}/broken.yaml", 5, "file is not a database"),
        ("alerts list --store postgresql+psycopg://u@127.0.0.1:1/d", 5, "cannot be used"),
        ("serve --python /no/such/python --registry {folder}", 2, "does not exist"),
        ("recommend --url http://no-such-host.invalid", 5, "no answer from"),
        ("recommend --url not-a-url", 5, "no answer from"),
        ("simulate /proc/nothing", 2, "does not exist"),
        ("rollout status --cluster {folder}/cluster.yaml", 2, "set KUBECONFIG"),
        ("status --cluster {folder}/cluster.yaml", 5, "the kubeconfig cannot be used"),
    ],
)
def test_bad_input(refit, tmp_path, monkeypatch, words, code, message):
    (tmp_path / "broken.yaml").write_text("a: [1, 2\n" * 100)
    (tmp_path / "cluster.yaml").write_text("registry: s3://refit/registry\n")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    result = refit(*words.format(folder=tmp_path).split())
    assert is_one_line(result.err), result.err
    assert message in result.err
    assert result.code == code
    assert result.out == ""


@pytest.fixture
def mistake(monkeypatch):
    """A command with a mistake in its code."""

    def fail(*_: object) -> None:
        raise KeyError("flour")

    monkeypatch.setattr("pipelines.cli.run.list_runs", fail)


def test_an_unexpected_error_names_the_file_with_its_traceback(refit, mistake, tmp_path):
    for options, folder in (((), "home"), (("--home", tmp_path / "mine"), "mine")):
        result = refit("status", *options)
        assert result.code == 1
        (line,) = result.err.splitlines()
        assert line.startswith("error: unexpected error: KeyError: 'flour'; the full traceback is ")
        assert line.endswith(", please report it")
        (log,) = (tmp_path / folder / "logs").iterdir()
        assert str(log) in line
        assert "Traceback" in log.read_text()
        assert log.read_text().startswith("refit 0.1.0 status, Python 3.12")


def test_where_the_home_cannot_be_written_the_traceback_goes_elsewhere(
    refit, mistake, taken_by_a_file
):
    result = refit("status", "--home", taken_by_a_file)
    assert result.code == 1
    (line,) = result.err.splitlines()
    log = Path(line.partition("traceback is in ")[2].partition(",")[0])
    assert "Traceback" in log.read_text()
    log.unlink()


@pytest.mark.parametrize("words", [("--debug", "status"), ("status", "--debug")])
def test_debug_shows_the_traceback_wherever_it_stands(refit, mistake, words, monkeypatch):
    monkeypatch.setenv("REFIT_DEBUG", "0")
    result = refit(*words)
    assert result.code == 1
    assert "Traceback (most recent call last)" in result.err
    assert result.err.splitlines()[-1].startswith("error: unexpected error: KeyError")


def test_debug_shows_the_traceback_of_a_known_error_too(refit, monkeypatch):
    monkeypatch.setenv("REFIT_DEBUG", "1")
    result = refit("bundles", "show", "nope")
    assert result.code == 2
    assert "Traceback (most recent call last)" in result.err


def test_ctrl_c_is_130(refit, monkeypatch):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipelines.cli.run.list_runs", interrupt)
    assert refit("status") == (130, "", "stopped\n")


def in_a_shell(line: str, tmp_path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    command = line.replace("refit", f"{sys.executable} -m pipelines.cli", 1)
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        env={**os.environ, "REFIT_HOME": str(tmp_path / "home"), **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "line", ["refit simulate --list-changes | true", "refit status --json | true"]
)
def test_a_reader_that_is_gone_gets_no_message(line, tmp_path):
    done = in_a_shell(line, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (141, "", "")


def test_a_reader_that_leaves_early_gets_what_it_reads(tmp_path):
    done = in_a_shell("refit simulate --list-changes | head -n 1", tmp_path)
    assert done.returncode in (0, 141)  # it may have written all before
    assert (done.stdout, done.stderr) == ("name\tdoes\n", "")


def test_a_full_disk_for_the_output(tmp_path):
    done = in_a_shell("refit simulate --list-changes > /dev/full", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: no space is left on a disk")
    assert done.stderr.count("\n") == 1


def test_an_output_that_knows_few_characters(tmp_path):
    done = in_a_shell("refit status nope --cluster Ü.yaml", tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 2
    assert r"cluster file '\xdc.yaml'" in done.stderr


def test_ctrl_c_in_a_pipe_ends_in_one_line(tmp_path):
    command = [sys.executable, "-m", "pipelines.cli", "simulate", tmp_path / "m"]
    command += ["--days", "100000"]
    started = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, preexec_fn=take_interrupts
    )
    with started as process:
        time.sleep(4)
        process.send_signal(signal.SIGINT)
        try:
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, err) == (130, "stopped\n")


def test_usage_errors_and_help_pass(refit):
    assert refit("--help").code == 0
    assert refit("status", "--no-such-option").code == 2


def test_the_exit_codes_are_in_the_first_help(refit):
    text = refit("--help").out
    assert all(f" {code} " in text for code in CODES | {130})

"""The checks of the Python environments, on real ones."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.doctor.checks import run_check
from pipelines.doctor.environments import (
    MAIN_IMPORTS,
    Probe,
    _check_keras,
    check_environment,
    probe_environment,
    read_lock,
)

ROOT = Path(__file__).parent.parent.parent.parent


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Path:
    """The Python of an environment without any package."""
    folder = tmp_path_factory.mktemp("bare") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    return folder / "bin" / "python"


def check(python, lock, imports):
    results = check_environment("env", python, lock, imports)
    return {result.subject.removeprefix("env: "): result for result in results}


def test_the_environment_of_the_tests_is_ok():
    found = check(Path(sys.executable), ROOT / "requirements.txt", ("yaml", "duckdb"))
    assert {subject: result.ok for subject, result in found.items()} == {
        "Python": True,
        "packages": True,
        "imports": True,
        "Keras": False,  # TensorFlow was not imported
    }
    assert "as locked in requirements.txt" in found["packages"].detail


def test_an_environment_without_packages_names_them(bare, tmp_path):
    lock = tmp_path / "requirements.txt"
    lock.write_text("# made by hand\nno-such-package==1.2.3 \\\n    --hash=sha256:0\nother==2\n")
    found = check(bare, lock, ("json", "no_such_package"))
    assert found["Python"].ok
    assert not found["packages"].ok
    assert "no-such-package missing instead of 1.2.3" in found["packages"].detail
    assert "make setup" in found["packages"].detail
    assert not found["imports"].ok
    assert "no_such_package (ModuleNotFoundError" in found["imports"].detail
    assert {result.exit_code for result in found.values()} == {0, 2}


def test_another_version_than_the_locked_one_is_not_ok(tmp_path):
    lock = tmp_path / "requirements.txt"
    lock.write_text("PyYAML==0.1\n")
    result = check(Path(sys.executable), lock, ("yaml",))["packages"]
    assert not result.ok
    assert "instead of 0.1" in result.detail


def test_a_missing_environment_or_lock_is_not_ok(bare, tmp_path):
    (result,) = check_environment("env", tmp_path / "none", tmp_path / "lock", ())
    assert not result.ok
    assert "does not exist; make setup creates it" in result.detail
    assert not check(bare, tmp_path / "lock", ())["packages"].ok


def test_a_python_that_does_not_run_is_not_ok(tmp_path):
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    (result,) = run_check("env", lambda: check_environment("env", broken, tmp_path / "lock", ()))
    assert not result.ok
    assert "ended with code 3" in result.detail


def probe(tensorflow="2.20.0", keras="2.20.1", used="tf_keras"):
    versions = {"tensorflow": tensorflow, "tf-keras": keras}
    return Probe(python=(3, 12, 1), failed={}, keras=used, versions=versions)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (probe(keras="2.19.0"), "does not fit tensorflow 2.20.0"),
        (probe(used="keras"), "TensorFlow uses keras instead of tf_keras"),
        (probe(used=""), "TensorFlow uses no Keras"),
    ],
)
def test_keras_must_be_the_one_for_this_tensorflow(found, words, monkeypatch):
    monkeypatch.delenv("TF_USE_LEGACY_KERAS", raising=False)
    assert _check_keras("env", probe()).ok
    result = _check_keras("env", found)
    assert not result.ok
    assert words in result.detail


def test_a_variable_that_selects_keras_3_is_not_ok(monkeypatch):
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "0")
    assert "unset it, or set it to 1" in _check_keras("env", probe()).detail


def test_the_lock_is_read_as_pip_reads_it():
    lock = read_lock(ROOT / "requirements.txt")
    assert len(lock) > 100
    assert lock["tensorflow"].startswith("2.")
    assert "tf-keras" in lock
    assert all(not set(name) & set("_.") for name in lock)


def test_the_main_environment_has_its_modules_and_keras_2():
    found = probe_environment(Path(sys.executable), MAIN_IMPORTS)
    assert not found.failed
    assert found.keras == "tf_keras"

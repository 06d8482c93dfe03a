"""Checks of both Python environments: versions as locked, imports, and Keras 2."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pipelines.doctor.checks import Check, CheckResult, not_ok, ok
from refit.settings import Settings

PYTHON = (3, 12)
KERAS_VARIABLE = "TF_USE_LEGACY_KERAS"
PROBE_SECONDS = 180
SHOWN = 4
MAIN_IMPORTS = (
    "tensorflow",
    "tf_keras",
    "components.training.model",
    "kfp",
    "kfp.kubernetes",
    "evidently",
    "pandera",
    "ibis",
    "duckdb",
    "faiss",
    "pyarrow",
    "sklearn",
    "sqlalchemy",
    "psycopg",
    "s3fs",
)
SERVING_IMPORTS = (
    "serving.model_server",
    "serving.doors.seldon",
    "serving.doors.worker",
    "seldon_core",
    "faiss",
    "s3fs",
)
PROBE = """
import importlib, importlib.metadata, json, sys
failed, keras = {}, ""
for name in json.loads(sys.argv[1]):
    try:
        importlib.import_module(name)
    except (Exception, SystemExit) as error:
        failed[name] = f"{type(error).__name__}: {error}".splitlines()[0]
if "tensorflow" in sys.modules:
    try:
        keras = sys.modules["tensorflow"].keras.Model.__module__.partition(".")[0]
    except Exception as error:
        keras = f"{type(error).__name__}: {error}".splitlines()[0]
versions = {d.name: d.version for d in importlib.metadata.distributions() if d.name}
print(json.dumps({
    "python": list(sys.version_info[:3]), "failed": failed, "keras": keras, "versions": versions
}))
"""


class Probe(Settings):
    """What a Python environment holds.

    Attributes:
        python: Version of its Python.
        failed: By module, why it cannot be imported.
        keras: Package of the Keras that TensorFlow uses, ``tf_keras`` for Keras 2; "" without
            TensorFlow.
        versions: Installed version by distribution.
    """

    python: tuple[int, int, int]
    failed: dict[str, str]
    keras: str
    versions: dict[str, str]


def environment_checks(serving_python: Path) -> dict[str, Check]:
    """The checks of both environments, by subject."""
    from serving.processes import PROJECT

    return {
        "main environment": lambda: check_environment(
            "main environment", Path(sys.executable), PROJECT / "requirements.txt", MAIN_IMPORTS
        ),
        "serving environment": lambda: check_environment(
            "serving environment",
            serving_python if serving_python.is_absolute() else PROJECT / serving_python,
            PROJECT / "serving" / "requirements.txt",
            SERVING_IMPORTS,
        ),
    }


def check_environment(
    name: str, python: Path, lock: Path, imports: Sequence[str]
) -> Iterator[CheckResult]:
    """Check one environment.

    Args:
        name: What to call it.
        python: Its Python.
        lock: Its locked requirements.
        imports: Modules that must be importable.
    """
    if not python.exists():
        yield not_ok(name, f"{python} does not exist; make setup creates it, or name it: --python")
        return
    probe = probe_environment(python, imports)
    yield _check_python(name, python, probe)
    yield _check_versions(name, lock, probe.versions)
    yield _check_imports(name, imports, probe)
    if "tf-keras" in _by_normal_name(probe.versions):
        yield _check_keras(name, probe)


def probe_environment(python: Path, imports: Sequence[str]) -> Probe:
    """Import modules with a Python, and list what is installed there.

    Raises:
        subprocess.SubprocessError: It cannot be run, or takes too long.
    """
    from serving.processes import PROJECT

    # As an installed package, Refit is not on the path of the other environment.
    ours = [] if PROJECT.name == "site-packages" else [str(PROJECT)]
    paths = [*ours, os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [str(python), "-c", PROBE, json.dumps(imports)],
        capture_output=True,
        text=True,
        check=True,
        timeout=PROBE_SECONDS,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in paths if path),
            KERAS_VARIABLE: "1",  # as for steps
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "CUDA_VISIBLE_DEVICES": "-1",
        },
    )
    return Probe.parse_json(done.stdout.splitlines()[-1])


def _check_python(name: str, python: Path, probe: Probe) -> CheckResult:
    version = ".".join(map(str, probe.python))
    if probe.python[:2] == PYTHON:
        return ok(f"{name}: Python", f"{version} at {python}")
    wanted = ".".join(map(str, PYTHON))
    return not_ok(
        f"{name}: Python",
        f"{python} is Python {version}, {wanted} is needed; install it, then make setup",
    )


def _check_versions(name: str, lock: Path, versions: Mapping[str, str]) -> CheckResult:
    subject = f"{name}: packages"
    if not lock.exists():
        return not_ok(subject, f"{lock} does not exist, so the versions cannot be compared with it")
    locked, installed = read_lock(lock), _by_normal_name(versions)
    wrong = [
        f"{package} {installed.get(package) or 'missing'} instead of {version}"
        for package, version in locked.items()
        if installed.get(package) != version
    ]
    if not wrong:
        return ok(subject, f"{len(locked)} as locked in {lock.name}")
    return not_ok(subject, f"{_some(wrong)}; make setup installs what {lock} locks")


def _check_imports(name: str, imports: Sequence[str], probe: Probe) -> CheckResult:
    subject = f"{name}: imports"
    if not probe.failed:
        return ok(subject, f"{len(imports)} modules can be imported")
    faults = [f"{module} ({why})" for module, why in probe.failed.items()]
    return not_ok(subject, f"{_some(faults)}; make setup installs the environment again")


def _check_keras(name: str, probe: Probe) -> CheckResult:
    """TensorFlow Recommenders needs Keras 2, whose releases follow TensorFlow's."""
    subject = f"{name}: Keras"
    versions = _by_normal_name(probe.versions)
    tensorflow, keras = versions.get("tensorflow", "missing"), versions["tf-keras"]
    setting = os.environ.get(KERAS_VARIABLE, "1")
    if setting != "1":
        return not_ok(
            subject,
            f"{KERAS_VARIABLE} is {setting!r}, which selects Keras 3; unset it, or set it to 1",
        )
    if _minor(tensorflow) != _minor(keras):
        return not_ok(
            subject,
            f"tf-keras {keras} does not fit tensorflow {tensorflow}: their first two numbers must "
            "be the same; make setup installs both",
        )
    if probe.keras != "tf_keras":
        return not_ok(
            subject,
            f"TensorFlow uses {probe.keras or 'no Keras'} instead of tf_keras; make setup installs "
            "the environment again",
        )
    return ok(subject, f"tf-keras {keras} with tensorflow {tensorflow}")


def read_lock(path: Path) -> dict[str, str]:
    """Version by package of a locked requirements file."""
    pattern = re.compile(r"^([A-Za-z0-9][\w.-]*)(?:\[[^\]]*\])?==([^\s;\\]+)", re.MULTILINE)
    found = pattern.findall(path.read_text("utf-8"))
    return {_normal(name): version for name, version in found}


def _by_normal_name(versions: Mapping[str, str]) -> dict[str, str]:
    return {_normal(name): version for name, version in versions.items()}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]


def _some(texts: Sequence[str]) -> str:
    more = len(texts) - SHOWN
    return ", ".join(texts[:SHOWN]) + (f" and {more} more" if more > 0 else "")

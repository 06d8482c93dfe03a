"""The page's package works outside the checkout; its module works as a file inside a copy of it."""

import json
import os
import shutil
import subprocess

import pytest

from refit.dataset import DatasetManifest
from tests.docs.pages import PYTHON, ROOT, install, read_commands, write_files
from tests.docs.shell import fits

PAGE = "how-to/add-a-source.md"
PACKAGES = ("refit", "components", "pipelines", "monitoring", "serving", "simulation")
PROGRAMS = {"refit": (PYTHON, "-m", "pipelines.cli"), "python": (PYTHON,)}
INGEST = """
import json, sys
from pathlib import Path
from components.ingestion.fingerprint import fingerprint_source
from components.ingestion.ingest import ingest
from components.ingestion.sources import SOURCES
from pipelines.settings import read_settings

settings = read_settings("acme.yaml", sys.argv[2:]).ingestion
fingerprint = fingerprint_source(settings)
manifest = ingest(settings, Path(sys.argv[1]))
assert manifest.fingerprint == fingerprint
print(json.dumps(SOURCES.load(settings.source).__file__))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the files of the page."""
    folder = tmp_path_factory.mktemp("reader")
    write_files(PAGE, folder)
    return folder


@pytest.fixture(scope="module")
def environment(folder, tmp_path_factory):
    """The environment in which the page's package is installed."""
    return install(folder / "acme-source", tmp_path_factory.mktemp("installed"))


def run(command, folder, environment):
    ended = subprocess.run(
        [str(part) for part in command], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert "Traceback" not in ended.stderr
    return ended


def ingest(dataset, folder, environment, *changes):
    """Run the ingestion step with the config of the page; returns the file of the source."""
    ended = run([PYTHON, "-c", INGEST, dataset, *changes], folder, environment)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


@pytest.mark.parametrize(("command", "expected"), read_commands(PAGE))
def test_a_command_prints_what_the_page_shows(command, expected, folder, environment):
    program, *arguments = command.split()
    ended = run([*PROGRAMS[program], *arguments], folder, environment)
    assert fits(expected, ended.stdout + ended.stderr), ended.stdout + ended.stderr


@pytest.mark.parametrize("source", ["acme", "acme_source.sales"])
def test_the_installed_package_is_ingested(source, folder, environment, tmp_path):
    place = ingest(tmp_path / "dataset", folder, environment, f"ingestion.source={source}")
    assert not place.startswith(str(ROOT))
    manifest = DatasetManifest.read(tmp_path / "dataset")
    assert manifest.source == source
    assert manifest.terms.startswith("Acme's sales")
    assert manifest.context_columns == ("campaign",)
    assert {name: counts.kept for name, counts in manifest.counts.items()} == {
        "events": 5,
        "items": 3,
        "users": 3,
    }


@pytest.fixture(scope="module")
def copy(folder, tmp_path_factory):
    """A copy of the checkout with the page's module in the folder of built-in sources."""
    copy = tmp_path_factory.mktemp("copy")
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, copy / package, ignore=ignored)
    source = copy / "components" / "ingestion" / "sources" / "acme.py"
    source.write_text((folder / "acme-source" / "acme_source" / "sales.py").read_text())
    return copy


def test_a_file_among_the_built_in_sources_is_ingested(folder, copy, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    place = ingest(tmp_path / "dataset", folder, environment)
    assert place == str(copy / "components" / "ingestion" / "sources" / "acme.py")
    assert DatasetManifest.read(tmp_path / "dataset").counts["events"].kept == 5
    shown = run(
        [*PROGRAMS["refit"], "run", "--config", "acme.yaml", "--print-config"], folder, environment
    ).stdout
    assert "source: acme" in shown
    assert "shop: berlin" in shown

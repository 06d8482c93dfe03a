"""The page's rule acts in the evaluation and on the server, from a package and from a file."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.docs.pages import PYTHON, ROOT, install, read_commands, write_files
from tests.docs.shell import fits

PAGE = "how-to/add-an-eligibility-rule.md"
PROGRAMS = {"refit": (PYTHON, "-m", "pipelines.cli"), "python": (PYTHON,)}
APPLY = ROOT / "tests" / "docs" / "apply_rule.py"
RULE = "ships_to"

SHOWN_ONLINE = {
    "ann": ["both", "everywhere", "new everywhere", "new norway"],
    "guest in Sweden": ["both", "everywhere", "new everywhere", "new sweden", "sweden"],
    "guest": ["everywhere", "new everywhere"],
}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of the page."""
    folder = tmp_path_factory.mktemp("page")
    write_files(PAGE, folder)
    return folder


@pytest.fixture(scope="module")
def installed(page: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which the page's package is installed."""
    return install(page / "acme-rule", tmp_path_factory.mktemp("site"))


def run(
    command: list[object], page: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(part) for part in command], cwd=page, env=environment, capture_output=True, text=True
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def apply_rule(page: Path, environment: dict[str, str], out: Path) -> str:
    """Check what is shown offline and online; returns the file of the rule."""
    path = os.pathsep.join(filter(None, [environment.get("PYTHONPATH"), str(ROOT)]))
    command = [PYTHON, APPLY, out]
    done = run(command, page, {**environment, "PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)

    offline = found["offline"]
    assert offline["shown"] == [["both", "everywhere"]], "Ann lives in Norway"
    assert offline["removed"][RULE] == 2
    assert offline["left_out"] == {RULE: 1}, "she bought what does not ship to Norway"

    online = found["online"]
    for who, shown in SHOWN_ONLINE.items():
        for answer in online[who].values():
            assert answer["shown"] == shown
            assert answer["removed"][RULE] == 7 - len(shown)
            assert sum(answer["removed"].values()) == 7 - len(shown), "no other rule acts"
    place: str = found["place"]
    return place


def test_the_package_adds_a_rule(page, installed, tmp_path):
    place = apply_rule(page, installed, tmp_path)
    assert not place.startswith(str(ROOT))


def test_one_file_inside_adds_a_rule(page, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "refit", copy / "refit", ignore=shutil.ignore_patterns("__pycache__"))
    inside = copy / "refit" / "eligibility_rules" / "ships_to.py"
    shutil.copy(page / "acme-rule" / "acme_rule" / "ships_to.py", inside)
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    (tmp_path / "out").mkdir()
    assert apply_rule(page, environment, tmp_path / "out") == str(inside)


@pytest.mark.parametrize(("command", "expected"), read_commands(PAGE))
def test_a_command_prints_what_the_page_shows(command, expected, page, installed):
    program, *arguments = command.replace('"', "").split()
    done = run([*PROGRAMS[program], *arguments], page, installed)
    assert fits(expected, done.stdout + done.stderr), done.stdout + done.stderr


def test_without_the_package_the_rule_is_not_known(page, tmp_path):
    done = run([*PROGRAMS["refit"], "run", "--config", "acme.yaml"], page, dict(os.environ))
    assert done.returncode == 2
    assert "features.market: unknown eligibility rule 'ships_to': known: bought," in done.stderr

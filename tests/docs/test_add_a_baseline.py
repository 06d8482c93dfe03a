"""The page "Add a baseline", followed word for word: in a package, and as a file inside Refit."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from components.evaluation.results import Results
from refit.verdict import Verdict
from tests.docs.pages import PYTHON, ROOT, install, run_commands, write_files
from tests.docs.shell import fits

PAGE = "how-to/add-a-baseline.md"
MARKET = ROOT / "tests" / "pipelines" / "configs" / "valid" / "tiny_market.yaml"
CODE = ("components", "monitoring", "pipelines", "refit", "serving", "simulation")
QUICK = {"max_epochs": 2, "choose_epochs": False}

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    write_files(PAGE, folder)
    return folder


@pytest.fixture(scope="module")
def config(page: Path) -> Path:
    """The page's lines in the config of a market so small that its gate must let much pass."""
    settings = yaml.safe_load(MARKET.read_text("utf-8"))
    lines = yaml.safe_load((page / "same_seller.yaml").read_text("utf-8"))
    settings["evaluation"]["baselines"] |= lines["evaluation"].pop("baselines")
    settings["evaluation"] |= lines["evaluation"]
    settings["training"] |= QUICK
    path = page / "market.yaml"
    path.write_text(yaml.safe_dump(settings, width=1000), "utf-8")
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One home for both runs: the second takes all steps before the evaluation from the cache."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def installed(page: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return install(page / "acme-baseline", tmp_path_factory.mktemp("site"))


def refit_run(
    home: Path, environment: dict[str, str], folder: Path, *arguments: object
) -> subprocess.CompletedProcess[str]:
    first = [] if (home / "registry" / "champion.json").exists() else ["--first-model"]
    return subprocess.run(
        [PYTHON, "-m", "pipelines.cli", "run", *first, *map(str, arguments)],
        env={**environment, "REFIT_HOME": str(home)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def read_evaluation(home: Path, run: str) -> tuple[Results, Verdict, str]:
    """Results, verdict and report page of a run."""
    record = json.loads((home / "runs" / run / "steps" / "gate.json").read_text("utf-8"))
    folder = Path(record["metadata"]["evaluation"])
    results = Results.parse(json.loads((folder / "metrics.json").read_text("utf-8")))
    verdict = Verdict.parse(json.loads((folder / "verdict.json").read_text("utf-8")))
    return results, verdict, (folder / "report.html").read_text("utf-8")


def assert_it_ran(home: Path, run: str, log: str) -> None:
    assert "tuned same seller: " in log
    assert "ranked with same seller: " in log
    results, verdict, report = read_evaluation(home, run)
    method = next(m for m in results.methods if m.name == "same seller")
    assert (method.kind, method.extension, method.not_run) == ("baseline", "same_seller", "")
    assert method.tuned["half_life_days"] in (1, 3, 10)
    value = method.metrics["hit_rate_at_10"].value
    assert value is not None
    assert 0 < value < 1
    assert method.gain["hit_rate_at_10"].value is not None
    assert '<th scope="row">same seller</th>' in report
    assert "<dt>same seller</dt>" in report
    assert any(check.name.startswith("gain over same seller") for check in verdict.checks)


def test_the_package_adds_a_baseline(config, home, installed, tmp_path):
    done = refit_run(home, installed, tmp_path, "--config", config, "--run-id", "package")
    assert done.returncode in (0, 3), done.stderr  # passed or refused, both evaluated
    assert_it_ran(home, "package", done.stderr)


def test_one_file_inside_adds_a_baseline(config, home, page, tmp_path):
    for room in CODE:
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    source = page / "acme-baseline" / "acme_baseline" / "same_seller.py"
    shutil.copy(source, tmp_path / "components/evaluation/baselines/same_seller.py")
    inside = {**os.environ, "PYTHONPATH": str(tmp_path)}
    # With another seed, for the cache knows settings, not code.
    arguments = ("--config", config, "--run-id", "inside", "--set", "evaluation.seed=8")
    done = refit_run(home, inside, tmp_path, *arguments)
    assert done.returncode in (0, 3), done.stderr
    assert_it_ran(home, "inside", done.stderr)


def test_the_commands_of_the_page_show_what_it_shows(config, home, installed, page):
    outputs = list(run_commands(PAGE, page, {**installed, "REFIT_HOME": str(home)}))
    assert len(outputs) == 3
    for shown, real in outputs:
        assert fits(shown, real), real


def test_misspelt_options_are_an_error_before_any_step(config, home, installed, tmp_path):
    wrong = "evaluation.baselines.options={same_seller: {half_life: [1]}}"
    done = refit_run(home, installed, tmp_path, "--config", config, "--set", wrong)
    assert done.returncode == 2
    assert "error: baseline 'same_seller': SameSellerOptions" in done.stderr
    assert "half_life: unknown name; did you mean 'half_lives_days'?" in done.stderr


def test_the_config_of_the_page_is_complete(installed, tmp_path):
    write_files(PAGE, tmp_path)
    with (tmp_path / "market.yaml").open("a", encoding="utf-8") as config:
        config.write((tmp_path / "same_seller.yaml").read_text("utf-8"))
    command = [PYTHON, "-m", "pipelines.cli", "run", "--config", "market.yaml", "--print-config"]
    done = subprocess.run(command, cwd=tmp_path, env=installed, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

"""The page "Add an eligibility rule", followed word for word: from training to an answer."""

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from components.evaluation.results import Results
from pipelines.home import Home
from tests.docs.pages import PYTHON, ROOT, install, read_commands, write_files

PAGE = "how-to/add-an-eligibility-rule.md"
MARKET = ROOT / "tests" / "pipelines" / "configs" / "valid" / "tiny_market.yaml"
CODE = ("components", "monitoring", "pipelines", "refit", "serving", "simulation")
LIMIT = 50.0
ASK = """
import json, sys
from pathlib import Path
from serving.processes import Process, free_port
from serving.recommender import Recommender
from serving.settings import RecommenderSettings

registry, log, *bodies = sys.argv[1:]
port = free_port()
command = [sys.executable, "-m", "serving.model_server", "--port", str(port)]
server = Process("model server", command, Path(log) / "model_server.log")
settings = RecommenderSettings(
    registry=registry, model_server=f"127.0.0.1:{port}", log_folder=log, towers_wait_s=60
)
try:
    with Recommender(settings) as recommender:
        answers = [recommender.recommend({"k": 500, **json.loads(body)}) for body in bodies]
        removed = recommender.counters.total("refit_ineligible_items", rule="minors")
        print(json.dumps({"answers": answers, "removed": removed}))
finally:
    server.stop()
"""

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    write_files(PAGE, folder)
    return folder


@pytest.fixture(scope="module")
def config(page: Path) -> Path:
    """The page's lines in the config of a small market."""
    settings = yaml.safe_load(MARKET.read_text("utf-8"))
    for part, lines in yaml.safe_load((page / "minors.yaml").read_text("utf-8")).items():
        settings[part] |= lines
    path = page / "market.yaml"
    path.write_text(yaml.safe_dump(settings, width=1000), "utf-8")
    return path


@pytest.fixture(scope="module")
def installed(page: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return install(page / "acme-refit", tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def home(config: Path, installed: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home whose champion was trained and evaluated under the rule."""
    folder = tmp_path_factory.mktemp("home")
    done = run([PYTHON, "-m", "pipelines.cli", "run", "--config", config], folder, installed)
    assert done.returncode == 0, done.stdout + done.stderr
    return Home.at(folder)


def run(
    command: list[object], folder: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        env={**environment, "REFIT_HOME": str(folder)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def ask(
    home: Home, environment: dict[str, str], log: Path, *requests: dict[str, object]
) -> subprocess.CompletedProcess[str]:
    log.mkdir()
    bodies = [json.dumps(request) for request in requests]
    return run([PYTHON, "-c", ASK, home.registry, log, *bodies], ROOT, environment)


def test_the_rule_acts_in_the_evaluation(home):
    (record,) = home.runs.glob("*/steps/gate.json")
    evaluation = Path(json.loads(record.read_text("utf-8"))["metadata"]["evaluation"])
    results = Results.parse(json.loads((evaluation / "metrics.json").read_text("utf-8")))
    assert results.protocol["market"] == {"stock": "one_of_a_kind", "rules": ["minors"]}
    assert results.removed["minors"] > 0
    assert results.left_out["minors"] > 0
    for name in ("report.html", "report.md"):
        assert "minors" in (evaluation / name).read_text("utf-8")


def test_the_rule_acts_in_an_answer(home, installed, tmp_path):
    import pyarrow.parquet as pq

    from refit.registry import Registry

    registry = Registry(home.registry)
    bundle = registry.get(registry.champion_id())
    items = pq.read_table(bundle.index / "items.parquet", columns=["item_id", "price"])
    price = dict(zip(*(column.to_pylist() for column in items.columns), strict=True))
    ages = ({"age": 17}, {"age": 18}, {})
    done = ask(home, installed, tmp_path / "log", *({"context": age} for age in ages))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert {answer["fallback"] for answer in found["answers"]} == {None}
    minor, adult, unknown = (
        [price[item["item_id"]] for item in answer["items"]] for answer in found["answers"]
    )
    assert max(minor) <= LIMIT
    assert max(unknown) <= LIMIT
    assert max(adult) > LIMIT
    assert found["removed"] > 0


def test_a_server_without_the_rule_does_not_start(home, tmp_path):
    done = ask(home, dict(os.environ), tmp_path / "log", {})
    assert done.returncode != 0
    assert "unknown eligibility rule 'minors'" in done.stderr


def test_the_commands_of_the_page_show_what_it_shows(config, installed, page):
    programs = {"refit": [PYTHON, "-m", "pipelines.cli"], "python": [PYTHON]}
    commands = read_commands(PAGE)
    assert len(commands) == 2
    for command, output in commands:
        program, *arguments = shlex.split(command)
        done = run([*programs[program], *arguments], page, installed)
        assert "Traceback" not in done.stderr
        for line in output.splitlines():
            assert line in done.stdout + done.stderr


def test_one_file_inside_adds_the_rule(page, tmp_path):
    for room in CODE:
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    module = page / "acme-refit" / "acme_refit" / "minors.py"
    shutil.copy(module, tmp_path / "refit" / "eligibility_rules" / "minors.py")
    code = (
        "from refit.eligibility import MarketSettings, Rules; "
        "rules = Rules.load(MarketSettings(rules=('minors',))); "
        "print(*rules.names[-1:], *rules.item_columns, *rules.query_columns)"
    )
    done = run([PYTHON, "-c", code], tmp_path, {**os.environ, "PYTHONPATH": str(tmp_path)})
    assert done.stdout.split() == ["minors", "price", "age"], done.stderr

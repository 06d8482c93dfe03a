"""The page "Add a drift metric", followed word for word: in a package, and as a file in Refit."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.docs.pages import PYTHON, ROOT, install, run_commands, write_files
from tests.docs.shell import fits

PAGE = "how-to/add-a-drift-metric.md"
MARKET = ROOT / "tests" / "pipelines" / "configs" / "valid" / "tiny_market.yaml"
NAME = "input:items.title/title_words"
CALIBRATE_AND_MONITOR = """
import json, sys
from dataclasses import dataclass
from pathlib import Path
import numpy as np
import pyarrow as pa
import yaml
from monitoring.windows import MonitoredData, daily_windows
from monitoring.monitor import MonitorInputs, monitor
from monitoring.reference import Reference, build_reference
from monitoring.settings import MonitorSettings
from monitoring.store import SqlStore
from tests.monitoring.marketplace import TOWERS, Market, Marketplace
WORDS = np.array("a warm short blue silk coat hardly worn with belt".split())
@dataclass(frozen=True)
class TitledMarket(Market):
    longest: int = 20
    def items(self, day, days=1):
        table, kinds = super().items(day, days)
        random = np.random.default_rng((self.seed, day, 4))
        lengths = random.integers(3, 11, len(kinds))
        titles = [" ".join(random.choice(WORDS, n)[: self.longest]) for n in lengths]
        return table.append_column("title", pa.array(titles)), kinds
config, root = map(Path, sys.argv[1:])
settings = MonitorSettings.parse(yaml.safe_load(config.read_text("utf-8"))["monitoring"])
root.mkdir(exist_ok=True)
reference = root / "reference"
place = Marketplace(root / f"market-{len(list(root.iterdir()))}", TitledMarket())
if not reference.exists():
    built = place.predictions, place.index, place.dataset, TOWERS
    build_reference(settings.measure, *built, reference)
place.run(TitledMarket(), 3).run(TitledMarket(longest=4), 2)
data = MonitoredData(place.log, place.events, place.items, place.index_now)
inputs = MonitorInputs("bundle", Reference.read(reference), data, daily_windows(place.end, 5))
store = SqlStore(root / f"store-{len(list(root.iterdir()))}.sqlite")
outcome = monitor(settings, inputs, store, root / "pages", place.end)
found = {
    "results": [result.model_dump(mode="json") for result in outcome.results],
    "reasons": outcome.decision.reasons,
    "page": str(root / "pages" / outcome.alert.report),
}
sys.stdout.write(json.dumps(found))
"""
ACKNOWLEDGE = """
import sys
from pathlib import Path
from monitoring.alerts import acknowledge, list_alerts
from monitoring.store import SqlStore
(store,) = Path(sys.argv[1]).glob("*.sqlite")
(alert,) = list_alerts(SqlStore(store))
acknowledge(SqlStore(store), alert.alert_id, "on call", Path(sys.argv[1]) / "pages")
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    write_files(PAGE, folder)
    return folder


@pytest.fixture(scope="module")
def installed(page, tmp_path_factory):
    return install(page / "acme-metric", tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def root(page, installed, tmp_path_factory):
    """Where the page's metric was calibrated and measured."""
    root = tmp_path_factory.mktemp("root") / "measured"
    found = calibrate_and_monitor(page / "words.yaml", root, installed, ROOT)
    (root / "found.json").write_text(json.dumps(found))
    return root


def calibrate_and_monitor(config, root, environment, folder):
    done = subprocess.run(
        [PYTHON, "-c", CALIBRATE_AND_MONITOR, config, root],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def states(found, name=NAME):
    subject, _, statistic = name.partition("/")
    return [
        result["state"]
        for result in found["results"]
        if (result["subject"], result["statistic"]) == (subject, statistic)
    ]


def assert_the_page_shows_the_metric(page):
    text = page.read_text("utf-8").replace("<wbr>", "")
    _, *cards = text.split('<section class="card finding">')
    (card,) = (card for card in cards if NAME in card)
    for expected in (
        "Titles have become shorter, or longer.",
        "Compare some new listings with what their sellers wrote.",
        "(words)",
        "<figcaption>Number of words; each histogram sums to 1.</figcaption>",
    ):
        assert expected in card


def test_the_package_adds_a_metric(root):
    found = json.loads((root / "found.json").read_text())
    assert states(found) == ["ok", "ok", "ok", "drift", "drift"]
    drifted = [r for r in found["results"] if r["statistic"] == "title_words"][3:]
    assert all(2 < result["value"] < 3 and result["threshold"] == 0.5 for result in drifted)
    assert any(reason.startswith(f"{NAME} drifts: 2.") for reason in found["reasons"])
    assert_the_page_shows_the_metric(Path(found["page"]))


def test_the_page_outlives_the_package(root):
    subprocess.run([PYTHON, "-c", ACKNOWLEDGE, root], cwd=ROOT, check=True)
    page = Path(json.loads((root / "found.json").read_text())["page"])
    assert "by on call" in page.read_text("utf-8")
    assert_the_page_shows_the_metric(page)


def test_without_the_package_its_results_are_insufficient_data(page, root, tmp_path):
    shutil.copytree(root / "reference", tmp_path / "reference")
    found = calibrate_and_monitor(page / "words.yaml", tmp_path, os.environ, ROOT)
    assert set(states(found)) == {"insufficient data"}
    (why,) = {result["why"] for result in found["results"] if result["statistic"] == "title_words"}
    assert why.startswith("unknown drift metric 'title_words'")
    assert states(found, "input:items.title/null_share") == ["ok"] * 5
    assert "unknown drift metric &#39;title_words&#39;" in Path(found["page"]).read_text("utf-8")


def test_one_file_inside_adds_a_metric(page, tmp_path):
    tree = tmp_path / "tree"
    for room in ("monitoring", "refit", "tests/monitoring"):
        shutil.copytree(ROOT / room, tree / room, ignore=shutil.ignore_patterns("__pycache__"))
    module = page / "acme-metric" / "acme_metric" / "title_words.py"
    shutil.copy(module, tree / "monitoring" / "drift_metrics")
    inside = {**os.environ, "PYTHONPATH": str(tree)}
    found = calibrate_and_monitor(page / "words.yaml", tmp_path / "measured", inside, tree)
    assert states(found) == ["ok", "ok", "ok", "drift", "drift"]
    assert_the_page_shows_the_metric(Path(found["page"]))


def test_the_commands_of_the_page_show_what_it_shows(page, installed):
    settings = yaml.safe_load(MARKET.read_text("utf-8"))
    lines = yaml.safe_load((page / "words.yaml").read_text("utf-8"))
    settings["monitoring"]["measure"] |= lines["monitoring"].pop("measure")
    settings["monitoring"] |= lines["monitoring"]
    (page / "market.yaml").write_text(yaml.safe_dump(settings, width=1000), "utf-8")
    environment = {**installed, "PYTHONPATH": f"{installed['PYTHONPATH']}:{ROOT}"}
    outputs = list(run_commands(PAGE, page, environment))
    assert len(outputs) == 3
    for shown, real in outputs:
        assert fits(shown, real), real


def test_the_config_of_the_page_is_complete(installed, tmp_path):
    write_files(PAGE, tmp_path)
    with (tmp_path / "market.yaml").open("a", encoding="utf-8") as config:
        config.write((tmp_path / "words.yaml").read_text("utf-8"))
    command = [PYTHON, "-m", "pipelines.cli", "run", "--config", "market.yaml", "--print-config"]
    done = subprocess.run(command, cwd=tmp_path, env=installed, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

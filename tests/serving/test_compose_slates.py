"""The files of "Compose slates and explore" are settings, a script and a retriever that work."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import yaml

from serving.settings import RecommenderSettings
from tests.docs.pages import ROOT, read_blocks, write_files
from tests.serving.tiny import NOW, ids

PAGE = "how-to/compose-slates.md"


def test_the_settings_of_the_page_are_settings():
    files = [block for block in read_blocks(PAGE) if block.title == "recommender.yaml"]
    assert len(files) == 2
    flat = {"registry": "r", "log_folder": "l"}
    slate, experiment = (
        RecommenderSettings.parse({**flat, **yaml.safe_load(block.text)}) for block in files
    )
    assert slate.slate.exploration.share == 0.05
    assert experiment.experiment.buckets["exploring"].slate.exploration.share == 0.05
    (block,) = (block for block in read_blocks(PAGE) if "- name: slate" in block.text)
    (parameter,) = yaml.safe_load(block.text)
    assert RecommenderSettings.parse({**flat, "slate": parameter["value"]}).slate.caps


def test_the_script_of_the_page_compares_slates(serve, tmp_path, registry):
    recommender = serve(log_folder=tmp_path / "predictions")
    for number in range(5):
        recommender.recommend({"user_id": f"user-{number}", "time": NOW})
    recommender.close()
    write_files(PAGE, tmp_path / "page")
    done = subprocess.run(
        [sys.executable, tmp_path / "page" / "try_slates.py", tmp_path],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["as", "capped", "exploring"]
    assert "coverage=0." in done.stdout


def test_the_retriever_of_the_page_is_found_and_asked(serve, tmp_path: Path, monkeypatch):
    write_files(PAGE, tmp_path / "page")
    monkeypatch.syspath_prepend(str(tmp_path / "page"))
    module = importlib.import_module("acme_picks.editors")
    monkeypatch.setattr(module, "PICKED", ("item-7", "gone", "item-9", "item-11"))
    recommender = serve(retrieval={"retrievers": {"acme_picks.editors": 1, "towers": 1}})
    answer = recommender.recommend({"k": 6, "exclude": ["item-9"], "explain": True})
    sources = [item["why"]["source"] for item in answer["items"]]
    assert sources == ["acme_picks.editors", "towers"] * 2 + ["towers"] * 2
    assert [ids(answer)[0], ids(answer)[2]] == ["item-7", "item-11"]

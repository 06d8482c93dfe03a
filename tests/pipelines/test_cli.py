import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from pipelines.cli.app import app
from pipelines.settings import RunSettings, read_settings

DEAD = "http://127.0.0.1:1"
EXAMPLES = {"run", "monitor", "serve", "recommend", "simulate", "demo"}
"""Commands whose help shows how they are used."""


def commands() -> list[tuple[str, ...]]:
    """Every command and group, by the words that call it."""
    found: list[tuple[str, ...]] = [()]
    for name, command in typer.main.get_command(app).commands.items():
        found.append((name,))
        found += [(name, inner) for inner in getattr(command, "commands", ())]
    return found


def called(words: tuple[str, ...]) -> Any:
    command = typer.main.get_command(app)
    for word in words:
        command = command.commands[word]
    return command


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_help_teaches(refit, words):
    said = refit(*words, "--help")
    assert said.code == 0
    usage, _, about = said.out.partition("\n")
    assert usage.startswith(" ".join(("Usage: refit", *words)))
    assert len(about.strip().splitlines()[0]) > 15
    assert not set("╭│─\x1b") & set(said.out)
    if words and words[0] in EXAMPLES:
        assert f"  refit {words[0]}" in about
    for option in called(words).params:
        assert option.help or option.name == "help", f"{option.name} has no help"


def test_the_first_help_names_every_command_and_exit_code(refit):
    said = refit("--help")
    for words in commands():
        assert not words or words[0] in said.out
    for code in ("0 done", "2 bad usage", "3 refused", "4 data broke", "5 a needed service"):
        assert code in said.out


def test_nothing_is_help(refit):
    said = refit()
    assert "Usage: refit" in said.out + said.err


def test_version(refit):
    from refit import __version__

    assert refit("--version")[:2] == (0, f"{__version__}\n")


@pytest.mark.parametrize(
    ("words", "tells"),
    [
        ("bundle list", "Did you mean 'bundles'?"),
        ("bundles histroy", "Did you mean 'history'?"),
        ("run --confg x", "--config"),
        ("run --config simulat", "did you mean 'simulated'?"),
        ("run nothing", "continuous_training, index_refresh"),
        ("run --set training.epoch=3", "did you mean 'max_epochs'?"),
        ("run --config renttherunway --set ingestion.path=nowhere", "rentals.parquet"),
        ("run index_refresh", "no champion in"),
        ("monitor", "no champion in"),
        ("monitor --windows 0", "--windows"),
        ("monitor --until soon", "--until takes ISO 8601"),
        ("bundles show nope", "no bundle 'nope'"),
        ("bundles promote nope --reason x", "no bundle 'nope'"),
        ("bundles promote nope", "--reason"),
        ("bundles rollback --reason x", "no earlier champion"),
        ("alerts show nope", "'nope'"),
        ("alerts ack nope", "'nope'"),
        ("alerts resolve nope --note x", "'nope'"),
        ("alerts resolve nope", "--note"),
        ("alerts list --status closed", "'resolved'"),
        ("alerts list --store mysql://db/refit", "it takes a path, sqlite:///PATH or postgresql"),
        ("recommend --context size", "expected name=value"),
        ("recommend --require price=a..b", "range of numbers such as 5..20"),
        ("simulate --change taste_shift", "taste_shift@40"),
        ("simulate --change taste_shfit@3", "known changes: brand_craze"),
        ("simulate --preset huge", "known presets: demo, large"),
        ("serve", "no champion in"),
        ("demo --source mine", "'simulated' or 'renttherunway'"),
        ("demo --source renttherunway --data nowhere", "--data FOLDER"),
    ],
)
def test_bad_usage_is_2_and_says_what_to_do(refit, words, tells):
    said = refit(*words.split())
    assert said.code == 2, said.err
    assert tells in said.err
    assert said.out == ""
    assert "Traceback" not in said.err
    assert not set("╭│─\x1b") & set(said.err)


def test_an_unreachable_server_is_5(refit):
    said = refit("recommend", "--user", "u1", "--url", DEAD)
    assert said.code == 5
    assert DEAD in said.err
    assert said.out == ""


@pytest.mark.parametrize(
    ("words", "tells"),
    [
        ("status", "no runs yet"),
        ("bundles list", "no bundles in"),
        ("bundles history", "no champion yet"),
        ("alerts list", "no alerts"),
    ],
)
def test_an_empty_home_is_no_error(refit, words, tells):
    said = refit(*words.split())
    assert said.code == 0
    assert len(said.out.splitlines()) == 1  # the header, for scripts
    assert "\t" in said.out
    assert tells in said.err
    said = refit(*words.split(), "--json")
    assert (said.code, json.loads(said.out), said.err) == (0, [], "")


def test_print_config_is_complete_yaml(refit, tmp_path):
    said = refit("run", "--config", "simulated", "--set", "training.seed=9", "--print-config")
    assert said.code == 0
    values = yaml.safe_load(said.out)
    settings = read_settings("simulated", ["training.seed=9"])
    assert RunSettings.parse(values) == settings
    assert set(values) == set(RunSettings.model_fields)
    assert values["training"]["learning_rate"] == settings.training.learning_rate
    again = tmp_path / "again.yaml"
    again.write_text(said.out)
    assert read_settings(str(again)) == settings


def test_print_config_prints_what_is_there_and_nothing_else(refit, tmp_path):
    config = tmp_path / "odd.yaml"
    least = {"source": "files", "path": "[red]data:smile:[/red]", "test_days": 1}
    values = {"ingestion": {**least, "validation_days": 1}, "features": {}}
    config.write_text(yaml.safe_dump(values))
    said = refit("run", "--config", config, "--print-config")
    assert yaml.safe_load(said.out)["ingestion"]["path"] == "[red]data:smile:[/red]"


def test_simulate(refit, tmp_path):
    said = refit("simulate", tmp_path / "market", "--days", 1, "--json")
    assert said.code == 0
    assert json.loads(said.out)["days"] == 1
    assert {path.name for path in (tmp_path / "market").iterdir()} == {
        *("events.parquet", "items.parquet", "users.parquet")
    }
    changes = json.loads(refit("simulate", "--list-changes", "--json").out)
    assert "taste_shift" in changes
    lines = refit("simulate", "--list-changes").out.splitlines()
    assert len(lines) == len(changes) + 1
    assert all(line.count("\t") == 1 for line in lines)


def test_the_command_line_loads_nothing_heavy():
    code = "import sys, pipelines.cli.app; print(*{m.partition('.')[0] for m in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd()
    )
    heavy = {"kfp", "tensorflow", "evidently", "pandas", "ibis", "duckdb", "faiss", "sklearn"}
    assert heavy & set(done.stdout.split()) == set()


def test_it_is_a_command_of_its_own():
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", "bundle"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "Did you mean 'bundles'?" in done.stderr


def test_a_demo_removes_no_folder_that_is_not_its_own(refit, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    said = refit("demo", "--out", tmp_path)
    assert said.code == 2
    assert "something else than a demo" in said.err
    assert (tmp_path / "thesis.txt").exists()

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
EXAMPLES = {"run", "monitor", "serve", "recommend", "simulate", "demo", "doctor"}
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
def test_help_describes_the_command_and_every_option(refit, words):
    result = refit(*words, "--help")
    assert result.code == 0
    usage, _, about = result.out.partition("\n")
    assert usage.startswith(" ".join(("Usage: refit", *words)))
    assert len(about.strip().splitlines()[0]) > 15
    assert not set("╭│─\x1b") & set(result.out)
    if words and words[0] in EXAMPLES:
        assert f"  refit {words[0]}" in about
    assert "..." not in about, "a summary is cut"
    for option in called(words).params:
        assert option.help or option.name == "help", f"{option.name} has no help"


def test_the_first_help_names_every_command_and_exit_code(refit):
    result = refit("--help")
    for words in commands():
        assert not words or words[0] in result.out
    for code in ("0 success", "2 bad usage", "3 refused", "4 invalid data", "5 a needed service"):
        assert code in result.out


def test_no_command_prints_help(refit):
    result = refit()
    assert "Usage: refit" in result.out + result.err


def test_version(refit):
    from refit import __version__

    assert refit("--version")[:2] == (0, f"{__version__}\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("bundle list", "Did you mean 'bundles'"),
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
        ("alerts list --store mysql://db/refit", "give a path, sqlite:///PATH or postgresql"),
        ("recommend --context size", "expected name=value"),
        ("recommend --require price=a..b", "range of numbers such as 5..20"),
        ("simulate --change taste_shift", "taste_shift@40"),
        ("simulate --change taste_shfit@3", "known changes: brand_craze"),
        ("simulate --preset huge", "known presets: demo, large"),
        ("serve", "no champion in"),
        ("serve --recommender nowhere.yaml", "there is no recommender file 'nowhere.yaml'"),
        ("demo --source mine", "'simulated' or 'renttherunway'"),
        ("demo --source renttherunway --data nowhere", "--data FOLDER"),
    ],
)
def test_bad_usage_is_2_with_what_to_do(refit, words, message):
    result = refit(*words.split())
    assert result.code == 2, result.err
    assert message in result.err
    assert result.out == ""
    assert "Traceback" not in result.err
    assert not set("╭│─\x1b") & set(result.err)


def test_an_unreachable_server_is_5(refit):
    result = refit("recommend", "--user", "u1", "--url", DEAD)
    assert result.code == 5
    assert DEAD in result.err
    assert result.out == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("status", "no runs yet"),
        ("bundles list", "no bundles in"),
        ("bundles history", "no champion yet"),
        ("alerts list", "no alerts"),
    ],
)
def test_an_empty_home_is_no_error(refit, words, message):
    result = refit(*words.split())
    assert result.code == 0
    assert len(result.out.splitlines()) == 1  # the header, for scripts
    assert "\t" in result.out
    assert message in result.err
    result = refit(*words.split(), "--json")
    assert (result.code, json.loads(result.out), result.err) == (0, [], "")


def test_print_config_is_complete_yaml(refit, tmp_path):
    result = refit("run", "--config", "simulated", "--set", "training.seed=9", "--print-config")
    assert result.code == 0
    values = yaml.safe_load(result.out)
    settings = read_settings("simulated", ["training.seed=9"])
    assert RunSettings.parse(values) == settings
    assert set(values) == set(RunSettings.model_fields)
    assert values["training"]["learning_rate"] == settings.training.learning_rate
    again = tmp_path / "again.yaml"
    again.write_text(result.out)
    assert read_settings(str(again)) == settings


def test_print_config_prints_what_is_there_and_nothing_else(refit, tmp_path):
    config = tmp_path / "odd.yaml"
    least = {"source": "files", "path": "[red]data:smile:[/red]", "test_days": 1}
    values = {"ingestion": {**least, "validation_days": 1}, "features": {}}
    config.write_text(yaml.safe_dump(values))
    result = refit("run", "--config", config, "--print-config")
    assert yaml.safe_load(result.out)["ingestion"]["path"] == "[red]data:smile:[/red]"


def test_simulate(refit, tmp_path):
    result = refit("simulate", tmp_path / "market", "--days", 1, "--json")
    assert result.code == 0
    assert json.loads(result.out)["days"] == 1
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


def test_python_m_runs_it():
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", "bundle"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "Did you mean 'bundles'" in done.stderr


def test_a_demo_removes_no_folder_but_that_of_a_demo(refit, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    result = refit("demo", "--out", tmp_path)
    assert result.code == 2
    assert "something else than a demo" in result.err
    assert (tmp_path / "thesis.txt").exists()


def test_a_replay_is_not_calm(refit, tmp_path):
    replay = ("demo", "--source", "renttherunway", "--data", tmp_path)
    result = refit(*replay, "--calm", "--out", tmp_path / "demo")
    assert result.code == 2
    assert "--calm is for the simulated marketplace" in result.err
    assert not (tmp_path / "demo").exists()

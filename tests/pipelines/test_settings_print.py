"""--print-config: every setting, its value, and where that comes from."""

import json

import pytest
import yaml

from pipelines.cluster.settings import EXAMPLE, ClusterSettings
from pipelines.settings import RunSettings, list_configs, load_config, read_settings

CONFIG = """\
description: "a try: of it"  # with a comment
scale: small
ingestion:
  source: files
  path: "[red]data:smile:[/red]"
  validation_days: 1
  test_days: 1
features:
  spec:
    event_weights: {view: 0.1}
    item_text: ["no", "1e5", "1:30", "~"]
evaluation:
  slice_floors:
    - {slice: "size: M", needs_n: 10}
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def printed(refit, config):
    """The lines of ``--print-config``: name and value, by origin."""

    def run(*words):
        said = refit("run", "--config", config, *words)
        assert (said.code, said.err) == (0, "")
        return said.out

    return run


def comments(text):
    lines = [line.rpartition("  # ") for line in text.splitlines()[1:]]
    return {text.strip(): origin for text, mark, origin in lines if mark}


def test_each_value_names_its_origin(printed):
    found = comments(
        printed(
            "--print-config",
            *("--set", "training.seed=9"),
            *("--set", "monitoring.policy.waived=[a]"),
            *("--set", "features.spec.event_weights.like=0.5"),
        )
    )
    assert found["scale: small"] == "file, line 2"
    assert found['description: "a try: of it"'] == "file, line 1"
    assert found["uniform_negatives: 512"] == "dial, small"
    assert found["learned_size: 48"] == "dial, small"
    assert found["seed: 9"] == "flag"
    assert found["waived: [a]"] == "flag"
    assert found["temperature: 0.15"] == "default"
    assert found["view: 0.1"] == "file, line 10"
    assert found["like: 0.5"] == "flag"
    assert found["slice_floors:"] == "file, line 13"
    assert {origin.partition(",")[0] for origin in found.values()} == {
        "default",
        "dial",
        "file",
        "flag",
    }


def test_comments_stand_below_each_other(printed):
    columns = [
        line.index("  # ") for line in printed("--print-config").splitlines()[1:] if "  # " in line
    ]
    widest = max(set(columns), key=columns.count)
    assert sum(column != widest for column in columns) <= 3  # the longest values


@pytest.mark.parametrize("name", list_configs())
@pytest.mark.parametrize("changed", [(), ("--changed",)])
def test_what_is_printed_is_a_config_with_the_same_settings(refit, tmp_path, name, changed):
    """For Refit, and for readers of YAML 1.1."""
    again = tmp_path / "again.yaml"
    said = refit("run", "--config", name, "--print-config", *changed)
    again.write_text(said.out)
    assert read_settings(str(again)) == read_settings(name)
    assert RunSettings.parse(yaml.safe_load(said.out)) == read_settings(name)


def test_odd_texts_are_printed_as_they_are(printed, tmp_path, config):
    again = tmp_path / "again.yaml"
    again.write_text(printed("--print-config"))
    assert read_settings(str(again)) == read_settings(str(config))
    values = yaml.safe_load(again.read_text())
    assert values["ingestion"]["path"] == "[red]data:smile:[/red]"
    assert values["features"]["spec"]["item_text"] == ["no", "1e5", "1:30", "~"]


def test_all_settings_are_printed(printed):
    def names(values):
        return {
            name: names(each) if isinstance(each, dict) and each else None
            for name, each in values.items()
        }

    settings = load_config("simulated").settings.model_dump(mode="json")
    values = yaml.safe_load(printed("--print-config"))
    for section in ("training", "indexing", "deployment"):
        assert names(values[section]) == names(settings[section])
    assert set(values) == set(RunSettings.model_fields)


def test_changed_shows_what_differs_from_the_defaults(printed):
    values = yaml.safe_load(printed("--print-config", "--changed", "--set", "training.seed=0"))
    assert values["ingestion"]["source"] == "files"
    assert values["training"] == {
        "batch_size": 512,
        "learning_rate": 0.003,
        "max_epochs": 5,
        "patience": 1,
        "validation_examples": 5000,
    }
    assert values["features"]["spec"]["event_weights"] == {"view": 0.1}
    assert "indexing" not in values
    assert "webhook" not in values


def test_json_for_scripts(printed):
    found = json.loads(printed("--print-config", "--json", "--set", "training.seed=9"))
    assert found["settings"]["training"]["seed"] == 9
    assert found["origins"]["training.seed"] == "flag"
    assert found["origins"]["training.max_epochs"] == "dial, small"
    found = json.loads(printed("--print-config", "--json", "--changed"))
    assert "seed" not in found["settings"]["training"]
    assert set(found["origins"]) >= {"ingestion.source", "scale", "evaluation.slice_floors"}


def test_changed_alone_is_refused(refit, config):
    said = refit("run", "--config", config, "--changed")
    assert (said.code, "--changed goes with --print-config" in said.err) == (2, True)


def test_submit_prints_the_run_and_the_cluster(refit, config, tmp_path):
    said = refit("submit", "--config", config, "--cluster", EXAMPLE, "--print-config")
    run, cluster = yaml.safe_load_all(said.out)
    assert RunSettings.parse(run) == read_settings(str(config))
    assert set(cluster) == set(ClusterSettings.model_fields)
    assert "# example.yaml, scale standard" in said.out
    file = tmp_path / "cluster.yaml"
    file.write_text("scale: small\nregistry: s3://r\nresources: {gate: {cpu: 100m}}\n")
    words = ("submit", "--config", config, "--cluster", file, "--print-config", "--changed")
    found = comments(refit(*words).out.partition("\n---\n")[2])
    assert found['registry: "s3://r"'] == "file, line 2"
    assert found['cpu: "100m"'] == "file, line 3"
    assert found["share: 50"] == "dial, small"
    documents = json.loads(refit(*words, "--json").out)
    assert documents["cluster"]["origins"]["resources.default.memory"] == "dial, small"
    assert documents["run"]["settings"]["scale"] == "small"

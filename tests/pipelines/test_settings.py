from pathlib import Path

import pytest
import yaml

from pipelines.settings import CONFIGS, RunSettings, list_configs, read_settings
from refit.errors import UsageError

HERE = Path(__file__).parent / "configs"
VALID = sorted((HERE / "valid").glob("*.yaml"))
INVALID = sorted((HERE / "invalid").glob("*.yaml"))


@pytest.mark.parametrize("name", list_configs())
def test_every_config_that_comes_with_refit_is_whole_and_says_what_it_is_for(name):
    settings = read_settings(name)
    assert 20 < len(settings.description) < 110
    assert settings.description == list_configs()[name]
    assert settings.features.spec.target_events
    if settings.ingestion.source not in ("simulated", "renttherunway"):
        assert settings.ingestion.path.startswith("data/")


def test_there_is_a_config_for_every_source():
    from components.ingestion.sources import SOURCES

    assert {read_settings(name).ingestion.source for name in list_configs()} == set(SOURCES)


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_valid(path):
    settings = read_settings(str(path))
    assert RunSettings.parse(settings.model_dump(mode="json")) == settings


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_invalid(path):
    """The first line of each file, a comment, holds the words that its error must have."""
    words = path.read_text("utf-8").splitlines()[0].removeprefix("#").split(";")
    with pytest.raises(UsageError) as error:
        read_settings(str(path))
    missing = [word.strip() for word in words if word.strip() not in str(error.value)]
    assert not missing, str(error.value)


def test_there_are_both_kinds():
    assert len(VALID) >= 2
    assert len(INVALID) >= 8


def test_set_changes_what_the_file_says():
    settings = read_settings(
        "simulated",
        [
            "training.max_epochs=3",
            "features.spec.item_text=[]",
            "evaluation.max_seller_gini=null",
            "webhook=http://localhost/x=y",
            "training.max_epochs=4",
        ],
    )
    assert settings.training.max_epochs == 4
    assert settings.features.spec.item_text == ()
    assert settings.evaluation.max_seller_gini is None
    assert settings.webhook == "http://localhost/x=y"


def test_set_fills_a_part_that_the_file_leaves_empty(tmp_path):
    values = yaml.safe_load((CONFIGS / "simulated.yaml").read_text("utf-8")) | {"training": None}
    path = tmp_path / "empty_part.yaml"
    path.write_text(yaml.safe_dump(values))
    assert read_settings(str(path), ["training.seed=5"]).training.seed == 5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("training", "name.of.setting=value"),
        ("training.epoch=3", "training.epoch: unknown name; did you mean 'max_epochs'?"),
        ("trainng.seed=3", "trainng: unknown name; did you mean 'training'?"),
        ("features.spec.item_categoricl=[a]", "did you mean 'item_categorical'?"),
        ("monitoring.policy.cooldown=1", "did you mean 'cooldown_hours'?"),
        ("monitoring.measure.metrics.score=[wassersten]", "did you mean 'wasserstein'?"),
        ("monitoring.measure.floors.psi=0.1", "floors: psi is not measured; metrics:"),
        ("training.seed=many", "training.seed: Input should be a valid integer"),
        ("training.seed.x=1", "training.seed: Input should be a valid integer"),
        ("ingestion.source.x=1", "source is a value, it holds no settings"),
        ("training.seed=[", "is not a YAML value"),
        ("features.spec.history_length=0", "greater than or equal to 1"),
    ],
)
def test_set_says_what_is_wrong(change, words):
    with pytest.raises(UsageError) as error:
        read_settings("simulated", [change])
    assert words in str(error.value)


def test_every_fault_is_named_at_once():
    with pytest.raises(UsageError) as error:
        read_settings("simulated", ["training.sed=1", "indexing.kinds=flat"])
    assert "'seed'" in str(error.value)
    assert "'kind'" in str(error.value)


def test_a_config_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match=r"did you mean 'simulated'\? .* one of .*files"):
        read_settings("simulatd")
    with pytest.raises(UsageError, match="Give a path to a YAML file"):
        read_settings(str(tmp_path / "mine.yaml"))


def test_a_config_that_cannot_be_read(tmp_path):
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        read_settings(str(tmp_path))
    (tmp_path / "picture.yaml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UsageError, match="is not YAML"):
        read_settings(str(tmp_path / "picture.yaml"))


def test_a_path_wins_over_a_name(tmp_path, monkeypatch):
    (tmp_path / "simulated.yaml").write_text("description: mine")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="ingestion: Field required"):
        read_settings("simulated.yaml")
    assert read_settings("simulated").ingestion.source == "simulated"

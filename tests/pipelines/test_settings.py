from pathlib import Path

import pytest

from pipelines.settings import RunSettings, list_configs, read_settings
from refit.errors import UsageError

HERE = Path(__file__).parent / "configs"
VALID = sorted((HERE / "valid").glob("*.yaml"))
INVALID = sorted((HERE / "invalid").glob("*.yaml"))
LEAST = "ingestion: {source: files, validation_days: 1, test_days: 1}\nfeatures: {}\n"


@pytest.mark.parametrize("name", list_configs())
def test_every_config_that_comes_with_refit_is_complete_and_described(name):
    settings = read_settings(name)
    assert 20 < len(settings.description) < 110
    assert settings.description == list_configs()[name]
    assert settings.features.spec.target_events
    if settings.ingestion.source not in ("simulated", "renttherunway"):
        assert settings.ingestion.path.startswith("data/")


def test_there_is_a_config_for_every_source_that_comes_with_refit():
    """A source that is dropped into the folder needs none."""
    found = {read_settings(name).ingestion.source for name in list_configs()}
    shops = {
        "renttherunway",
        "online_retail",
        "vibrent",
        "hm",
        "merrec",
        "sequences",
        "given_split",
    }
    assert found >= {"files", "simulated"} | shops


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_valid(path):
    settings = read_settings(str(path))
    assert RunSettings.parse(settings.model_dump(mode="json")) == settings


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_invalid(path):
    """The first line of each file, a comment, lists what its error must contain."""
    words = path.read_text("utf-8").splitlines()[0].removeprefix("#").split(";")
    with pytest.raises(UsageError) as error:
        read_settings(str(path))
    missing = [word.strip() for word in words if word.strip() not in str(error.value)]
    assert not missing, str(error.value)


def test_there_are_valid_and_invalid_configs():
    assert len(VALID) >= 2
    assert len(INVALID) >= 8


def test_set_overrides_the_file():
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


def test_a_section_without_settings_has_the_defaults(tmp_path):
    """As one whose lines are all commented out."""
    path = tmp_path / "empty_section.yaml"
    path.write_text(f"{LEAST}training:\n  # seed: 3\n")
    assert read_settings(str(path)).training == RunSettings.model_fields["training"].default
    assert read_settings(str(path), ["training.seed=5"]).training.seed == 5


def test_set_adds_to_a_mapping_of_the_file_or_else_to_the_default(tmp_path):
    path = tmp_path / "least.yaml"
    path.write_text(LEAST)
    change = "features.spec.event_weights.view=0.1"
    assert read_settings(str(path), [change]).features.spec.event_weights == {
        "purchase": 1.0,
        "view": 0.1,
    }
    path.write_text(LEAST.replace("{}", "{spec: {event_weights: {like: 0.5}}}"))
    assert read_settings(str(path), [change]).features.spec.event_weights == {
        "like": 0.5,
        "view": 0.1,
    }
    assert read_settings(str(path), ["features.spec={}"]).features.spec.event_weights == {
        "purchase": 1.0
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("training", "name.of.setting=value"),
        ("training.epoch=3", "training.epoch: unknown name; did you mean 'max_epochs'?"),
        ("trainng.seed=3", "trainng: unknown name; did you mean 'training'?"),
        ("features.spec.item_categoricl=[a]", "did you mean 'item_categorical'?"),
        ("monitoring.policy.cooldown=1", "did you mean 'cooldown_hours'?"),
        ("monitoring.measure.metrics.score=[quantile_share]", "did you mean 'quantile_shares'?"),
        ("monitoring.measure.floors.psi=0.1", "floors: psi is not measured; metrics:"),
        ("training..seed=3", "name.of.setting=value"),
        ("=3", "name.of.setting=value"),
        ("training.seed=many", 'expected a whole number, read the text "many"; write a number'),
        ("training.seed.x=1", "--set: training.seed is a value and holds no settings"),
        ("ingestion.source.x=1", "--set: ingestion.source is a value and holds no settings"),
        ("training.seed=[", "is not YAML"),
        ("training.seed=", "--set training.seed=: there is no value after the equals sign"),
        ("training.resume=yes", "--set: training.resume: yes can be read in two ways; write true"),
        (
            "training.seed=true",
            "expected a whole number, read true; write a number such as 0 (--set)",
        ),
        ("training.dropout=.inf", "write a finite number"),
        ("ingestion.path=2024", 'expected text, read the number 2024; write "2024" in quotes'),
        ("ingestion.simulated.days=ten", "ingestion.simulated: days: expected a whole number"),
        ("ingestion.simulated.preset=[demo]", "ingestion.simulated: unknown preset ['demo']"),
        ("features.spec.history_length=0", "greater than or equal to 1"),
    ],
)
def test_set_explains_what_is_wrong(change, words):
    with pytest.raises(UsageError) as error:
        read_settings("simulated", [change])
    assert words in str(error.value)


def test_every_fault_is_listed():
    with pytest.raises(UsageError) as error:
        read_settings("simulated", ["training.sed=1", "indexing.kinds=flat"])
    assert "'seed'" in str(error.value)
    assert "'kind'" in str(error.value)


def test_a_config_that_does_not_exist(tmp_path):
    with pytest.raises(UsageError, match=r"did you mean 'simulated'\? .* one of .*files"):
        read_settings("simulatd")
    with pytest.raises(UsageError, match="Give a path to a YAML file"):
        read_settings(str(tmp_path / "mine.yaml"))


def test_a_config_that_cannot_be_read(tmp_path):
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        read_settings(str(tmp_path))
    (tmp_path / "picture.yaml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UsageError, match=r"is not YAML: it is not UTF-8 text \(byte 1\); save it"):
        read_settings(str(tmp_path / "picture.yaml"))


def test_a_byte_order_mark_is_ignored(tmp_path):
    (tmp_path / "mine.yaml").write_text(LEAST, encoding="utf-8-sig")
    assert read_settings(str(tmp_path / "mine.yaml")).ingestion.source == "files"


def test_a_path_takes_precedence_over_a_name(tmp_path, monkeypatch):
    (tmp_path / "simulated.yaml").write_text("description: mine")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="ingestion: is missing"):
        read_settings("simulated.yaml")
    assert read_settings("simulated").ingestion.source == "simulated"


def test_a_fault_of_a_change_is_not_blamed_on_a_line_of_the_file(tmp_path):
    config = tmp_path / "market.yaml"
    config.write_text(LEAST + "monitoring:\n  measure:\n    seed: 19\n", "utf-8")
    with pytest.raises(UsageError, match=r"psy is not measured.*\(--set\)"):
        read_settings(str(config), ["monitoring.measure.floors.psy=0.2"])

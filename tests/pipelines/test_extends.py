"""A config that extends another one."""

import pytest

from pipelines.settings import load_config, read_settings
from refit.errors import UsageError

BASE = """\
ingestion: {source: files, path: data, validation_days: 1, test_days: 2}
features:
  spec: {item_categorical: [brand, size], history_length: 7}
training:
  max_epochs: 4
  dropout: 0.2
"""


@pytest.fixture
def write(tmp_path):
    (tmp_path / "base.yaml").write_text(BASE)

    def write(text: str, name: str = "mine.yaml") -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


def test_what_a_config_does_not_give_is_as_in_the_one_that_it_extends(write):
    mine = write(
        "extends: base.yaml\ntraining: {max_epochs: 6}\n"
        "features: {spec: {item_categorical: [brand]}}\ntuning:\n"
    )
    settings = read_settings(mine, ["training.dropout=0.3"])
    assert settings.ingestion.path == "data"
    assert (settings.training.max_epochs, settings.training.dropout) == (6, 0.3)
    assert settings.features.spec.item_categorical == ("brand",)
    assert settings.features.spec.history_length == 7


def test_a_section_with_nothing_in_it_changes_nothing(write):
    assert read_settings(write("extends: base.yaml\ntraining:\n")).training.max_epochs == 4


def test_a_config_that_comes_with_refit_is_extended_by_its_name(write):
    settings = read_settings(write("extends: simulated\ntraining: {max_epochs: 1}\n"))
    assert settings.ingestion.source == "simulated"
    assert settings.training.max_epochs == 1
    assert settings.scale == "small"


def test_each_value_comes_with_its_file(write):
    loaded = load_config(write("extends: base.yaml\ntraining: {max_epochs: 6}\n"))
    assert loaded.origin(("training", "max_epochs")) == "file, line 2"
    assert loaded.origin(("training", "dropout")) == "file, base.yaml, line 6"
    assert loaded.origin(("training", "batch_size")) == "dial, standard"


def test_an_error_names_the_file_and_the_line(write):
    write(BASE + "  batch_size: many\n", "base.yaml")
    with pytest.raises(UsageError, match=r"mine.yaml: training.batch_size: .*base.yaml, line 7"):
        read_settings(write("extends: base.yaml\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: bse.yaml\n", "no config 'bse.yaml'"),
        ("extends: mine.yaml\n", "extends itself"),
        ("extends: other.yaml\n", "extends itself, or one that extends it"),
        ("extends: [base.yaml]\n", r"extends \(line 1\): write the name or the path"),
        ("extends:\n", "write the name or the path"),
    ],
)
def test_what_cannot_be_extended_is_an_error(write, text, message):
    write("extends: mine.yaml\n", "other.yaml")
    with pytest.raises(UsageError, match=message):
        read_settings(write(text))

"""The dial: what it gives, and that everything else goes over it."""

from typing import get_args

import pytest
from pydantic import BaseModel

from pipelines.cluster.settings import ClusterSettings, read_cluster
from pipelines.loading import load_settings
from pipelines.scale import SCALES, STANDARD, Scale, read_scales
from pipelines.settings import RunSettings, read_settings
from pipelines.strict_yaml import parse_document
from refit.setting_values import class_at

LEAST = "ingestion: {source: files, validation_days: 1, test_days: 1}\nfeatures: {}\n"
CLASSES = {"run": RunSettings, "cluster": ClusterSettings}
ROWS = [(table, name) for table, rows in read_scales().items() for name in rows]


def load(text, *changes):
    return load_settings(RunSettings, parse_document(text, "my.yaml"), changes)


def value_at(settings, name):
    for part in name.split("."):
        settings = settings[part] if isinstance(settings, dict) else getattr(settings, part)
    return settings


@pytest.mark.parametrize(("table", "name"), ROWS)
def test_standard_is_the_default_of_the_class(table, name):
    *sections, setting = name.split(".")
    section = class_at(CLASSES[table], tuple(sections))
    default = section.model_fields[setting].default
    assert default == read_scales()[table][name].standard


@pytest.mark.parametrize(("table", "name"), ROWS)
def test_every_row_matters_and_has_a_reason(table, name):
    row = read_scales()[table][name]
    assert row.small != row.standard or row.large != row.standard
    assert len(row.why) > 30


def test_the_table_knows_the_scales():
    assert get_args(Scale) == SCALES
    assert set(read_scales()) == {cls.table for cls in CLASSES.values()} == set(CLASSES)


@pytest.mark.parametrize("scale", SCALES)
def test_the_dial_gives_every_row_of_a_run(scale):
    settings = load(f"scale: {scale}\n{LEAST}").settings
    for name, row in read_scales()["run"].items():
        assert value_at(settings, name) == row.value(scale)
    assert RunSettings.parse(settings.model_dump(mode="json")) == settings


@pytest.mark.parametrize("scale", SCALES)
def test_the_dial_gives_every_row_of_a_cluster(scale):
    settings = ClusterSettings.parse({"registry": "s3://r", "scale": scale})
    for name, row in read_scales()["cluster"].items():
        value = value_at(settings, name)
        if isinstance(value, dict):
            value = {
                step: each.model_dump(exclude_defaults=True)
                for step, each in value.items()
                if isinstance(each, BaseModel)
            }
        assert value == row.value(scale)


def test_without_a_dial_nothing_changes():
    settings = load(LEAST).settings
    assert settings.scale == STANDARD
    assert settings.model_dump() == load(f"scale: standard\n{LEAST}").settings.model_dump()


def test_the_file_and_flags_go_over_the_dial():
    text = f"scale: small\n{LEAST}training: {{uniform_negatives: 64}}\n"
    settings = load(text).settings
    assert (settings.training.uniform_negatives, settings.training.max_epochs) == (64, 5)
    settings = load(text, "training.max_epochs=7", "scale=large").settings
    assert (settings.training.uniform_negatives, settings.training.max_epochs) == (64, 7)
    assert settings.training.batch_size == 8192
    assert load(text, "training={seed: 3}").settings.training.uniform_negatives == 512


def test_the_dial_fills_up_a_step_that_the_cluster_file_names():
    resources = {"train_towers": {"cpu": "32"}, "gate": {"memory": "1Gi"}}
    settings = ClusterSettings.parse(
        {"registry": "s3://r", "scale": "large", "resources": resources}
    )
    assert settings.resources_of("train_towers").cpu == "32"
    assert settings.resources_of("train_towers").memory == "64Gi"
    assert settings.resources_of("gate").memory == "1Gi"
    assert settings.resources_of("find_start").memory == "8Gi"


def test_a_scale_hides_no_section_that_is_missing(tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text("scale: small\ningestion: {source: files, validation_days: 1, test_days: 1}\n")
    with pytest.raises(Exception, match="features: is missing; it has no default"):
        read_settings(str(file))
    file.write_text("scale: large\n")
    with pytest.raises(Exception, match="registry: is missing; it has no default"):
        read_cluster(file)


def test_the_demo_is_small():
    assert read_settings("simulated").scale == "small"

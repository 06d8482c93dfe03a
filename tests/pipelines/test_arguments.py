import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from pipelines.arguments import (
    backtest_arguments,
    continuous_training_arguments,
    drift_monitoring_arguments,
    index_refresh_arguments,
    tuning_arguments,
)
from pipelines.home import HOME_VARIABLE, Home
from pipelines.local import COMPILED_FOLDER
from pipelines.settings import RunSettings, read_settings
from refit.errors import UsageError
from refit.features import FeaturesManifest, FeatureSpec
from refit.files import write_json
from refit.quarantine import Quarantine
from refit.registry import Registry


@pytest.fixture
def settings():
    return read_settings("simulated")


@pytest.fixture
def home(tmp_path):
    return Home.at(tmp_path / "home")


@pytest.fixture
def champion(home):
    promotion = {
        "number": 1,
        "action": "promote",
        "bundle_id": "b1",
        "previous": None,
        "at": "2024-05-01T00:00:00Z",
        "by": "tester",
        "reason": "first",
        "forced": False,
    }
    write_json(Path(home.registry) / "champion.json", promotion)
    folder = Path(home.registry) / "bundles" / "b1"
    folder.mkdir(parents=True)
    FeaturesManifest(spec=FeatureSpec(), popularity_values={}, vector_size=0).write(folder)
    return "b1"


def parameters(pipeline: str) -> tuple[set[str], set[str]]:
    """All parameters of a compiled pipeline, and those that it cannot do without."""
    ir = yaml.safe_load((COMPILED_FOLDER / f"{pipeline}.yaml").read_text("utf-8"))
    known = ir["root"]["inputDefinitions"]["parameters"]
    return set(known), {name for name, p in known.items() if "defaultValue" not in p}


def test_continuous_training_gets_every_parameter(settings, home):
    given = continuous_training_arguments(settings, home, "drift", first_model=True)
    known, _ = parameters("continuous_training")
    assert set(given) == known
    assert given["reason"] == "drift"
    assert given["champion"] == ""
    assert Path(given["registry"]) == home.folder / "registry"
    assert Path(given["checkpoint_folder"]) == home.checkpoints


def test_settings_are_passed_whole(settings, home):
    given = continuous_training_arguments(settings, home, first_model=True)
    for name in ("ingestion", "features", "training", "indexing", "evaluation", "monitoring"):
        kind = RunSettings.model_fields[name].annotation
        assert kind.parse_json(given[name]) == getattr(settings, name)


def test_the_same_settings_are_the_same_arguments(settings, home):
    """Otherwise nothing would ever come from the cache."""
    again = RunSettings.parse(settings.model_dump(mode="json"))
    one, other = (
        continuous_training_arguments(s, home, first_model=True) for s in (settings, again)
    )
    assert one == other


def test_other_data_are_another_fingerprint(home):
    one, other = (
        continuous_training_arguments(
            read_settings("simulated", [f"ingestion.simulated.seed={seed}"]), home, first_model=True
        )["data_fingerprint"]
        for seed in (1, 2)
    )
    assert one != other


def test_what_is_in_quarantine_is_left_out_by_what_trains(settings, home, champion):
    before = continuous_training_arguments(settings, home)
    kept = Quarantine(
        quarantine_id="q1", table="items", start=datetime(2024, 5, 1, tzinfo=UTC), reason="x100"
    )
    registry = Registry(home.registry)
    registry.publish_quarantines(lambda published: [kept])
    for arguments in (
        continuous_training_arguments(settings, home),
        backtest_arguments(settings, home),
        tuning_arguments(settings, home),
    ):
        (days,) = json.loads(arguments["ingestion"])["quarantined"]
        assert (days["quarantine_id"], days["reason"]) == ("q1", "x100")
        assert arguments["data_fingerprint"] != before["data_fingerprint"]
    refresh = index_refresh_arguments(settings, home)
    assert json.loads(refresh["ingestion"])["quarantined"] == []
    assert refresh["data_fingerprint"] == before["data_fingerprint"]
    registry.publish_quarantines(lambda published: [])
    assert continuous_training_arguments(settings, home) == before


def test_the_champion_is_a_parameter(settings, home, champion):
    given = continuous_training_arguments(settings, home)
    assert (given["champion"], given["first_model"]) == (champion, False)
    with pytest.raises(UsageError, match=f"a champion in .* already, {champion}"):
        continuous_training_arguments(settings, home, first_model=True)


def test_without_a_champion_a_training_is_the_first_only_if_it_says_so(settings, home):
    with pytest.raises(UsageError, match=r"no champion in .*pass --first-model if this is the"):
        continuous_training_arguments(settings, home)


def test_tuning_gets_every_parameter_and_one_worker(settings, home):
    tuning = settings.tuning.model_copy(update={"workers": 3})
    given = tuning_arguments(settings.model_copy(update={"tuning": tuning}), home)
    known, needed = parameters("tuning")
    assert needed <= set(given) <= known
    assert given["workers"] == ["0"]
    assert given["studies"] == str(home.folder / "studies")
    database = "postgresql+psycopg://refit@host/studies"
    tuning = tuning.model_copy(update={"storage": database})
    given = tuning_arguments(settings.model_copy(update={"tuning": tuning}), home)
    assert given["studies"] == database


def test_index_refresh_gets_every_parameter(settings, home, champion):
    given = index_refresh_arguments(settings, home)
    known, needed = parameters("index_refresh")
    assert needed <= set(given) <= known
    assert given["champion"] == champion


def test_drift_monitoring_gets_every_parameter(settings, home, champion):
    given = drift_monitoring_arguments(
        settings,
        home,
        until=datetime(2024, 5, 1, tzinfo=UTC),
        windows=2,
        outcomes=Path("some/outcomes"),
        refit_command=["refit", "run"],
    )
    known, _ = parameters("drift_monitoring")
    assert set(given) == known
    assert given["until"] == "2024-05-01T00:00:00+00:00"
    assert Path(given["outcomes"]).is_absolute()
    assert given["items"] == ""
    assert json.loads(given["monitoring"]) == settings.monitoring.model_dump(mode="json")


def test_monitoring_and_refresh_need_a_champion(settings, home):
    with pytest.raises(UsageError, match=r"no champion in .*refit run"):
        drift_monitoring_arguments(settings, home, until=datetime.now(UTC), windows=1)
    with pytest.raises(UsageError, match=r"no champion in .*refit run"):
        index_refresh_arguments(settings, home)


def test_home_is_the_option_then_the_variable_then_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(HOME_VARIABLE, raising=False)
    assert Home.at().folder == tmp_path / ".refit"
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "there"))
    assert Home.at().folder == tmp_path / "there"
    assert Home.at(Path("mine")).folder == tmp_path / "mine"
    assert Home.at(Path("mine"), "s3://bucket/refit").registry == "s3://bucket/refit"
    assert Home.at(Path("mine"), alert_store="postgresql://db/r").alerts == "postgresql://db/r"

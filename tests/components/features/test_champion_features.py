from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from components.features.build import build_features
from components.features.champion import build_champion_features
from refit.champion_features import ChampionFeatures
from refit.feature_tables import read_catalogue
from refit.features import FeaturesManifest
from tests.components.features.small_market import write_dataset
from tests.components.features.test_build_features import market, settings

pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "dataset", *market(5))


@pytest.fixture
def champion(tmp_path: Path, dataset: Path) -> Path:
    """The features.json of a model that was trained on this market, with its values."""
    config = settings(history_length=6, event_weights={"view": 1.0})
    build_features(config, dataset, tmp_path / "champion")
    return tmp_path / "champion"


def test_a_champion_with_the_same_inputs_needs_nothing(tmp_path, dataset, champion):
    config = settings(history_length=6, event_weights={"view": 1.0}, target_events=("like",))
    record = build_champion_features(config, dataset, tmp_path / "own", champion, "b1")
    assert record == ChampionFeatures(champion="b1") == ChampionFeatures.read(tmp_path / "own")
    none = build_champion_features(config, dataset, tmp_path / "own", None, "")
    assert none == ChampionFeatures() == ChampionFeatures.read(tmp_path / "own")


def test_another_spec_gets_its_inputs_at_the_models_queries_and_moments(
    tmp_path, dataset, champion
):
    config = settings(target_events=("like",), snapshot_every_days=2.0)
    record = build_champion_features(config, dataset, tmp_path / "own", champion, "b1")
    assert record.needed
    assert not record.problem
    own, ours = tmp_path / "own" / "tables", tmp_path / "ours"
    build_features(config, dataset, ours)
    theirs, then = FeaturesManifest.read(own), FeaturesManifest.read(champion)
    assert theirs.spec.history_length == 6
    assert theirs.spec.event_weights == {"view": 1.0}
    assert theirs.popularity_values == then.popularity_values
    assert theirs.snapshots == FeaturesManifest.read(ours).snapshots
    columns = ["user_id", "event_time", "item"]
    queries = [
        pq.read_table(folder / "examples/test.parquet")
        .to_pandas()
        .assign(
            item=lambda rows, folder=folder: np.array(
                read_catalogue(folder).table["item_id"].to_pylist()
            )[rows["item_index"]]
        )[columns]
        for folder in (own, ours)
    ]
    assert len(queries[0]) > 5
    assert queries[0].equals(queries[1])


def test_a_missing_column_is_a_problem_and_no_error(tmp_path, dataset, champion):
    manifest = FeaturesManifest.read(champion)
    spec = manifest.spec.model_copy(update={"item_categorical": ("fabric",)})
    manifest.model_copy(update={"spec": spec}).write(champion)
    record = build_champion_features(settings(), dataset, tmp_path / "own", champion, "b1")
    assert record.needed
    assert "'fabric'" in record.problem
    assert not (tmp_path / "own" / "tables").exists()

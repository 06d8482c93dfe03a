import pytest

from components.training.settings import TrainSettings
from components.training.tuning.settings import DEFAULT_SPACE, SEARCHABLE, TriedValues, TuneSettings
from components.training.tuning.space import Space
from refit.errors import UsageError
from tests.components.training.conftest import manifest

DEFAULTS = TrainSettings()


def space_of(own: TrainSettings = DEFAULTS, **tuning) -> Space:
    return Space.of(TuneSettings.parse(tuning), own, manifest())


def test_the_default_space_is_searchable_and_takes_the_defaults():
    assert set(DEFAULT_SPACE) <= set(SEARCHABLE)
    assert TuneSettings.parse({"space": {n: r.model_dump() for n, r in DEFAULT_SPACE.items()}})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"space": {"training.learning_rat": {"low": 0.1, "high": 0.2}}},
            "training.learning_rate?",
        ),
        ({"space": {"learning_rate": {"low": 0.1, "high": 0.2}}}, "training.learning_rate?"),
        ({"space": {"training.seed": {"values": [1, 2]}}}, "it changes what is measured"),
        ({"space": {"training.dropout": {"low": 0.1}}}, "needs low and high"),
        ({"space": {"training.dropout": {"low": 0.1, "high": 2}}}, "less than 1"),
        ({"space": {"training.dropout": {"low": 0.3, "high": 0.2}}}, "low must be below high"),
        ({"space": {"training.batch_size": {"low": 10.5, "high": 20}}}, "a whole number"),
        ({"space": {"training.batch_size": {"values": [512, True]}}}, "a whole number"),
        ({"space": {"training.id_embedding": {"low": 0, "high": 1}}}, "'always'"),
        ({"space": {"training.correct_sampling": {"low": 0, "high": 1}}}, "true or false"),
        ({"space": {"training.dropout": {"low": 0, "high": 0.2, "log": True}}}, "above 0"),
        ({"space": {"training.dropout": {"lo": 0, "high": 0.2}}}, "did you mean 'low'"),
        ({"only": ["training.dropot"]}, "training.dropout?"),
        ({"only": ["training.max_epochs"]}, "no setting 'training.max_epochs'"),
        ({"storage": "mysql://a@b/c"}, "cannot be a mysql database"),
        ({"storage": "studies.sqlite"}, "leave it empty for a file"),
        ({"storage": "postgresql+psycopg://a:secret@b/c"}, "must hold no password"),
    ],
)
def test_a_mistake_in_the_space_is_an_error_that_says_what_to_write(values, message):
    with pytest.raises(UsageError) as error:
        TuneSettings.parse(values)
    assert message in str(error.value)
    assert "secret" not in str(error.value)


def test_a_config_narrows_the_space_and_adds_to_it():
    tuning = TuneSettings.parse(
        {
            "only": ["training.dropout", "training.max_epochs"],
            "space": {
                "training.dropout": {"low": 0.0, "high": 0.3},
                "training.max_epochs": {"values": [2, 4]},
            },
        }
    )
    space = tuning.of_space()
    assert {name: each.describe() for name, each in space.items()} == {
        "training.dropout": "0 to 0.3",
        "training.max_epochs": "2, 4",
    }
    assert TuneSettings.parse_json(tuning.to_json()) == tuning


def test_a_range_holds_the_own_value():
    ranges = space_of(TrainSettings(learning_rate=0.05, batch_size=300, id_l2=0.0)).ranges
    assert ranges["training.learning_rate"] == TriedValues(low=0.001, high=0.05, log=True)
    assert ranges["training.batch_size"].values == (512, 1024, 2048, 4096, 300)
    assert ranges["training.id_l2"] == TriedValues(low=0.0, high=0.1)  # none by ratio from 0


def test_ids_have_settings_only_where_there_are_ids():
    names = ["training.dropout", "training.id_l2"]
    without = TrainSettings(id_embedding="never")
    assert list(space_of(without, only=names).ranges) == ["training.dropout"]
    assert list(space_of(only=names).ranges) == names
    own = space_of(without).own_values()
    assert "training.id_l2" not in own
    assert own["training.id_embedding"] == "never"


def test_longer_histories_than_the_features_have_cannot_be_tried():
    name = "features.spec.history_length"
    with pytest.raises(UsageError, match="up to the config's own, 3"):
        space_of(space={name: {"values": [2, 4]}})
    assert space_of(space={name: {"low": 1, "high": 3}}).value(name) == 3


def test_the_number_of_pairs_cannot_be_tried():
    with pytest.raises(UsageError, match=r"tower_pairs is not tried: .*what it costs"):
        space_of(space={"training.tower_pairs": {"values": [1, 2]}})

import pytest

from refit.errors import UsageError
from simulation import choice
from simulation.changes import CHANGES
from simulation.marketplace import Marketplace
from simulation.settings import PRESETS, SimulationSettings, read_settings


def test_presets_can_be_overridden() -> None:
    assert read_settings({}) == read_settings({"preset": "demo"}) == SimulationSettings()
    large = read_settings({"preset": "large", "seed": 3})
    assert large.seed == 3
    assert large.n_shoppers == PRESETS["large"]["n_shoppers"]


@pytest.mark.parametrize(
    ("values", "advice"),
    [
        ({"preset": "huge"}, "known presets: demo, large"),
        ({"n_shopers": 5}, "did you mean 'n_shoppers'"),
        ({"days": 0}, "days"),
        ({"changes": [{"name": "taste_shift", "day": -1}]}, "changes.0.day"),
        ({"changes": [{"name": "taste_shift", "day": 1, "strength": 2}]}, "strength is at most 1"),
        (
            {"changes": [{"name": "column_gone_null", "day": 1, "column": "item_id"}]},
            "cannot become null",
        ),
    ],
)
def test_invalid_settings_are_named(values: dict[str, object], advice: str) -> None:
    with pytest.raises(UsageError, match=advice):
        read_settings(values)


def test_an_unknown_change_lists_the_known_ones() -> None:
    with pytest.raises(UsageError) as error:
        read_settings({"changes": [{"name": "taste_shfit", "day": 1}]})
    assert all(name in str(error.value) for name in CHANGES)


def test_the_truth_lists_the_changes() -> None:
    change = {"name": "brand_craze", "day": 3, "strength": 0.5}
    truth = Marketplace({"days": 1, "n_shoppers": 50, "changes": [change]}).truth()
    assert len(truth) == 1
    assert truth[0]["name"] == "brand_craze"
    assert truth[0]["date"] == "2024-03-04T00:00:00+00:00"
    assert truth[0]["does"] == CHANGES["brand_craze"].does


def test_a_context_is_read() -> None:
    assert choice.read_context({}) == (-1, -1, -1)
    assert choice.read_context({"wanted_category": "men"}) == (1, -1, -1)
    department, category, size = choice.read_context(
        {"wanted_category": "women dresses", "wanted_size": "M"}
    )
    assert (department, choice.CATEGORIES[category].name, size) == (0, "women dresses", 2)
    with pytest.raises(UsageError, match="unknown wanted_category"):
        choice.read_context({"wanted_category": "hats"})
    with pytest.raises(UsageError, match="unknown wanted_size"):
        choice.read_context({"wanted_category": "women dresses", "wanted_size": "44"})

import numpy as np

from monitoring.panel import measure_panel, rank_panel, show_panel
from monitoring.reference import Reference
from monitoring.windows import MonitoredData, daily_windows
from refit.drift import DriftState
from tests.monitoring.conftest import SETTINGS
from tests.monitoring.marketplace import Market


def measured(marketplace, index, settings=SETTINGS):
    opened = Reference.read(marketplace.reference)
    data = MonitoredData(marketplace.log, index=index)
    window = daily_windows(marketplace.end, 1)[0]
    return measure_panel(settings, opened, data, window), rank_panel(settings, opened, data)


def test_the_same_items_seen_alike_change_nothing(marketplace):
    result, lists = measured(marketplace, marketplace.index)
    assert (result.value, result.state) == (0.0, DriftState.OK)
    assert len(lists.items) == 2000


def test_items_that_are_seen_differently_change_the_lists(marketplace):
    vectors = np.load(marketplace.index / "vectors.npy")
    np.save(marketplace.index / "vectors.npy", np.roll(vectors, 7, axis=0))
    result, lists = measured(marketplace, marketplace.index)
    assert result.value > 0.9
    assert result.state is DriftState.OK, "no limit is known that holds in every market"
    limited = SETTINGS.model_copy(update={"panel_change": 0.5})
    assert measured(marketplace, marketplace.index, limited)[0].state is DriftState.DRIFT
    shown = show_panel(lists)
    assert len(shown) == 5
    assert len(set(shown[0].before) & set(shown[0].after)) <= 1


def test_without_common_items_or_towers_it_is_insufficient_data(marketplace):
    marketplace.run(Market(seed=5), 11)
    result, why = measured(marketplace, marketplace.index_now)
    assert result.state is DriftState.INSUFFICIENT_DATA
    assert "items are in both indexes" in why
    foreign = marketplace.write_index(
        "foreign", marketplace.stock, marketplace.kinds, marketplace.end, towers="towers-2"
    )
    assert "built with towers towers-2" in measured(marketplace, foreign)[1]

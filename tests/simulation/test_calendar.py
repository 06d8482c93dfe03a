"""Weekdays, growth, seasons and late purchases have the effects that their settings say."""

import numpy as np
import pandas as pd
import pytest

from simulation import choice
from simulation.marketplace import Marketplace
from simulation.oracle import perfect_recommender

SMALL = {"days": 21, "n_shoppers": 500, "listings_per_day": 150.0, "visits_per_day": 400.0}


def market(**more: object) -> Marketplace:
    return Marketplace({**SMALL, **more})


def events(simulated: Marketplace) -> pd.DataFrame:
    return simulated.events_table().to_pandas()


def test_weekdays_have_their_rates() -> None:
    rates = (1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 3.0)
    simulated = market(weekday_visits=rates, weekday_listings=rates)
    visits = events(simulated).drop_duplicates("session_id").event_time.dt.weekday.value_counts()
    items = simulated.items_table().to_pandas()
    listed = items[items.listed_at >= pd.Timestamp(simulated.settings.starts_at)]
    for counts in (visits, listed.listed_at.dt.weekday.value_counts()):
        counts = counts.sort_index()
        assert counts[6] / counts.loc[:4].mean() == pytest.approx(3.0, rel=0.15)
        assert counts[5] / counts.loc[:4].mean() == pytest.approx(2.0, rel=0.15)


def test_weekends_look_for_and_list_something_else() -> None:
    scenario = market(days=1, weekend_mix=0.5).scenario
    friday, weekend = scenario.supply(0), scenario.supply(1)
    assert 0.5 * np.abs(friday - weekend).sum() > 0.08
    assert np.allclose(weekend, scenario.supply(2), atol=0.01)
    preference = np.zeros((1, len(choice.CATEGORIES)), dtype=np.float32)
    assert 0.5 * np.abs(scenario.demand(0, preference) - scenario.demand(1, preference)).sum() > 0.1
    same = market(days=1).scenario
    assert np.allclose(same.supply(0), same.supply(1), atol=0.01)


def test_growth_adds_up_from_month_to_month() -> None:
    simulated = market(days=60, visits_growth=0.5, listings_growth=0.5)
    for times in (
        events(simulated).drop_duplicates("session_id").event_time,
        simulated.items_table().to_pandas().listed_at,
    ):
        day = (times - pd.Timestamp(simulated.settings.starts_at)).dt.days
        first, second = ((day >= low) & (day < low + 14) for low in (0, 30))
        assert second.sum() / first.sum() == pytest.approx(1.5, rel=0.08)


def test_a_month_of_season_shows_in_supply_and_demand() -> None:
    def moved(strength: float) -> float:
        scenario = market(days=1, season_strength=strength).scenario
        return float(0.5 * np.abs(scenario.supply(60) - scenario.supply(105)).sum())

    assert moved(0.0) == 0.0
    assert 0.05 < moved(1.0) < moved(2.0) < 0.4


def test_weekends_may_sell_less_from_the_same_lists() -> None:
    usual, less = market(), market(weekend_conversion=0.5)
    weekdays = [
        events(m).query("event_type == 'purchase'").event_time.dt.weekday for m in (usual, less)
    ]
    sold = [(days >= 5).mean() for days in weekdays]
    assert sold[1] == pytest.approx(0.6 * sold[0], rel=0.2)


def test_late_purchases_are_unknown_until_they_happen() -> None:
    at_once, late = market(), market(purchase_delay_hours=6.0)
    purchases = [events(m).query("event_type == 'purchase'") for m in (at_once, late)]
    assert purchases[0].item_id.is_unique
    assert purchases[1].item_id.is_unique
    assert 0.9 * len(purchases[0]) < len(purchases[1]) < len(purchases[0])
    table = late.events_table().to_pandas()
    assert (table.event_time < late.now).all()
    assert table.event_time.is_monotonic_increasing
    first = table.groupby("session_id").event_time.first()
    delay = (purchases[1].event_time - purchases[1].session_id.map(first)).dt.total_seconds() / 3600
    assert delay.median() == pytest.approx(6.0, rel=0.15)
    gone = late.items_table().to_pandas().set_index("item_id").delisted_at
    assert (purchases[1].item_id.map(gone) == purchases[1].event_time).all()
    assert not (table.event_time > table.item_id.map(gone)).any()


def test_a_live_day_reports_the_purchases_of_the_day_before() -> None:
    simulated = market(purchase_delay_hours=6.0, requests_per_day=100)
    days = [simulated.simulate_day(perfect_recommender(simulated)) for _ in range(2)]
    bought = set(days[0].requests.to_pandas().query("bought").request_id)
    reported = [
        set(d.events.to_pandas().query("event_type == 'purchase'").request_id.dropna())
        for d in days
    ]
    assert reported[0] < bought
    assert len(bought & reported[1]) > 3
    table = simulated.events_table().to_pandas()
    sales = table[table.event_type == "purchase"]
    assert sales.item_id.is_unique
    gone = simulated.items_table().to_pandas().set_index("item_id").delisted_at
    assert (sales.item_id.map(gone) == sales.event_time).all()
    assert not (table.event_time > table.item_id.map(gone)).any()
    assert not table.duplicated(["user_id", "item_id", "event_type", "event_time"]).any()


def test_a_slump_lowers_what_every_list_sells() -> None:
    change = {"name": "market_slump", "day": 21, "strength": 2.0}
    usual, less = (
        m.simulate_day(perfect_recommender(m)).requests
        for m in (market(requests_per_day=100), market(requests_per_day=100, changes=[change]))
    )
    for name in ("organic_chance", "random_chance"):
        ratio = np.mean(less[name].to_numpy()) / np.mean(usual[name].to_numpy())
        assert ratio == pytest.approx(0.6, abs=0.05)
    assert np.mean(less["perfect_chance"].to_numpy()) < np.mean(usual["perfect_chance"].to_numpy())


def test_a_season_jump_is_a_later_day_of_the_year() -> None:
    jumped = market(days=1, changes=[{"name": "season_jump", "day": 5}]).scenario
    usual = market(days=1).scenario
    assert np.allclose(jumped.season(10), usual.season(70))
    assert np.allclose(jumped.season(4), usual.season(4))

"""Each change has the documented effects, from its day on, and none before."""

from datetime import timedelta
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest

from simulation.changes import CHANGES, NULLABLE_COLUMNS
from simulation.marketplace import Marketplace
from simulation.shoppers import MICROSECONDS_PER_DAY

DAY = 8
SMALL = {
    "days": 14,
    "n_shoppers": 600,
    "newcomers_per_day": 5.0,
    "listings_per_day": 120.0,
    "visits_per_day": 500.0,
    "requests_per_day": 0,
}


@cache
def market(name: str | None, strength: float = 1.0, column: str = "brand") -> Marketplace:
    change = {"name": name, "day": DAY, "strength": strength, "column": column}
    return Marketplace({**SMALL, "changes": [change] if name else []})


def events(name: str | None, **more: Any) -> pd.DataFrame:
    """Events from the day of the change on."""
    table = market(name, **more).events_table().to_pandas()
    return table[table.event_time >= changed_at()]


def listed(name: str | None, **more: Any) -> pd.DataFrame:
    """New listings from the day of the change on, by id."""
    table = market(name, **more).items_table().to_pandas()
    return table[table.listed_at >= changed_at()].set_index("item_id")


def changed_at() -> pd.Timestamp:
    return pd.Timestamp(market(None).settings.starts_at + timedelta(days=DAY))


def vectors(items: pd.DataFrame) -> np.ndarray:
    return np.stack(items.image_embedding.to_list())


def without(items: pd.DataFrame, *columns: str) -> pd.DataFrame:
    return items.drop(columns=["delisted_at", *columns])


@pytest.mark.parametrize("name", CHANGES)
def test_nothing_changes_before_its_day(name: str) -> None:
    for table in ("events_table", "items_table", "users_table"):
        usual = getattr(market(None), table)().to_pandas()
        changed = getattr(market(name), table)().to_pandas()
        column = {"events_table": "event_time", "items_table": "listed_at"}.get(table, "joined_at")
        usual, changed = (t[t[column] < changed_at()] for t in (usual, changed))
        if table == "items_table":  # whether they are sold later may differ
            later = {
                name: t.delisted_at.where(t.delisted_at < changed_at())
                for name, t in (("usual", usual), ("changed", changed))
            }
            pd.testing.assert_series_equal(later["usual"], later["changed"])
            usual, changed = without(usual), without(changed)
        assert len(usual) > 100
        pd.testing.assert_frame_equal(usual, changed)


@pytest.mark.parametrize("name", CHANGES)
def test_something_changes_from_its_day_on(name: str) -> None:
    same_events = market(None).events_table().equals(market(name).events_table())
    same_items = market(None).items_table().equals(market(name).items_table())
    assert not (same_events and same_items)


@pytest.mark.parametrize("name", ["column_gone_null", "image_encoder_replaced"])
def test_an_upstream_fault_does_not_change_behaviour(name: str) -> None:
    assert market(None).events_table().equals(market(name).events_table())
    assert market(None).users_table().equals(market(name).users_table())


@pytest.mark.parametrize("name", ["taste_shift", "price_inflation", "brand_craze"])
def test_shoppers_and_their_requests_do_not_change(name: str) -> None:
    usual, changed = market(None), market(name)
    assert usual.users_table().equals(changed.users_table())
    scenario, shoppers = changed.scenario, changed.shoppers
    preference = shoppers.categories[:50]
    assert (scenario.demand(DAY, preference) == usual.scenario.demand(DAY, preference)).all()


def test_new_category_wave() -> None:
    items, before = listed("new_category_wave"), listed(None)
    new = items[items.category_1 == "outdoor"]
    assert len(new) / len(items) == pytest.approx(0.5, abs=0.06)
    assert "outdoor" not in set(before.category_1)
    old_brands = set(market(None).items_table()["brand"].to_pylist())
    assert (~new.brand.isin(old_brands)).mean() > 0.7
    assert items[items.category_1 != "outdoor"].brand.isin(old_brands).all()
    wanted = events("new_category_wave").wanted_category
    assert 0.15 < wanted.str.startswith("outdoor").mean() < 0.75
    centre, spread = vectors(before).mean(axis=0), vectors(before).std(axis=0)
    assert (np.abs(vectors(new).mean(axis=0) - centre) > spread).mean() > 0.3


def test_taste_shift_changes_sales_but_not_listings() -> None:
    pd.testing.assert_frame_equal(without(listed("taste_shift")), without(listed(None)))

    fashion = market(None).scenario.fashion_on(DAY)

    def old_fashion_in_sales(name: str | None) -> float:
        """How much more in line with the old fashion the sales are than the new listings."""
        stock = market(name).stock
        similarity = np.einsum("ns,ns->n", fashion[stock.category], stock.style)
        sold = stock.sold & (stock.delisted_at >= DAY * MICROSECONDS_PER_DAY)
        new = stock.listed_at >= DAY * MICROSECONDS_PER_DAY
        return float(similarity[sold].mean() - similarity[new].mean())

    assert old_fashion_in_sales("taste_shift") < 0.5 * old_fashion_in_sales(None)
    half = fashion_similarity(0.5)
    assert fashion_similarity(1.0) < half < fashion_similarity(None)


def fashion_similarity(strength: float | None) -> float:
    """Cosine similarity of the fashion before and after the change, mean over categories."""
    scenario = market("taste_shift", strength).scenario if strength else market(None).scenario
    return float(
        np.einsum("cs,cs->c", scenario.fashion_on(DAY - 1), scenario.fashion_on(DAY)).mean()
    )


def test_brand_craze() -> None:
    brands = (listed(None).brand.value_counts(), listed("brand_craze").brand.value_counts())
    crazed = (brands[1] - brands[0]).idxmax()
    assert brands[1][crazed] > 1.8 * brands[0][crazed]

    def share(name: str | None) -> float:
        items = market(name).items_table().to_pandas().set_index("item_id")
        sold = items.loc[events(name).query("event_type == 'purchase'").item_id]
        return float((sold.brand == crazed).mean())

    assert share("brand_craze") > 3 * share(None)


def test_price_inflation() -> None:
    usual, dearer = listed(None), listed("price_inflation")
    assert np.allclose(dearer.price, 2 * usual.price, rtol=0.02, atol=0.02)
    pd.testing.assert_frame_equal(without(usual, "price"), without(dearer, "price"))
    half = listed("price_inflation", strength=0.5)
    assert np.allclose(half.price, np.sqrt(2) * usual.price, rtol=0.02, atol=0.02)
    sales = [(events(name).event_type == "purchase").sum() for name in (None, "price_inflation")]
    assert sales[1] < 0.9 * sales[0]


def test_new_sellers_flood() -> None:
    usual, flooded = listed(None), listed("new_sellers_flood")
    assert len(flooded) == pytest.approx(2.5 * len(usual), rel=0.08)
    users = market("new_sellers_flood").users_table().to_pandas()
    joined = users.set_index("user_id").joined_at
    new = flooded[flooded.seller_id.map(joined) == changed_at()]
    assert len(new) == pytest.approx(1.5 * len(usual), rel=0.08)
    assert (new.condition == "fair").mean() > 0.5 > (usual.condition == "fair").mean()
    old = flooded[~flooded.index.isin(new.index)]
    assert np.allclose(np.sort(old.price), np.sort(usual.price))


@pytest.mark.parametrize("column", NULLABLE_COLUMNS)
def test_column_gone_null(column: str) -> None:
    usual, faulty = listed(None), listed("column_gone_null", column=column)
    assert usual[column].notna().all()
    assert faulty[column].isna().all()
    pd.testing.assert_frame_equal(usual.drop(columns=column), faulty.drop(columns=column))


def test_column_gone_null_in_a_share_of_listings() -> None:
    assert listed("column_gone_null", strength=0.3).brand.isna().mean() == pytest.approx(
        0.3, abs=0.06
    )


def test_image_encoder_replaced() -> None:
    usual, faulty = listed(None), listed("image_encoder_replaced")
    pd.testing.assert_frame_equal(
        usual.drop(columns="image_embedding"), faulty.drop(columns="image_embedding")
    )
    before, after = vectors(usual), vectors(faulty)
    norms = np.linalg.norm(before, axis=1)
    assert np.allclose(np.linalg.norm(after, axis=1), norms, rtol=1e-4), "it is a rotation"
    alike = (before * after).sum(axis=1) / norms**2
    assert abs(alike.mean()) < 0.4
    half = vectors(listed("image_encoder_replaced", strength=0.3))
    assert alike.mean() < ((before * half).sum(axis=1) / norms**2).mean() < 1

import pickle
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from refit.contract import EVENTS, ITEMS, USERS, EventType
from simulation import choice
from simulation.history import write_history
from simulation.marketplace import CONTEXT_COLUMNS, USER_COLUMNS, Marketplace
from simulation.oracle import Oracle, perfect_recommender, random_recommender
from simulation.shoppers import MICROSECONDS_PER_DAY, user_ids
from simulation.stock import item_ids, stock_of_day

SMALL = {
    "days": 25,
    "n_shoppers": 600,
    "newcomers_per_day": 5.0,
    "listings_per_day": 90.0,
    "visits_per_day": 500.0,
    "requests_per_day": 80,
}


def tables(market: Marketplace) -> list[pa.Table]:
    return [market.events_table(), market.items_table(), market.users_table()]


@pytest.fixture(scope="module")
def market() -> Marketplace:
    return Marketplace(SMALL)


@pytest.fixture(scope="module")
def joined(market: Marketplace) -> pd.DataFrame:
    """Events beside their listing and their shopper."""
    events, items, users = (table.to_pandas() for table in tables(market))
    items = items.drop(columns=["image_embedding", "price"])
    joined = events.merge(items, on="item_id").merge(users, on="user_id", suffixes=("", "_own"))
    assert len(joined) == len(events)
    return joined


def test_tables_follow_the_contract(market: Marketplace) -> None:
    for table, columns in zip(tables(market), (EVENTS, ITEMS, USERS), strict=True):
        for column in columns:
            if column.required:
                assert table[column.name].null_count == 0
            elif column.name not in ("description", "valid_from"):
                assert column.name in table.column_names
            if column.kind == "time" and column.name in table.column_names:
                assert table.schema.field(column.name).type == pa.timestamp("us", tz="UTC")
    events, items, users = tables(market)
    assert set(CONTEXT_COLUMNS) <= set(events.column_names)
    assert set(USER_COLUMNS) <= set(users.column_names)
    made = {kind.value for kind in EventType} - {"hide"}  # simulated shoppers hide nothing
    assert set(events["event_type"].unique().to_pylist()) == made
    assert items.schema.field("image_embedding").type == pa.list_(pa.float32())
    for table in (events, items):
        assert table["price"].to_pandas().gt(0).all()
    for table, name in ((items, "item_id"), (users, "user_id")):
        assert table[name].to_pandas().is_unique


def test_events_come_in_order_of_time(market: Marketplace) -> None:
    events = market.events_table().to_pandas()
    order = events.sort_values(["event_time", "user_id", "item_id"], kind="stable").index
    assert (order == events.index).all()


def test_a_listing_is_sold_once_at_its_purchase(joined: pd.DataFrame) -> None:
    sales = joined[joined.event_type == "purchase"]
    assert len(sales) > 200
    assert sales.item_id.is_unique
    assert (sales.event_time == sales.delisted_at).all()


def test_a_listing_has_no_event_before_it_is_listed_or_after_it_is_delisted(
    joined: pd.DataFrame,
) -> None:
    assert (joined.event_time >= joined.listed_at).all()
    assert not (joined.event_time > joined.delisted_at).any()


def test_shoppers_have_no_event_on_their_own_listings(
    market: Marketplace, joined: pd.DataFrame
) -> None:
    assert set(joined.seller_id) & set(joined.user_id), "sellers are shoppers too"
    assert (joined.user_id != joined.seller_id).all()


def test_shoppers_have_no_event_before_they_join(joined: pd.DataFrame) -> None:
    assert (joined.event_time >= joined.joined_at).all()


def test_unsold_listings_are_withdrawn_after_their_lifetime(market: Marketplace) -> None:
    listed = stock_of_day(market.scenario, market.shoppers, 3)
    lifetime = (listed.delisted_at - listed.listed_at) / MICROSECONDS_PER_DAY
    many = np.concatenate(
        [
            (s.delisted_at - s.listed_at) / MICROSECONDS_PER_DAY
            for s in (stock_of_day(market.scenario, market.shoppers, day) for day in range(20))
        ]
    )
    assert lifetime.min() >= 0.25
    assert many.mean() == pytest.approx(market.settings.lifetime_days, rel=0.05)


def test_the_future_is_not_known(market: Marketplace) -> None:
    items = market.items_table().to_pandas()
    assert (items.listed_at < market.now).all()
    assert not (items.delisted_at >= market.now).any()
    assert items.delisted_at.isna().mean() > 0.2


def test_shoppers_buy_their_size(joined: pd.DataFrame) -> None:
    clothes = joined[joined.category_1.isin(["women", "men"])]
    clothes = clothes[~clothes.category_2.str.contains("shoes|bags") & clothes.size_own.notna()]
    wanted = clothes.wanted_size.where(clothes.wanted_size != "", clothes.size_own)
    fits = clothes["size"] == wanted
    sales = clothes.event_type == "purchase"
    assert fits[sales].mean() > 0.85


def test_shoppers_buy_the_category_that_they_request(joined: pd.DataFrame) -> None:
    sales = joined[(joined.event_type == "purchase") & joined.wanted_category.str.contains(" ")]
    assert (sales.category_2 == sales.wanted_category).mean() > 0.95
    assert set(joined.surface) == {"home", "search"}
    assert ((joined.surface == "home") == (joined.wanted_category == "")).all()


def test_taste_shows_in_the_vectors(market: Marketplace) -> None:
    """Within a category, two purchases of one shopper are more similar than those of two."""
    sales = market.events_table().to_pandas().query("event_type == 'purchase'")
    items = market.items_table().to_pandas().set_index("item_id").loc[sales.item_id]
    vectors = np.stack(items.image_embedding.to_list())
    vectors -= vectors.mean(axis=0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    similarity = vectors @ vectors.T
    user, category = sales.user_id.to_numpy(), items.category_2.to_numpy()
    pairs = (category[:, None] == category) & ~np.eye(len(user), dtype=bool)
    same = pairs & (user[:, None] == user)
    assert same.sum() > 50
    assert similarity[same].mean() > similarity[pairs & ~same].mean() + 0.05


def test_coats_are_in_demand_in_winter_and_dresses_in_summer() -> None:
    def shares(start: str) -> pd.Series:
        market = Marketplace({**SMALL, "days": 12, "start": start})
        wanted = market.events_table()["wanted_category"].to_pandas()
        listed = market.items_table()["category_2"].to_pandas()
        return pd.concat(
            [wanted.value_counts(normalize=True), listed.value_counts(normalize=True)], axis=1
        )

    winter, summer = shares("2023-12-01"), shares("2023-06-20")
    assert (winter.loc["women coats"] > 1.5 * summer.loc["women coats"]).all()
    assert (summer.loc["women dresses"] > 1.5 * winter.loc["women dresses"]).all()


def test_no_seasons_when_switched_off() -> None:
    flat = Marketplace({**SMALL, "days": 1, "season_strength": 0.0}).scenario
    assert (flat.supply(0) == flat.supply(180)).all()


def test_one_seed_gives_identical_rows_and_another_does_not(market: Marketplace) -> None:
    for first, second in zip(tables(market), tables(Marketplace(SMALL)), strict=True):
        assert first.equals(second)
    other = Marketplace({**SMALL, "seed": 8})
    for first, second in zip(tables(market), tables(other), strict=True):
        assert not first.equals(second)


def test_a_longer_history_begins_with_the_shorter_one(market: Marketplace) -> None:
    shorter = Marketplace({**SMALL, "days": 10}).events_table()
    assert shorter.num_rows > 1000
    assert market.events_table().slice(0, shorter.num_rows).equals(shorter)


def test_history_files_hold_the_marketplaces_rows(market: Marketplace, tmp_path) -> None:  # type: ignore[no-untyped-def]
    write_history(SMALL, tmp_path)
    for name, table in zip(("events", "items", "users"), tables(market), strict=True):
        assert pq.read_table(tmp_path / f"{name}.parquet").equals(table)
    assert len(list(tmp_path.iterdir())) == 3


class Recorder:
    """Calls a recommender, and records the arguments and answers."""

    def __init__(self, recommend) -> None:  # type: ignore[no-untyped-def]
        self.recommend = recommend
        self.calls: list[tuple] = []

    def __call__(self, *arguments):  # type: ignore[no-untyped-def]
        answer = self.recommend(*arguments)
        self.calls.append((*arguments, answer))
        return answer


def test_a_live_day(market: Marketplace) -> None:
    market = pickle.loads(pickle.dumps(market))
    recommend = Recorder(perfect_recommender(market))
    gone: list[str] = []
    before = market.items_table()
    day = market.simulate_day(recommend, 10, gone.extend)

    assert day.day == 25
    assert market.day == 26
    assert day.date == datetime(2024, 3, 26, tzinfo=UTC)
    assert day.requests.num_rows == len(recommend.calls) == 80
    events, requests = day.events.to_pandas(), day.requests.to_pandas()
    assert events.request_id.notna().any()
    assert events.request_id.isna().any()
    assert (events.event_time >= day.date).all()

    acted = events.dropna(subset="request_id").merge(requests, on="request_id", suffixes=("", "_r"))
    assert (acted.user_id == acted.user_id_r).all()
    assert (acted.wanted_category == acted.wanted_category_r).all()
    shown = {answer[0]: answer[1] for *_, answer in recommend.calls}
    assert all(i in shown[r] for i, r in zip(acted.item_id, acted.request_id, strict=True))
    bought = set(acted[acted.event_type == "purchase"].request_id)
    assert set(requests[requests.bought].request_id) == bought
    assert (requests.not_on_sale == 0).all()
    assert np.allclose(requests.chance_of_sale, requests.perfect_chance)

    assert sorted(gone) == sorted(day.delisted["item_id"].to_pylist())
    sold = day.delisted.to_pandas().query("sold").item_id
    assert set(sold) == set(events[events.event_type == "purchase"].item_id)
    after = market.items_table()
    assert after.num_rows == before.num_rows + day.listed.num_rows
    assert day.listed["delisted_at"].null_count == day.listed.num_rows
    assert (
        market.events_table().slice(market.events_table().num_rows - len(events)).equals(day.events)
    )


def test_requests_come_in_order_of_time_with_earlier_events_only(market: Marketplace) -> None:
    market = pickle.loads(pickle.dumps(market))
    for _ in range(2):
        recommend = Recorder(perfect_recommender(market))
        market.simulate_day(recommend)
    events = market.events_table().to_pandas()
    times = [time for *_, time, _ in recommend.calls]
    assert times == sorted(times)
    assert any(
        e["event_time"] >= times[0].replace(hour=0, minute=0) for c in recommend.calls for e in c[2]
    ), "some histories reach into the day itself"
    for user_id, context, history, k, time, _ in recommend.calls:
        assert k == 10
        assert set(context) == set(CONTEXT_COLUMNS)
        truth = events[(events.user_id == user_id) & (events.event_time < time)]
        assert len(history) == min(50, len(truth))
        found = [(e["event_time"], e["item_id"], e["event_type"]) for e in history]
        known = set(zip(truth.event_time, truth.item_id, truth.event_type, strict=True))
        assert set(found) <= known
        assert [t for t, *_ in found] == sorted((t for t, *_ in found), reverse=True)


def test_no_listing_is_sold_twice_across_live_days(market: Marketplace) -> None:
    market = pickle.loads(pickle.dumps(market))
    for _ in range(4):
        market.simulate_day(perfect_recommender(market))
    events = market.events_table().to_pandas()
    sales = events[events.event_type == "purchase"]
    assert sales.item_id.is_unique
    ends = market.items_table().to_pandas().set_index("item_id").delisted_at
    assert not (events.event_time > events.item_id.map(ends)).any()


def test_a_shopper_is_known_by_all_events_before_today(market: Marketplace) -> None:
    market = pickle.loads(pickle.dumps(market))
    for _ in range(3):  # looked up between the days, as requests do
        market.simulate_day(perfect_recommender(market))
        log = market.events_table().to_pandas()
        for shopper in (0, 7, 400, len(market.shoppers) - 1):
            item, kind, time = market.events_of(shopper)
            own = log[log.user_id == user_ids(np.array([shopper]))[0]]
            assert item_ids(item) == own.item_id.tolist()
            assert [choice.EVENT_TYPES[code] for code in kind] == own.event_type.tolist()
            assert (np.diff(time) >= 0).all()


def test_a_better_recommender_sells_more(market: Marketplace) -> None:
    sales = {}
    for make in (perfect_recommender, random_recommender):
        copy = pickle.loads(pickle.dumps(market))
        requests = copy.simulate_day(make(copy)).requests.to_pandas()
        sales[make] = requests.bought.sum()
        assert (requests.perfect_chance >= requests.chance_of_sale - 1e-6).all()
        assert requests.organic_chance.mean() > 3 * requests.random_chance.mean()
    assert sales[perfect_recommender] >= 5 * max(1, sales[random_recommender])


def test_purchases_agree_with_their_chances(market: Marketplace) -> None:
    """The number of purchases is within four standard deviations of the sum of their chances."""
    market = pickle.loads(pickle.dumps(market))
    days = [market.simulate_day(perfect_recommender(market)).requests.to_pandas() for _ in range(3)]
    requests = pd.concat(days)
    chance = requests.chance_of_sale
    spread = np.sqrt((chance * (1 - chance)).sum())
    assert abs(requests.bought.sum() - chance.sum()) < 4 * spread


def test_chance_of_sale_by_hand() -> None:
    """Two slots, both with the utility at which a purchase has a chance of a half."""
    value = np.full(2, choice.THRESHOLDS[choice.PURCHASE], dtype=np.float32)
    view = 1 / (1 + np.exp(choice.THRESHOLDS[choice.VIEW] - choice.THRESHOLDS[choice.PURCHASE]))
    bought = 0.5 * view
    assert choice.chance_of_sale(value) == pytest.approx(1 - (1 - bought) * (1 - bought / 1.1))
    nothing = np.full(2, choice.NOT_SHOWN)
    assert choice.chance_of_sale(nothing) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("items", "shown", "not_on_sale"),
    [
        ([], 0, 0),
        (["item-9999999", "nonsense", "item-"], 3, 3),
        (["item-0000000"] * 3, 3, None),
    ],
    ids=["empty", "unknown", "repeated"],
)
def test_answers_with_nothing_to_show(
    market: Marketplace, items: list[str], shown: int, not_on_sale: int | None
) -> None:
    market = pickle.loads(pickle.dumps(market))
    day = market.simulate_day(lambda user, *_: (f"r-{user}-{_[-1]}", items))
    requests = day.requests.to_pandas()
    assert (requests.shown == shown).all()
    if not_on_sale is None:
        assert requests.not_on_sale.isin([2, 3]).all(), "a repeat is shown once at most"
    else:
        assert (requests.not_on_sale == not_on_sale).all()
        assert not requests.bought.any()


def test_a_day_that_failed_can_be_simulated_again(market: Marketplace) -> None:
    market = pickle.loads(pickle.dumps(market))
    fresh = pickle.loads(pickle.dumps(market))

    def fail(*_: object) -> tuple[str, list[str]]:
        raise ConnectionError("the recommender is down")

    with pytest.raises(ConnectionError):
        market.simulate_day(fail)
    assert market.day == 25
    day, same = (m.simulate_day(perfect_recommender(m)) for m in (market, fresh))
    assert day.events.equals(same.events)


def test_concurrent_requests_give_the_same_day_every_time(market: Marketplace) -> None:
    days = []
    for _ in range(2):
        copy = pickle.loads(pickle.dumps(market))
        days.append(copy.simulate_day(perfect_recommender(copy), concurrency=4))
    assert days[0].events.equals(days[1].events)
    assert days[0].requests.num_rows == market.settings.requests_per_day
    assert days[0].requests["time"].to_pylist() == sorted(days[0].requests["time"].to_pylist())


def test_the_oracle_agrees_with_the_day(market: Marketplace) -> None:
    market = pickle.loads(pickle.dumps(market))
    oracle = Oracle(market)
    chances = []

    def recommend(user_id, context, _, k, time):  # type: ignore[no-untyped-def]
        items = oracle.best(user_id, context, k, time)
        utilities = oracle.utilities(user_id, context, [*items, "item-9999999"], time)
        assert np.isnan(utilities[-1])
        assert (np.diff(utilities[:-1]) <= 0).all()
        chances.append(oracle.chance_of_sale(user_id, context, items, time))
        return f"r-{len(chances)}", items

    requests = market.simulate_day(recommend).requests.to_pandas()
    assert np.allclose(requests.chance_of_sale, chances)


def test_the_oracle_knows_what_a_sold_item_was_worth(market: Marketplace) -> None:
    bought = market.events_table().to_pandas().query("event_type == 'purchase'").iloc[-1]
    context = {name: bought[name] for name in CONTEXT_COLUMNS}
    of_item = bought.user_id, context, [bought.item_id, "item-9999999"], bought.event_time
    oracle = Oracle(market)
    assert np.isnan(oracle.utilities(*of_item)).all()
    worth, unknown = oracle.utilities(*of_item, if_available=False)
    assert np.isfinite(worth)
    assert np.isnan(unknown)

"""Attacks on the pipeline: data and settings that make a model look better than it is.

Each stands for a kind that shops' exports, or people in a hurry, really bring.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from refit.files import read_json, write_json

Expected = Literal["refused", "no gain"]
"""``no gain``: the model may pass, but then the attack gains it nothing."""

CATEGORICAL = ("brand", "category_1", "category_2", "size", "condition")
CONTEXT = ("surface", "wanted_category", "wanted_size")
USER = ("department", "size")


@dataclass(frozen=True)
class Attack:
    """One way to get a model through that should not get through.

    Attributes:
        name: Its name in the table.
        sql: What it does to the tables ``events``, ``items`` and ``users``, in DuckDB's SQL.
        settings: What it sets in the config.
        change: What it does to a copy of the honest model and its index; see ``judge_again``.
        expected: What the pipeline should do.
        names: Words that one reason of a refusal must contain.
        compared: A method that must have been compared with the model.
    """

    name: str
    sql: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    change: Callable[[Path], None] | None = None
    expected: Expected = "refused"
    names: str = ""
    compared: str = ""


def _write_values(file: Path, **values: Any) -> None:
    write_json(file, {**read_json(file), **values})


def _move_time(file: Path, name: str, days: float) -> None:
    then = datetime.fromisoformat(read_json(file)[name]) + timedelta(days=days)
    _write_values(file, **{name: then.isoformat()})


def _train_on_the_test(parts: Path) -> None:
    _move_time(parts / "model/model.json", "trained_until", 10)


def _age_the_model(parts: Path) -> None:
    _move_time(parts / "model/model.json", "trained_until", -100)


def _age_the_index(parts: Path) -> None:
    _move_time(parts / "index/index.json", "as_of", -60)


def _swap_the_index(parts: Path) -> None:
    _write_values(parts / "index/index.json", embedding_version="0" * 16)


def _name_itself_champion(parts: Path) -> None:
    shutil.copytree(parts / "model", parts / "champion")


def _train_the_champion_on_the_test(parts: Path) -> None:
    _name_itself_champion(parts)
    _move_time(parts / "champion/model.json", "trained_until", 10)


def _lose_the_champions_towers(parts: Path) -> None:
    _name_itself_champion(parts)
    shutil.rmtree(parts / "champion/query_tower")


def _spec(**columns: Any) -> dict[str, Any]:
    return {"features": {"spec": columns}}


LIKES = """
ALTER TABLE items ADD COLUMN like_count BIGINT;
UPDATE items SET like_count = (
    SELECT count(*) FROM events e WHERE e.item_id = items.item_id AND e.event_type = 'like');
"""
DAYS_TO_SALE = """
ALTER TABLE items ADD COLUMN days_to_sale DOUBLE;
UPDATE items SET days_to_sale = date_diff('minute', listed_at, delisted_at) / 1440.0;
"""
STATUS = """
ALTER TABLE items ADD COLUMN status VARCHAR;
UPDATE items SET status = CASE
    WHEN item_id IN (SELECT item_id FROM events WHERE event_type = 'purchase') THEN 'sold'
    WHEN item_id IN (SELECT item_id FROM events WHERE event_type = 'offer') THEN 'offer'
    WHEN delisted_at IS NOT NULL THEN 'withdrawn' ELSE 'live' END;
"""
SHOWN = """
ALTER TABLE events ADD COLUMN shown VARCHAR;
UPDATE events SET shown = i.brand || ' ' || i.size || ' ' || i.colour
FROM items i WHERE i.item_id = events.item_id;
"""
FAVOURITE = """
ALTER TABLE users ADD COLUMN favourite VARCHAR;
UPDATE users SET favourite = (
    SELECT arg_max(i.category_2 || ' ' || i.size, e.event_time)
    FROM events e JOIN items i USING (item_id)
    WHERE e.user_id = users.user_id AND e.event_type IN ('cart', 'offer', 'purchase'));
"""
TWO_HOURS = {
    "validation_start": "2024-03-31T22:00:00Z",
    "test_start": "2024-04-03T22:00:00Z",
    "validation_days": None,
    "test_days": None,
}
WITHOUT_SEARCH = {
    "features": {
        "spec": {
            "context_categorical": ["surface"],
            "popularity_by": [],
            "user_categorical": [*USER, "favourite"],
        }
    },
    "evaluation": {"leaks": {"intended": ["users.department", "users.size"]}},
}
BUYER = """
ALTER TABLE items ADD COLUMN buyer VARCHAR;
UPDATE items SET buyer = (
    SELECT any_value(u.department || ' ' || u.size)
    FROM events e JOIN users u USING (user_id)
    WHERE e.item_id = items.item_id AND e.event_type = 'purchase');
"""
ORDERS = """
ALTER TABLE users ADD COLUMN orders BIGINT;
UPDATE users SET orders = (
    SELECT count(*) FROM events e WHERE e.user_id = users.user_id AND e.event_type = 'purchase');
"""
BOT = """
INSERT INTO events BY NAME SELECT 'robot' AS user_id, item_id, 'cart' AS event_type,
    TIMESTAMPTZ '2024-03-05 00:00:00Z' + to_milliseconds(i * 1200) AS event_time,
    'robot-' || i AS session_id, 'search' AS surface
FROM range(1950000) t(i) JOIN
    (SELECT item_id, row_number() OVER (ORDER BY item_id) - 1 AS n FROM items LIMIT 900)
    ON n = i % 900;
"""
EARLY_ENDS = """
UPDATE items SET delisted_at = listed_at + INTERVAL 1 HOUR WHERE hash(item_id) % 10 > 0;
"""

DATA_ATTACKS = (
    Attack(
        "no session ids: a purchase predicted from its own view",
        "ALTER TABLE events DROP session_id",
        expected="no gain",
    ),
    Attack(
        "no ends of listings: what was sold counts as live",
        "ALTER TABLE items DROP delisted_at",
        expected="no gain",
    ),
    Attack(
        "choices with session ids of another system",
        """UPDATE events SET session_id = 'order-' || item_id || '-' || user_id
        WHERE event_type IN ('cart', 'offer', 'purchase')""",
        names="whose positive was in the history within the hour",
    ),
    Attack(
        "likes as exported, later ones included",
        LIKES,
        _spec(item_numeric=["like_count"]),
        names="features.spec.static does not name (items.like_count)",
    ),
    Attack(
        "the same, declared static",
        LIKES,
        _spec(item_numeric=["like_count"], static=["like_count"]),
        expected="no gain",
        names="share of the gain that items.like_count carries",
    ),
    Attack(
        "days until the sale, declared static",
        DAYS_TO_SALE,
        _spec(item_numeric=["days_to_sale"], static=["days_to_sale"]),
        names="share of the gain that items.days_to_sale carries",
    ),
    Attack(
        "a status that knows the sale",
        STATUS,
        _spec(item_categorical=[*CATEGORICAL, "status"]),
        names="share of the gain that items.status carries",
    ),
    Attack(
        "the event's own price as context",
        "",
        _spec(context_numeric=["price"]),
        names="'price' is known only because the event happened",
    ),
    Attack(
        "the chosen item's brand as context",
        SHOWN,
        _spec(context_categorical=[*CONTEXT, "shown"]),
        names="share of the gain that events.shown carries",
    ),
    Attack(
        "what a user chose last, as a user column",
        FAVOURITE,
        _spec(user_categorical=[*USER, "favourite"]),
        expected="no gain",
    ),
    Attack(
        "the same where the search is not known, and it gains",
        FAVOURITE,
        WITHOUT_SEARCH,
        names="share of the gain that users.favourite carries",
    ),
    Attack(
        "the buyer's department and size as an item column",
        BUYER,
        _spec(item_categorical=[*CATEGORICAL, "buyer"]),
        names="share of the gain that items.buyer carries",
    ),
    Attack(
        "orders of each user as exported",
        ORDERS,
        _spec(user_numeric=["orders"]),
        names="features.spec.static does not name (users.orders)",
    ),
    Attack("a bot with 94% of the events", BOT, names="largest user: 'robot'"),
    Attack(
        "users spelled differently in two tables",
        "UPDATE users SET user_id = upper(user_id) || '.0'",
        names="of the ids are the same but for case",
    ),
    Attack(
        "listings that end too early: few queries can be judged",
        EARLY_ENDS,
        names="whose positive was not eligible",
    ),
    Attack(
        "a test of two weeks in which new listings are left out",
        settings={"ingestion": {"test_days": 14}, "evaluation": {"candidates": "seen"}},
        names="share of queries that were left out",
    ),
    Attack(
        "times without their hour",
        "UPDATE events SET event_time = date_trunc('day', event_time)",
        expected="no gain",
    ),
    Attack(
        "a test of two hours",
        "",
        {"ingestion": TWO_HOURS},
        names="test queries",
    ),
    Attack(
        "a model that learned nothing",
        "",
        {"training": {"max_epochs": 1, "learning_rate": 1e-9}},
        names="gain over",
    ),
)
"""Attacks that are run from the tables on."""

GATE_ATTACKS = (
    Attack(
        "a tolerance that is infinite",
        settings={"evaluation": {"champion_tolerance": float("inf")}},
        names="champion_tolerance",
    ),
    Attack(
        "a baseline that did not run",
        settings={"evaluation": {"baselines": {"extra": ["tests.benchmarks.gate.silent:SILENT"]}}},
        names="gain over silent was not measured",
    ),
    Attack(
        "EASE with more items than its limit",
        settings={"evaluation": {"baselines": {"extra": ["ease"], "ease_max_items": 100}}},
        expected="no gain",
        compared="EASE",
    ),
    Attack(
        "popularity left out of the baselines",
        settings={"evaluation": {"baselines": {"include": ["cooccurrence"]}}},
        names="gain over popularity was not measured",
    ),
    Attack(
        "a hit rate at more items than are on sale",
        settings={"evaluation": {"cuts": [10, 50, 5000], "metric": "hit_rate_at_5000"}},
        names="candidates to choose from",
    ),
    Attack(
        "a floor on a slice that is empty",
        settings={"evaluation": {"slice_floors": [{"slice": "size: 99"}]}},
        names="no test query is in this slice",
    ),
    Attack(
        "a bound on what nobody measured",
        settings={"evaluation": {"bounds": {"novelty_at_7": {"at_least": 0.0}}}},
        names="unknown measurement 'novelty_at_7'",
    ),
    Attack(
        "data that nobody renews, two years old",
        settings={"evaluation": {"freshness": {"as_of": "now"}}},
        names="age of the last test query",
    ),
    Attack("a model that is 100 days old", change=_age_the_model, names="age of the model"),
    Attack("an index that is 60 days old", change=_age_the_index, names="age of the index"),
    Attack("an index of other towers", change=_swap_the_index, names="index built with the model"),
    Attack(
        "a model that was trained on the test window",
        change=_train_on_the_test,
        names="days of the test window that the model was trained on",
    ),
    Attack(
        "the champion itself, judged again",
        change=_name_itself_champion,
        expected="no gain",
        compared="champion",
    ),
    Attack(
        "a champion that was trained on the test window",
        change=_train_the_champion_on_the_test,
        names="queries that it has not seen",
    ),
    Attack(
        "a champion that cannot be read",
        change=_lose_the_champions_towers,
        names="gain over the champion",
    ),
    Attack(
        "a model server that does not start",
        settings={"evaluation": {"smoke_test": ["false"]}},
        names="model server",
    ),
)
"""Attacks on the judgement of the honest model."""

ATTACKS = {attack.name: attack for attack in (*DATA_ATTACKS, *GATE_ATTACKS)}

"""Attacks on the pipeline: data and settings that make a model look better than it is.

Each stands for a kind that shops' exports, or people in a hurry, really bring.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Expected = Literal["refused", "honest"]
"""``honest``: the model may pass, but the attack gains it nothing."""

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
        expected: What the pipeline should do.
        names: A word that the reasons of a refusal must contain.
    """

    name: str
    sql: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    expected: Expected = "refused"
    names: str = ""


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
    SELECT arg_max(i.brand || ' ' || i.category_2 || ' ' || i.colour, e.event_time)
    FROM events e JOIN items i USING (item_id)
    WHERE e.user_id = users.user_id AND e.event_type IN ('cart', 'offer', 'purchase'));
"""
BOT = """
INSERT INTO events BY NAME SELECT 'bot' AS user_id, item_id, 'like' AS event_type,
    TIMESTAMPTZ '2024-03-05 00:00:00Z' + to_seconds(i * 20) AS event_time,
    'bot-' || i AS session_id, 'search' AS surface
FROM range(120000) t(i) JOIN
    (SELECT item_id, row_number() OVER (ORDER BY item_id) - 1 AS n FROM items LIMIT 900)
    ON n = i % 900;
"""

DATA_ATTACKS = (
    Attack(
        "no session ids: a purchase predicted from its own view",
        "ALTER TABLE events DROP session_id",
        expected="honest",
    ),
    Attack(
        "no ends of listings: what was sold counts as live",
        "ALTER TABLE items DROP delisted_at",
        expected="honest",
    ),
    Attack(
        "likes as exported, later ones included",
        LIKES,
        _spec(item_numeric=["like_count"]),
        names="like_count",
    ),
    Attack(
        "the same, declared static",
        LIKES,
        _spec(item_numeric=["like_count"], static=["like_count"]),
        names="like_count",
    ),
    Attack(
        "days until the sale, declared static",
        DAYS_TO_SALE,
        _spec(item_numeric=["days_to_sale"], static=["days_to_sale"]),
        names="days_to_sale",
    ),
    Attack(
        "a status that knows the sale",
        STATUS,
        _spec(item_categorical=[*CATEGORICAL, "status"]),
        names="status",
    ),
    Attack("the event's own price as context", "", _spec(context_numeric=["price"]), names="price"),
    Attack(
        "the chosen item's brand as context",
        SHOWN,
        _spec(context_categorical=[*CONTEXT, "shown"]),
        names="shown",
    ),
    Attack(
        "a user column computed after the fact",
        FAVOURITE,
        _spec(user_categorical=[*USER, "favourite"]),
        names="favourite",
    ),
    Attack("a bot with half of the events", BOT, names="bot"),
    Attack(
        "users spelled differently in two tables",
        "UPDATE users SET user_id = upper(user_id) || '.0'",
        names="user",
    ),
    Attack(
        "times without their hour",
        "UPDATE events SET event_time = date_trunc('day', event_time)",
        names="midnight",
    ),
    Attack(
        "a test of half a day",
        "",
        {"ingestion": {"test_start": "2024-04-03T12:00:00Z", "test_days": None}},
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
        names="silent",
    ),
    Attack(
        "popularity left out of the baselines",
        settings={"evaluation": {"baselines": {"include": ["cooccurrence"]}}},
        names="popularity",
    ),
    Attack(
        "most queries left out of the evaluation",
        settings={"evaluation": {"candidates": "seen", "max_left_out": 0.1}},
        names="left out",
    ),
    Attack(
        "data that nobody renews, two years old",
        settings={"evaluation": {"freshness": {"as_of": "now"}}},
        names="age of",
    ),
    Attack(
        "a model server that does not start",
        settings={"evaluation": {"smoke_test": ["false"]}},
        names="model server",
    ),
)
"""Attacks on the judgement of the honest model."""

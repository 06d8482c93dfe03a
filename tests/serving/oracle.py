"""What a recommender has to answer, from its bundle and the lines of its feeds alone.

Written again from the reference pages, without the serving code and without its data structures:
every listing is worked out from all lines about it, every answer by looking at every item. Only the
towers are those of the bundle. It knows the columns of the tiny marketplace.
"""

import json
import math
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from refit.bundle import Bundle

DAY = 86_400.0
ENDS = {"sold", "withdrawn", "delisted"}
CHANGES = {"listed", "changed", "relisted"} | ENDS
KINDS = {"view", "like", "cart", "offer", "purchase"}
OTHER_KINDS = {"hide", "not_interested", "impression"}
TEXTS, NUMBERS, VECTOR = ("seller_id", "brand", "category_1", "size"), ("price",), "image_embedding"
LATE, AHEAD = timedelta(hours=24), timedelta(seconds=300)
VISIT_SECONDS, HISTORY, EVENTS = 1800.0, 5, 100
LEARNED = 11
LARGEST = float(np.finfo(np.float32).max)
CLOSE = 3e-5
"""How far scores of one model may be apart because they were added up in another order."""
ROUNDED = float(np.finfo(np.float32).eps)
"""And how far, as a share of a score, because single precision holds no more of it."""


def is_id(value: object) -> bool:
    if not isinstance(value, str) or not 1 <= len(value) <= 256 or not value.strip():
        return False
    return not any(unicodedata.category(sign) in ("Cc", "Cf", "Zl", "Zp", "Cs") for sign in value)


def is_text(value: object) -> bool:
    return isinstance(value, str) and not any("\ud800" <= sign <= "\udfff" for sign in value)


def is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def read_time(value: object) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        return None
    if not 1970 <= time.year < 2200:
        return None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time


def read_stock(text: bytes) -> dict[str, Any] | None:
    """A line of the stock feed with its time in ``at``; None for one that is set aside."""
    line = _read_object(text)
    if line is None or not is_id(line.get("item_id")) or line.get("change") not in CHANGES:
        return None
    at = read_time(line.get("at"))
    if at is None:
        return None
    price, listed_at, seller = line.get("price"), line.get("listed_at"), line.get("seller_id")
    if price is not None and not (is_number(price) and price >= 0):
        return None
    if listed_at is not None and read_time(listed_at) is None:
        return None
    if seller is not None and not is_id(seller):
        return None
    if line["change"] not in ENDS and not _describes(line):
        return None
    told = {n: line[n] for n in (*TEXTS, *NUMBERS, "listed_at") if n in line}
    if told.get("price") is not None:
        told["price"] = float(told["price"])
    if told.get("listed_at") is not None:
        told["listed_at"] = read_time(told["listed_at"])
    if line.get(VECTOR) is not None and line["change"] not in ENDS:
        told[VECTOR] = np.array(line[VECTOR], dtype=np.float32).tobytes()
    return {"item_id": line["item_id"], "change": line["change"], "at": at, "told": told}


def _describes(line: Mapping[str, Any]) -> bool:
    if any(line.get(name) is not None and not is_text(line[name]) for name in TEXTS):
        return False
    vector, price = line.get(VECTOR), line.get("price")
    if price is not None and abs(price) > LARGEST:
        return False
    if vector is not None and not (
        isinstance(vector, list)
        and len(vector) == 3
        and all(is_number(one) and abs(one) <= LARGEST for one in vector)
    ):
        return False
    if line["change"] == "listed" or "seller_id" in line:
        return bool(line.get("seller_id"))
    return True


def read_activity(text: bytes) -> dict[str, Any] | None:
    """A line of the activity feed with its time in ``at``; None for one that is set aside."""
    line = _read_object(text)
    if line is None or not is_id(line.get("user_id")) or not is_id(line.get("item_id")):
        return None
    at = read_time(line.get("event_time"))
    if at is None or at.year < 1990 or line.get("event_type") not in KINDS | OTHER_KINDS:
        return None
    price = line.get("price")
    if price is not None and not (is_number(price) and price >= 0):
        return None
    return {**{n: line[n] for n in ("user_id", "item_id", "event_type")}, "at": at}


def _read_object(text: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) else None


@cache
def load_tower(path: Path) -> Any:
    import tensorflow as tf

    return tf.saved_model.load(str(path))


@dataclass
class Known:
    """What the bundle has of one item.

    Attributes:
        values: Its columns.
        content: Its content vector.
        vector: Its embedding; None where it is not live.
        age, popularity, picture: What its embedding was made from.
    """

    values: dict[str, Any]
    content: np.ndarray
    vector: np.ndarray | None = None
    age: float = 0.0
    popularity: np.ndarray | None = None
    picture: np.ndarray | None = None


@dataclass
class Shown:
    """An item on sale."""

    values: dict[str, Any]
    vector: np.ndarray


@dataclass
class Person:
    """What the feed says of one person."""

    events: set[tuple[float, str, str]] = field(default_factory=set)
    bought: list[tuple[float, str]] = field(default_factory=list)
    hidden: list[tuple[float, str]] = field(default_factory=list)


class Oracle:
    """Knows what has to be answered.

    Args:
        bundle: The bundle.
        has_now: Whether lines may be in the future; a replay has no now.
    """

    def __init__(self, bundle: Bundle, has_now: bool) -> None:
        self._has_now = has_now
        self._read_bundle(bundle.index)
        self._load_towers(bundle)
        self._lines: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        self._people: defaultdict[str, Person] = defaultdict(Person)
        self._fresh_content: dict[str, np.ndarray] = {}
        self.on_sale = {
            item_id: Shown(one.values, one.vector)
            for item_id, one in self._known.items()
            if one.vector is not None
        }

    def _read_bundle(self, index: Path) -> None:
        self.as_of = datetime.fromisoformat(json.loads((index / "index.json").read_text())["as_of"])
        rows = pq.read_table(index / "items.parquet").to_pylist()
        self._ids = [row["item_id"] for row in rows]
        content, vectors = np.load(index / "content.npy"), np.load(index / "vectors.npy")
        features = pq.read_table(index / "live_features.parquet").to_pylist()
        pictures = np.load(index / "item_vectors.npy").astype(np.float32)
        self._known: dict[str, Known] = {}
        for number, row in enumerate(rows):
            values = {name: row[name] for name in (*TEXTS, *NUMBERS)}
            known = self._known[row["item_id"]] = Known(values, content[number])
            if number < len(vectors):
                popularity = np.zeros(5, dtype=np.float32)
                popularity[features[number]["count_at"]] = features[number]["count"]
                known.vector, known.popularity = vectors[number], popularity
                known.age, known.picture = features[number]["age_days"], pictures[number]
        delisted = pq.read_table(index / "delisted_items.parquet")["item_id"].to_pylist()
        users = pq.read_table(index / "histories.parquet").to_pylist()
        self._stored: dict[str, list[tuple[float, str, str]]] = {}
        for user in users:
            entries = zip(user["event_time"], user["item_row"], user["event_type"], strict=True)
            self._stored[user["user_id"]] = [
                (at.timestamp(), self._ids[row], kind) for at, row, kind in entries
            ]
        self._cities = {user["user_id"]: user["city"] for user in users}
        names = [user["user_id"] for user in users]
        every = [*self._ids, *delisted]
        self._lists: dict[str, defaultdict[str, set[str]]] = {}
        for kind in ("purchases", "hides"):
            told: defaultdict[str, set[str]] = defaultdict(set)
            for entry in pq.read_table(index / f"{kind}.parquet").to_pylist():
                told[names[entry["user_row"]]].add(every[entry["item_row"]])
            self._lists[kind] = told
        self._popular: dict[tuple[str, str], dict[str, float]] = {}
        for entry in pq.read_table(index / "popularity.parquet").to_pylist():
            ids = [self._ids[row] for row in entry["item_row"]]
            total = sum(entry["score"])
            self._popular[entry["column"], entry["value"]] = {
                item_id: score / total for item_id, score in zip(ids, entry["score"], strict=True)
            }

    def _load_towers(self, bundle: Bundle) -> None:
        import tensorflow as tf

        self._tf = tf
        self._loaded = [load_tower(path / "1") for path in (bundle.item_tower, bundle.query_tower)]
        self._item, self._query = (one.signatures["serving_default"] for one in self._loaded)

    def learn(self, stock: Iterable[bytes], activity: Iterable[bytes]) -> set[str]:
        """Take lines, in whatever order; returns the items that they may change."""
        latest = datetime.now(UTC) + AHEAD if self._has_now else datetime.max.replace(tzinfo=UTC)
        touched: set[str] = set()
        for text in stock:
            line = read_stock(text)
            if line is not None and self.as_of - LATE <= line["at"] <= latest:
                self._lines[line["item_id"]].append(line)
                touched.add(line["item_id"])
        for text in activity:
            event = read_activity(text)
            if event is not None and self.as_of - LATE <= event["at"] <= latest:
                self._take_event(event)
        self._work_out(touched)
        return touched

    def _take_event(self, event: Mapping[str, Any]) -> None:
        person, at = self._people[event["user_id"]], event["at"].timestamp()
        if event["event_type"] in ("hide", "not_interested"):
            person.hidden.append((at, event["item_id"]))
        elif event["event_type"] in KINDS:
            person.events.add((at, event["item_id"], event["event_type"]))
            if event["event_type"] == "purchase":
                person.bought.append((at, event["item_id"]))

    def _work_out(self, item_ids: set[str]) -> None:
        """What each listing is, from all lines about it."""
        to_embed = []
        for item_id in sorted(item_ids):
            self.on_sale.pop(item_id, None)
            known = self._known.get(item_id)
            live = known is not None and known.vector is not None
            told, whole_at, edited_at = self._read_lines(item_id, live)
            began, ended = max(
                (
                    (one["at"], one["change"] in ENDS)
                    for one in self._lines[item_id]
                    if one["change"] != "changed"
                ),
                default=(None, not live),
            )
            is_on = not ended and (live or (began is not None and began >= self.as_of))
            if live and edited_at is None and is_on:
                self.on_sale[item_id] = Shown(known.values, known.vector)
            if live and (edited_at is None or not is_on):
                continue
            stored = known.values if known is not None else None
            if whole_at is None and (stored is None or not is_on):
                continue
            values: dict[str, Any] = dict.fromkeys((*TEXTS, *NUMBERS))
            if whole_at is None:
                values |= stored
            values |= {n: v for n, v in told.items() if n in values}
            picture = known.picture if known is not None else None
            if VECTOR in told:
                picture = np.frombuffer(told[VECTOR], dtype=np.float32)
            if picture is None:
                continue
            moments = [at for at in (began, edited_at) if at is not None]
            age = self._age(told.get("listed_at"), max(moments), began, known if live else None)
            popularity = known.popularity if live else np.zeros(5, dtype=np.float32)
            to_embed.append((item_id, values, picture, age, popularity, is_on))
        if to_embed:
            self._embed(to_embed)

    def _read_lines(
        self, item_id: str, live: bool
    ) -> tuple[dict[str, Any], datetime | None, datetime | None]:
        """What the lines say of a listing, and when it was last listed and last edited."""
        lines = [one for one in self._lines[item_id] if one["change"] not in ENDS]
        if live:
            lines = [one for one in lines if one["at"] >= self.as_of]
        whole_at = max((one["at"] for one in lines if one["change"] == "listed"), default=None)
        told: dict[str, tuple[datetime, str, Any]] = {}
        for one in lines:
            for name, value in one["told"].items():
                if name != VECTOR and whole_at is not None and one["at"] < whole_at:
                    continue
                entry = (one["at"], repr(value), value)
                if name not in told or entry[:2] > told[name][:2]:
                    told[name] = entry
        moments = [at for at, _, _ in told.values()]
        if whole_at is not None:
            moments.append(whole_at)
        edited_at = max(moments, default=None)
        return {name: value for name, (_, _, value) in told.items()}, whole_at, edited_at

    def _age(
        self,
        listed_at: datetime | None,
        at: datetime,
        began: datetime | None,
        live: Known | None,
    ) -> float:
        if listed_at is not None:
            return max((at - listed_at).total_seconds() / DAY, 0.0)
        if live is not None:
            return live.age + max((at - self.as_of).total_seconds() / DAY, 0.0)
        return (at - began).total_seconds() / DAY if began is not None else 0.0

    def _embed(self, listings: Sequence[tuple[Any, ...]]) -> None:
        ids, values, pictures, ages, popularity, on = zip(*listings, strict=True)
        texts = {n: [one[n] or "" for one in values] for n in ("brand", "category_1")}
        prices = [math.nan if one["price"] is None else one["price"] for one in values]
        constant = self._tf.constant
        outputs = self._item(
            item_id=constant(ids),
            item_brand=constant(texts["brand"]),
            item_category_1=constant(texts["category_1"]),
            item_price=constant(prices, self._tf.float32),
            item_vector=constant(np.stack(pictures)),
            item_age_days=constant(ages, self._tf.float32),
            item_popularity=constant(np.stack(popularity)),
        )
        vectors, content = outputs["embedding"].numpy(), outputs["content"].numpy()
        for number, item_id in enumerate(ids):
            self._fresh_content[item_id] = content[number]
            if on[number]:
                self.on_sale[item_id] = Shown(values[number], vectors[number])

    def content(self, item_id: str) -> np.ndarray | None:
        if item_id in self._known:
            return self._known[item_id].content
        return self._fresh_content.get(item_id)

    def query(
        self, body: Mapping[str, Any], now: datetime
    ) -> tuple[np.ndarray, Mapping[str, float]]:
        """[D] the query tower's vector for a request, and what the history adds to its items."""
        moment, user = now.timestamp(), body.get("user_id")
        if body.get("history") is not None:
            events = [
                (read_time(e["event_time"]).timestamp(), e["item_id"], e["event_type"])
                for e in body["history"]
                if e["event_type"] != "hide"
            ]
            events = sorted(events, key=lambda one: -one[0])
        else:
            stored = self._stored.get(user, [])[:HISTORY]
            since = stored[0][0] if stored else -math.inf
            recent = sorted(self._of(user).events)[-EVENTS:]
            if not self._has_now:
                recent = [one for one in recent if one[0] <= moment]
            events = [one for one in reversed(recent) if one[0] > since] + stored
        events = [one for one in events if self.content(one[1]) is not None]
        before, running = moment, len(events)
        for number, (at, _, _) in enumerate(events):
            if before - at > VISIT_SECONDS:
                running = number
                break
            before = at
        events = events[running : running + HISTORY]
        content = np.zeros((1, HISTORY, 8), dtype=np.float32)
        ages = np.zeros((1, HISTORY), dtype=np.float32)
        kinds = [[""] * HISTORY]
        for number, (at, item_id, kind) in enumerate(events):
            content[0, number], kinds[0][number] = self.content(item_id), kind
            ages[0, number] = max(moment - at, 0) / DAY
        context, constant = body.get("context") or {}, self._tf.constant
        age = context.get("age")
        outputs = self._query(
            context_occasion=constant([context.get("occasion") or ""]),
            context_age=constant([math.nan if age is None else age], self._tf.float32),
            user_city=constant([self._cities.get(user, "")]),
            history_content=constant(content),
            history_event_type=constant(kinds),
            history_age_days=constant(ages),
        )
        added: dict[str, float] = {}
        for (_, item_id, _), more in zip(events, self._weights_of(outputs), strict=False):
            added[item_id] = added.get(item_id, 0.0) + more
        return np.asarray(outputs["embedding"].numpy()[0]), added

    @staticmethod
    def _weights_of(outputs: Mapping[str, Any]) -> list[float]:
        weights = outputs.get("repeats")
        return [] if weights is None else [float(one) for one in weights.numpy()[0]]

    def _of(self, user: str | None) -> Person:
        return self._people[user] if user in self._people else Person()

    def eligible(self, body: Mapping[str, Any], now: datetime) -> list[str]:
        """The items that may be shown."""
        user = body.get("user_id")
        until = math.inf if self._has_now else now.timestamp()
        person, history = self._of(user), body.get("history") or []
        away = {i for at, i in (*person.bought, *person.hidden) if at <= until}
        away |= self._lists["purchases"].get(user, set()) | self._lists["hides"].get(user, set())
        away |= {e["item_id"] for e in history if e["event_type"] in ("purchase", "hide")}
        away |= {*body.get("exclude", ()), *body.get("hidden", ())}
        if "item_id" in body:
            away.add(body["item_id"])
        return [
            item_id
            for item_id, one in self.on_sale.items()
            if item_id not in away
            and (user is None or one.values["seller_id"] != user)
            and all(_fits(one.values[n], wanted) for n, wanted in body.get("require", {}).items())
        ]

    def scores(self, body: Mapping[str, Any], now: datetime) -> dict[str, float]:
        """The score of every item that may be shown."""
        items = self.eligible(body, now)
        if "item_id" in body:
            likeness = self._likeness(body["item_id"], items)
            return self._popularity(body, items) if likeness is None else likeness
        if body.get("personalised") is False:
            return self._popularity({}, items)
        query, added = self.query(body, now)
        return {
            item_id: float(self.on_sale[item_id].vector @ query) + added.get(item_id, 0.0)
            for item_id in items
        }

    def _popularity(self, body: Mapping[str, Any], items: Sequence[str]) -> dict[str, float]:
        context, keys = body.get("context") or {}, []
        if context.get("occasion") is not None:
            keys.append(("occasion", context["occasion"]))
        if context.get("age") is not None:
            keys.append(("age", "0" if context["age"] < 30 else "1"))
        total = dict.fromkeys(items, 0.0)
        for key, weight in (*((key, 1.0) for key in keys), (("", ""), 1e-3)):
            for item_id, score in self._popular.get(key, {}).items():
                if item_id in total:
                    total[item_id] += weight * score
        return total

    def _is_as_stored(self, item_id: str) -> bool:
        known = self._known.get(item_id)
        return known is not None and self.on_sale[item_id].vector is known.vector

    def _likeness(self, item_id: str, items: Sequence[str]) -> dict[str, float] | None:
        known = self._known.get(item_id)
        vector = known.vector if known is not None else None
        if item_id in self.on_sale:
            vector = self.on_sale[item_id].vector
        if vector is not None:
            learned = _unit(vector[:LEARNED])
            return {i: float(self.on_sale[i].vector[:LEARNED] @ learned) for i in items}
        content = self.content(item_id)
        if content is None:
            return None
        return {i: float(_unit(self._current_content(i)) @ _unit(content)) for i in items}

    def _current_content(self, item_id: str) -> np.ndarray:
        if item_id in self._fresh_content and not self._is_as_stored(item_id):
            return self._fresh_content[item_id]
        return self._known[item_id].content


def _fits(value: object, wanted: object) -> bool:
    if value is None:
        return False
    if isinstance(wanted, Mapping):
        least, most = wanted.get("min", -math.inf), wanted.get("max", math.inf)
        return bool(least <= value <= most)  # type: ignore[operator]
    return value in wanted  # type: ignore[operator]


def _unit(vector: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vector)
    return vector / length if length else vector


def find_fault(items: Sequence[Mapping[str, Any]], scores: Mapping[str, float], k: int) -> str:
    """Why items are not the k best by their scores, best first; "" if they are."""
    ids = [item["item_id"] for item in items]
    if len(set(ids)) != len(ids):
        return f"an item is there twice: {sorted(ids)}"
    if unknown := [item_id for item_id in ids if item_id not in scores]:
        return f"{unknown} must not be shown"
    if len(ids) != min(k, len(scores)):
        return f"{len(ids)} items instead of {min(k, len(scores))}; without {_left(scores, ids)}"
    for item in items:
        true_score = scores[item["item_id"]]
        if abs(item["score"] - true_score) > _tolerance(true_score):
            return f"{item['item_id']} scores {item['score']}, not {true_score}"
    true = [scores[item_id] for item_id in ids]
    if any(after > before + _tolerance(before) for before, after in pairwise(true)):
        return f"the order is wrong: {list(zip(ids, true, strict=True))}"
    rest = [item_id for item_id in scores if item_id not in set(ids)]
    if ids and rest and max(scores[i] for i in rest) > true[-1] + _tolerance(true[-1]):
        return f"{max(rest, key=lambda i: scores[i])} is missing"
    return ""


def _tolerance(score: float) -> float:
    return CLOSE + ROUNDED * abs(score)


def _left(scores: Mapping[str, float], ids: Sequence[str]) -> list[str]:
    return sorted(set(scores) - set(ids))[:10]

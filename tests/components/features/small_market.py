"""A small random market with every edge case, and a slow, direct computation of its features."""

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.features.settings import FeatureSettings
from refit.dataset import EARLIER_FILE, DatasetManifest, Split
from refit.features import FeatureSpec, bin_of

Row = dict[str, Any]
START = datetime(2024, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
SPLIT = Split(
    start=START,
    validation_start=START + 12 * DAY,
    test_start=START + 16 * DAY,
    end=START + 20 * DAY,
)
TIME = pa.timestamp("us", tz="UTC")
SPEC = FeatureSpec(
    item_categorical=("brand",),
    item_numeric=("price",),
    item_text=("title",),
    item_vector="image_embedding",
    context_categorical=("size", "occasion"),
    context_numeric=("age",),
    user_categorical=("country",),
    user_numeric=("height",),
    static=("price", "height"),
    history_length=4,
    visit_gap_minutes=200,  # events are three hours apart or more
    popularity_half_lives_days=(2.0, 30.0),
    popularity_by=("size", "age"),
    popularity_values=3,
    popularity_bins={"age": (30.1, 40.0)},
    event_weights={"like": 0.5, "purchase": 1.0},
    target_events=("purchase",),
    snapshot_every_days=1.5,
)


def make_items(rng: np.random.Generator, n: int = 25) -> list[Row]:
    """Items in random order; some never listed, some sold, some without a vector or a brand."""
    rows = []
    for i in rng.permutation(n):
        listed = START + timedelta(hours=6 * int(rng.integers(-20, 70)))
        sold = listed + timedelta(hours=6 * int(rng.integers(1, 60)))
        rows.append(
            {
                "item_id": f"i{i}",
                "seller_id": f"u{i % 7}" if i % 3 else None,
                "brand": rng.choice(["A", "B"]) if i % 4 else None,
                "title": f"thing {i}",
                "price": float(i) if i % 5 else None,
                "listed_at": listed if i % 3 else None,
                "delisted_at": sold if i % 2 else None,
                "image_embedding": [float(i), 1.0] if i % 6 else None,
            }
        )
    return rows


def make_events(
    rng: np.random.Generator, n: int = 300, start: datetime = START, end: datetime = SPLIT.end
) -> list[Row]:
    """Events with coarse times, so that many have the same time."""
    ticks = int((end - start) / timedelta(hours=3))
    rows = {}
    for _ in range(n):
        user = int(rng.integers(12))
        at = start + timedelta(hours=3 * int(rng.integers(ticks)))
        item_id, kind = f"i{rng.integers(22)}", str(rng.choice(["view", "like", "purchase"]))
        has_session = user % 2 and not (user % 3 == 0 and kind == "purchase")
        rows[user, item_id, kind, at] = {
            "user_id": f"u{user}",
            "item_id": item_id,
            "event_type": kind,
            "event_time": at,
            "session_id": f"s{user}-{at:%Y%m%d}" if has_session else None,
            "size": rng.choice(["S", "M", "L", "XL", "XXL", "", None]),
            "occasion": rng.choice(["work", "party", None]),
            "age": rng.choice([25.0, 30.1, 33.0, 40.0, 55.0, None]),
        }
    return list(rows.values())


def make_users() -> list[Row]:
    """Some of these users have no event, and some events have a user who is not here."""
    return [
        {"user_id": f"u{i}", "country": "DE" if i % 2 else None, "height": float(i) if i else None}
        for i in range(15)
        if i != 5
    ]


def write_dataset(
    folder: Path,
    events: list[Row],
    items: list[Row],
    users: list[Row],
    earlier: Sequence[Row] = (),
) -> Path:
    """Write a dataset folder like that of the ingestion step."""
    folder.mkdir(parents=True)
    events = sorted(events, key=lambda r: (r["event_time"], r["user_id"], r["item_id"]))
    kinds: dict[str, pa.DataType] = {
        "event_time": TIME,
        "listed_at": TIME,
        "delisted_at": TIME,
        "seen_at": TIME,
        "valid_from": TIME,
        "image_embedding": pa.list_(pa.float32()),
    }
    for name, rows in (("events", events), ("items", items), ("users", users)):
        numbers = {"price", "age", "height", "like_count"}
        schema = pa.schema(
            [
                (c, kinds.get(c, pa.float64() if c in numbers else pa.string()))
                for c in (rows[0] if rows else {"user_id": None})
            ]
        )
        pq.write_table(pa.Table.from_pylist(rows, schema), folder / f"{name}.parquet")
    texts = ("user_id", "item_id", "event_type")
    schema = pa.schema([*((name, pa.string()) for name in texts), ("event_time", TIME)])
    pq.write_table(pa.Table.from_pylist(list(earlier), schema), folder / EARLIER_FILE)
    DatasetManifest(
        source="test",
        simulated=True,
        terms="",
        counts={},
        split=SPLIT,
        fingerprint="abc",
        context_columns=("size", "occasion", "age"),
    ).write(folder)
    return folder


def days(later: datetime, earlier: datetime) -> float:
    return (later - earlier) / DAY


class SlowFeatures:
    """The features, computed from their definition, one row at a time, in O(n^2)."""

    def __init__(
        self, settings: FeatureSettings, events: list[Row], items: list[Row], users: list[Row]
    ) -> None:
        self.spec, self.frozen = settings.spec, settings.frozen_at_cut
        self.market = settings.market
        self.events = [e for e in events if e["event_time"] < SPLIT.end]
        self.users = {u["user_id"]: u for u in users}
        self.items = sorted(
            ({**i, "known_at": self._known_at(i)} for i in items),
            key=lambda i: (i["known_at"], i["item_id"]),
        )
        self.index = {i["item_id"]: n for n, i in enumerate(self.items)}
        self.bounds = (SPLIT.start, SPLIT.validation_start, SPLIT.test_start, SPLIT.end)
        self.snapshots = self._snapshots()

    def _known_at(self, item: Row) -> datetime:
        touched = [e["event_time"] for e in self.events if e["item_id"] == item["item_id"]]
        listed = [item["listed_at"]] if item["listed_at"] else []
        return min(touched + listed, default=SPLIT.end)

    def _snapshots(self) -> list[datetime]:
        times = []
        for window in range(3):
            time = self.bounds[window]
            while time < self.bounds[window + 1]:
                times.append(time)
                if self.frozen and window > 0:
                    break
                time += self.spec.snapshot_every_days * DAY
        return [*times, SPLIT.end]

    def snapshot_of(self, time: datetime) -> int:
        return max(i for i, s in enumerate(self.snapshots) if s <= time)

    def history(self, event: Row) -> list[Row]:
        until = event["event_time"]
        if not self.spec.history_within_visit:
            until = min(self._start(e) for e in self._visit(event))
        return self.latest(event["user_id"], until)

    def _visit(self, event: Row) -> list[Row]:
        """Events of the same session; without one, the event itself."""
        if not event.get("session_id"):
            return [event]
        key = (event["user_id"], event["session_id"])
        return [e for e in self.events if (e["user_id"], e["session_id"]) == key]

    def _run(self, event: Row) -> list[Row]:
        """The events of the same user around it, without a long gap between two of them."""
        own = [e for e in self.events if e["user_id"] == event["user_id"]]
        own.sort(key=lambda e: e["event_time"])
        runs: list[list[Row]] = [[]]
        for e in own:
            gap = timedelta(minutes=self.spec.visit_gap_minutes)
            if runs[-1] and e["event_time"] - runs[-1][-1]["event_time"] > gap:
                runs.append([])
            runs[-1].append(e)
        return next(run for run in runs if any(e is event for e in run))

    def _start(self, event: Row) -> datetime:
        """When its run began, if that has an event without a session; else its own time."""
        run = self._run(event)
        alone = any(not e.get("session_id") for e in run)
        return run[0]["event_time"] if alone else event["event_time"]

    def latest(self, user: str, until: datetime) -> list[Row]:
        before = [e for e in self.events if e["user_id"] == user and e["event_time"] < until]
        before.sort(key=lambda e: (e["event_time"], e["item_id"], e["event_type"]))
        return before[::-1][: self.spec.history_length]

    def opens_visit(self, event: Row) -> bool:
        def order(e: Row) -> tuple[datetime, str, str]:
            return e["event_time"], e["item_id"], e["event_type"]

        visit = self._visit(event) if event.get("session_id") else self._run(event)
        return event is min(visit, key=order)

    def examples(self, window: int, requests: bool = False) -> list[Row]:
        start, end = self.bounds[window], self.bounds[window + 1]
        rows = []
        for event in self.events:
            kind, time = event["event_type"], event["event_time"]
            weight = self.spec.event_weights.get(kind, 0.0)
            wanted = weight > 0 if window == 0 else kind in self.spec.target_events
            if requests:
                wanted = self.opens_visit(event)
            if not (wanted and start <= time < end):
                continue
            history = self.history(event)
            user = self.users.get(event["user_id"], {})
            rows.append(
                {
                    "user_id": event["user_id"],
                    "item_index": self.index[event["item_id"]],
                    "event_type": kind,
                    "event_time": time,
                    "weight": weight,
                    "snapshot": self.snapshot_of(time),
                    **{c: event[c] for c in ("size", "occasion")},
                    "age": None if event["age"] is None else float(np.float32(event["age"])),
                    "country": user.get("country"),
                    "height": user.get("height"),
                    "history_item": [self.index[e["item_id"]] for e in history],
                    "history_event_type": [e["event_type"] for e in history],
                    "history_age_days": [
                        float(np.float32(days(time, e["event_time"]))) for e in history
                    ],
                    "is_new_user": not self._before(start, user_id=event["user_id"]),
                    "is_new_item": not self._before(start, item_id=event["item_id"]),
                }
            )
        return rows

    def _before(self, time: datetime, **same: str) -> bool:
        (name, value) = next(iter(same.items()))
        return any(e[name] == value and e["event_time"] < time for e in self.events)

    def ends(self, item: Row) -> list[datetime]:
        """Every time at which a listing of the item ended."""
        stated = [item["delisted_at"]] if item["delisted_at"] else []
        mine = [e for e in self.events if e["item_id"] == item["item_id"]]
        bought = [e["event_time"] for e in mine if e["event_type"] == "purchase"]
        return stated + bought if self.market.hides_bought else stated

    def gone_at(self, item: Row) -> datetime | None:
        start = item["listed_at"] or datetime.min.replace(tzinfo=UTC)
        found = [end for end in self.ends(item) if end >= start]
        if self.market.gone_after_days and (active := self._active(item)):
            silent = active[-1] + self.market.gone_after_days * DAY
            found += [silent] if silent <= SPLIT.end else []
        return min(found, default=None)

    def pauses(self, item: Row) -> list[tuple[datetime, datetime]]:
        """When the item was not on sale in between."""
        start = item["listed_at"]
        before = [end for end in self.ends(item) if start and end < start]
        found = [(min(before), start)] if before else []
        if self.market.gone_after_days:
            longest = self.market.gone_after_days * DAY
            active = self._active(item)
            pairs = itertools.pairwise(active)
            found += [(one + longest, two) for one, two in pairs if one + longest < two]
        return found

    def _active(self, item: Row) -> list[datetime]:
        times = {e["event_time"] for e in self.events if e["item_id"] == item["item_id"]}
        return sorted(times | ({item["listed_at"]} if item["listed_at"] else set()))

    def live(self, i: int) -> set[int]:
        start = self.snapshots[i]
        now = i + 1 == len(self.snapshots)
        found = set()
        for n, item in enumerate(self.items):
            known = item["known_at"] <= start if now else item["known_at"] < self.snapshots[i + 1]
            gone_at = self.gone_at(item)
            gone = gone_at is not None and gone_at <= start
            until = start if now else self.snapshots[i + 1]
            gone |= any(one <= start and two >= until for one, two in self.pauses(item))
            if known and not gone:
                found.add(n)
        asked = [row for window in range(3) for row in self.examples(window)]
        return found | {row["item_index"] for row in asked if row["snapshot"] == i}

    def popularity(self, i: int, n: int, values: dict[str, tuple[str, ...]]) -> list[float]:
        time, item = self.snapshots[i], self.items[n]["item_id"]
        mine = [e for e in self.events if e["item_id"] == item and e["event_time"] < time]
        counts = []
        for half_life in self.spec.popularity_half_lives_days:
            weights = [
                self.spec.event_weights.get(e["event_type"], 0.0)
                * 0.5 ** (days(time, e["event_time"]) / half_life)
                for e in mine
            ]
            counts.append(sum(weights))
            for column in self.spec.popularity_by:
                for value in values[column]:
                    named = [self.value(e, column) == value for e in mine]
                    counts.append(sum(w for w, there in zip(weights, named, strict=True) if there))
        return counts

    def value(self, event: Row, column: str) -> str:
        if edges := self.spec.popularity_bins.get(column):
            number = np.array([np.nan if event[column] is None else event[column]], np.float32)
            return str(bin_of(number, edges)[0])
        return event[column] or ""

"""Random states of a marketplace with running feeds, and whether every answer is the right one.

Random lines, good and bad, are appended to real feed folders while a recommender follows them with
its own threads. After each step its answers are compared with those of ``tests.serving.oracle``.
What a step does not touch must not change meanwhile, not in a single answer.
"""

import json
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from refit.bundle import Bundle
from serving.recommender import Recommender
from serving.settings import RecommenderSettings
from tests.serving import tiny
from tests.serving.oracle import Oracle, find_fault

SETTLE_SECONDS = 20.0
POLL_SECONDS = 0.01
HOURS = 2.0
"""So long after the bundle things happen; some lines come a day late."""
GRID = timedelta(minutes=7)
"""Events are on it, so that none is near the end of a visit of 30 minutes."""
EVERYTHING = {"k": 500}
BRANDS = (*tiny.BRANDS, "arket", None)
PICTURES = ([0.1, 0.2, 0.3], [-2.0, 0.5, 1.0], [3, 0, -1], [0.0, 0.0, 0.0])

STOCK_GARBAGE = (
    b"{",
    b"[]",
    b"null",
    b"\xff\xfe\x00",
    b"[" * 5000,
    b'{"item_id": "item-1"}',
    b'{"item_id": 7, "change": "sold", "at": "2026-01-01T00:00:00Z"}',
    b'{"item_id": "item-1", "change": "sold", "at": 1.7e9}',
    b'{"item_id": "item-1", "change": "sold", "at": "yesterday"}',
    b'{"item_id": "item-1", "change": "sold", "at": "9999-12-31T23:59:59-23:59"}',
    b'{"item_id": "it\\u0000em", "change": "sold", "at": "2026-01-01T00:00:00Z"}',
)
"""Lines of their own; ``BAD_FIELDS`` are put into lines that are good but for them."""
BAD_FIELDS: tuple[dict[str, Any], ...] = (
    {"price": -1},
    {"price": "80"},
    {"price": True},
    {"price": float("nan")},
    {"price": 10**400},
    {"price": 1e300},
    {"brand": 7},
    {"brand": "\ud800"},
    {"size": ["M"]},
    {"category_1": {"a": {}}},
    {"seller_id": " "},
    {"seller_id": None},
    {"listed_at": "then"},
    {"image_embedding": [1]},
    {"image_embedding": [1, 2, None]},
    {"image_embedding": [1, 2, 1e39]},
    {"change": "stolen"},
    {"item_id": ""},
    {"item_id": "x" * 257},
)
HARMLESS_FIELDS: tuple[dict[str, Any], ...] = (
    {"colour": "\ud800"},
    {"pages": 10**400},
    {"nested": [[[{"a": None}]]]},
    {"live": False},
    {"change_": "sold"},
)


class WrongAnswerError(AssertionError):
    """An answer that is not what follows from the bundle and the lines."""


@dataclass
class RandomFeed:
    """A feed to which lines are appended: to several files, sometimes half a line at first.

    Attributes:
        whole: All lines that are there from their start to their end.
    """

    folder: Path
    rng: random.Random
    whole: list[bytes] = field(default_factory=list)
    _halves: dict[str, tuple[bytes, int]] = field(default_factory=dict)

    def append(self, lines: Sequence[bytes]) -> list[bytes]:
        """Append lines; returns those that are whole now and were not before."""
        self.folder.mkdir(parents=True, exist_ok=True)
        done: list[bytes] = []
        for line in lines:
            name = self.rng.choice("abc") + ".jsonl"
            with (self.folder / name).open("ab", buffering=0) as file:
                if name in self._halves:
                    half, written = self._halves.pop(name)
                    file.write(half[written:] + b"\n")
                    done.append(half)
                if self.rng.random() < 0.04:
                    written = self.rng.randrange(len(line))
                    file.write(line[:written])
                    self._halves[name] = line, written
                else:
                    file.write(line + b"\n")
                    done.append(line)
        self.whole += done
        return done


class RandomLines:
    """Makes lines of both feeds.

    Args:
        rng: Decides.
        as_of: The time of the bundle.
        has_now: Whether there may be lines from the future and from this moment.
    """

    def __init__(self, rng: random.Random, as_of: datetime, has_now: bool) -> None:
        self._rng, self._as_of, self._has_now = rng, as_of, has_now
        self._hot = [tiny.item_id(rng.randrange(tiny.N_LIVE)) for _ in range(15)]
        self._dead = [tiny.item_id(tiny.N_LIVE + n) for n in range(tiny.N_GONE)] + ["long-gone"]
        self._n_new = 3
        self._sent: dict[str, list[bytes]] = {"stock": [], "activity": []}
        self.people = [*(f"user-{n}" for n in range(8)), *(f"person-{n}" for n in range(4))]

    def item(self) -> str:
        """An item that things happen to."""
        draw = self._rng.random()
        if draw < 0.4:
            return self._rng.choice(self._hot)
        if draw < 0.75:
            self._n_new += self._rng.random() < 0.2
            return f"new-{self._rng.randrange(self._n_new)}"
        if draw < 0.85:
            return self._rng.choice(self._dead)
        return tiny.item_id(self._rng.randrange(tiny.N_LIVE))

    def stock(self, progress: float) -> list[bytes]:
        """Lines of the stock feed at one step."""
        return self._with_repeats("stock", [self._change(progress) for _ in range(self._few(6))])

    def activity(self, progress: float) -> list[bytes]:
        """Lines of the activity feed at one step."""
        return self._with_repeats("activity", [self._event(progress) for _ in range(self._few(3))])

    def _few(self, mean: float) -> int:
        return min(int(self._rng.expovariate(1 / mean)) + 1, 40)

    def _with_repeats(self, feed: str, lines: list[bytes]) -> list[bytes]:
        sent = self._sent[feed]
        sent += lines
        repeated = [self._rng.choice(sent) for _ in lines if self._rng.random() < 0.1]
        mixed = [*lines, *repeated]
        self._rng.shuffle(mixed)
        return mixed

    def _at(self, progress: float) -> datetime:
        """About now; sometimes late, on a whole minute or before the bundle."""
        draw, hours = self._rng.random(), HOURS * progress
        if draw < 0.15:
            hours = self._rng.uniform(-27, hours)
        elif draw < 0.35:
            hours = self._rng.choice((0.0, 0.5, 1.0, 1.5, -0.5, -24.0))
        elif draw < 0.4 and self._has_now:
            return datetime.now(UTC) + timedelta(hours=1)
        return self._as_of + timedelta(hours=hours)

    def _change(self, progress: float) -> bytes:
        rng = self._rng
        if rng.random() < 0.04:
            return rng.choice(STOCK_GARBAGE)
        item_id = self.item()
        is_new = item_id.startswith("new")
        kinds = ("listed", "changed", "relisted", "sold", "withdrawn", "delisted")
        weights = (6, 3, 2, 3, 1, 1) if is_new else (2, 5, 4, 4, 2, 1)
        (kind,) = rng.choices(kinds, weights)
        line = {"item_id": item_id, "change": kind, "at": self._at(progress).isoformat()}
        if kind == "listed":
            line |= self._fields(0.92)
        elif kind in ("changed", "relisted"):
            line |= self._fields(0.3)
        if rng.random() < 0.1:
            line |= rng.choice(BAD_FIELDS)
        if rng.random() < 0.05:
            line |= rng.choice(HARMLESS_FIELDS)
        return json.dumps(line).encode()

    def _fields(self, share: float) -> dict[str, Any]:
        rng = self._rng
        fields = {
            "seller_id": rng.choice(self.people),
            "brand": rng.choice(BRANDS),
            "category_1": rng.choice(("dress", "coat", None)),
            "size": rng.choice(("S", "M", "L", "XL", None)),
            "price": rng.choice((5, 20.5, 50, 99.99, None)),
            "image_embedding": rng.choice((*PICTURES, None)),
        }
        if rng.random() < 0.2:
            before = timedelta(days=rng.uniform(0, 90))
            fields["listed_at"] = (self._as_of - before).isoformat()
        return {name: value for name, value in fields.items() if rng.random() < share}

    def _event(self, progress: float) -> bytes:
        rng = self._rng
        if rng.random() < 0.05:
            return rng.choice((b"{", b"{}", b'{"user_id": "user-1", "item_id": "item-1"}'))
        kinds = ("view", "like", "cart", "offer", "purchase", "hide", "not_interested")
        (kind,) = rng.choices((*kinds, "impression", "glance"), (8, 3, 2, 1, 2, 2, 1, 2, 1))
        late = rng.random() < 0.2
        hours = rng.uniform(-26, 0) if late else HOURS * progress
        at = self._as_of + GRID * int(hours * 3600 // GRID.total_seconds())
        if self._has_now and rng.random() < 0.15:
            at = datetime.now(UTC)
        event = {"user_id": rng.choice(self.people), "item_id": self.item(), "event_type": kind}
        return json.dumps({**event, "event_time": at.isoformat()}).encode()


class RandomRequests:
    """Makes requests, each with the number of the page that is its last."""

    def __init__(self, rng: random.Random, lines: RandomLines, times: Sequence[datetime]) -> None:
        self._rng, self._lines, self._times = rng, lines, times

    def some(self) -> Iterator[dict[str, Any]]:
        """One request of each kind; a list of pages has a cursor."""
        rng = self._rng
        user = {"user_id": rng.choice((*self._lines.people, "user-29", None))}
        size = {"k": rng.choice((1, 10, 37, 500))}
        context = {"context": self._context()}
        yield {**user, **size, **context}
        yield {**user, **size, "require": self._require(), "hidden": self._items()}
        yield {**size, "item_id": self._lines.item(), "exclude": self._items()}
        yield {**user, **size, **context, "personalised": False}
        yield {**user, **size, "history": self._history(), "exclude": self._items()}
        if rng.random() < 0.3:
            yield {**user, "k": rng.choice((61, 97)), "require": self._require(), "cursor": ""}

    def time(self) -> dict[str, str]:
        """The time of a request of a replay."""
        return {"time": self._rng.choice(self._times).isoformat()} if self._times else {}

    def _context(self) -> dict[str, Any]:
        rng = self._rng
        context = {"occasion": rng.choice((*tiny.OCCASIONS, None)), "age": rng.choice((20, 44.5))}
        return {name: value for name, value in context.items() if rng.random() < 0.6}

    def _items(self) -> list[str]:
        return [self._lines.item() for _ in range(self._rng.choice((0, 1, 5)))]

    def _require(self) -> dict[str, Any]:
        rng = self._rng
        wanted = {
            "brand": [b for b in BRANDS if b and rng.random() < 0.5] or ["ganni"],
            "size": rng.sample(("S", "M", "L", "XL"), 2),
            "category_1": ["dress"],
            "price": rng.choice(({"min": 20}, {"max": 50.0}, {"min": 5, "max": 30}, [5.0, 50.0])),
        }
        return {name: value for name, value in wanted.items() if rng.random() < 0.3}

    def _history(self) -> list[dict[str, str]]:
        rng, events = self._rng, []
        for number in range(rng.choice((0, 1, 3, 8))):
            at = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(hours=number)
            kind = rng.choice(("view", "like", "purchase", "hide"))
            event = {"item_id": self._lines.item(), "event_type": kind}
            events.append({**event, "event_time": at.isoformat()})
        return events


class RandomMarket:
    """A recommender with its feeds, and what it should answer.

    Args:
        folder: For registry, feeds and log.
        bundles: It serves the first; now and then the other is promoted.
        model_server: ``host:port``.
        seed: Everything follows from it but the time of day.
        is_replay: Whether requests have a time; then no line is from the future.
    """

    def __init__(
        self,
        folder: Path,
        bundles: Sequence[Bundle],
        model_server: str,
        seed: int,
        is_replay: bool,
    ) -> None:
        self._folder, self._bundles, self._seed = folder, list(bundles), seed
        self._rng = random.Random(seed)
        self._is_replay = is_replay
        feeds = {name: str(folder / name) for name in ("stock", "activity")}
        self._settings = RecommenderSettings.parse(
            {
                "registry": str(folder / "registry"),
                "model_server": model_server,
                "log_folder": folder / "log",
                "feeds": {**feeds, "poll_seconds": 0.02, "listing_seconds": 0.03},
                "allow_replay": is_replay,
                "tower_deadline_ms": 5000,
                "poll_seconds": 0.1,
                "unload_after_seconds": 0.2,
            }
        )
        tiny.promote(folder / "registry", bundles[0])
        self._oracle = Oracle(bundles[0], has_now=not is_replay)
        as_of = self._oracle.as_of
        self._stock, self._activity = (
            RandomFeed(Path(address), self._rng) for address in feeds.values()
        )
        self._lines = RandomLines(self._rng, as_of, has_now=not is_replay)
        moments = [timedelta(hours=24)] + [GRID * n + GRID / 2 for n in (2, 8, 15)]
        times = [as_of + moment for moment in moments] if is_replay else []
        self._requests = RandomRequests(self._rng, self._lines, times)
        self._step = 0

    def run(self, states: int) -> int:
        """Go through states; returns the number of answers that were compared.

        Raises:
            WrongAnswerError: An answer is wrong; the message says how to get there again.
        """
        compared = 0
        recommender = Recommender(self._settings)
        try:
            for self._step in range(states):
                if self._rng.random() < 0.03:
                    recommender.close()
                    recommender = Recommender(self._settings)
                if self._rng.random() < 0.03:
                    self._swap(recommender)
                self._go_on(recommender, self._step / states)
                compared += self._compare(recommender)
            recommender.close()
            recommender = Recommender(self._settings)
            compared += self._compare(recommender)
        finally:
            recommender.close()
        return compared

    def _swap(self, recommender: Recommender) -> None:
        """Let another bundle take over; it has to learn everything from the feeds again."""
        self._bundles.reverse()
        tiny.promote(self._folder / "registry", self._bundles[0])
        deadline = time.monotonic() + SETTLE_SECONDS
        while recommender.bundle_id != self._bundles[0].bundle_id:
            if time.monotonic() > deadline:
                raise WrongAnswerError(f"{self._where()}: the swap did not happen")
            time.sleep(POLL_SECONDS)
        self._oracle = Oracle(self._bundles[0], has_now=not self._is_replay)
        self._oracle.learn(self._stock.whole, self._activity.whole)

    def _go_on(self, recommender: Recommender, progress: float) -> None:
        """Let things happen, and see to it that nothing else changes."""
        before = set(self._oracle.on_sale)
        changes = self._stock.append(self._lines.stock(progress))
        events = self._activity.append(self._lines.activity(progress))
        touched = self._oracle.learn(changes, events)
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            fault, shown = self._find_fault(recommender, EVERYTHING)
            if flickers := (shown ^ before) - touched:
                raise WrongAnswerError(f"{self._where()}: nothing happened to {sorted(flickers)}")
            if not fault:
                return
            if time.monotonic() > deadline:
                raise WrongAnswerError(f"{self._where()}: {fault}{self._explain(fault)}")
            time.sleep(POLL_SECONDS)

    def _compare(self, recommender: Recommender) -> int:
        """Compare answers of all kinds, each once it has had the time to settle."""
        compared = 0
        for body in (EVERYTHING, *self._requests.some()):
            deadline = time.monotonic() + SETTLE_SECONDS
            asked = body | self._requests.time()
            while fault := self._find_fault(recommender, asked)[0]:
                if time.monotonic() > deadline:
                    raise WrongAnswerError(
                        f"{self._where()}: {asked}: {fault}{self._explain(fault)}"
                    )
                time.sleep(POLL_SECONDS)
            compared += 1
        return compared

    def _find_fault(
        self, recommender: Recommender, body: Mapping[str, Any]
    ) -> tuple[str, set[str]]:
        """Why an answer is wrong; "" if it is not; and what it shows."""
        asked = dict(body)
        now = datetime.fromisoformat(asked["time"]) if "time" in asked else datetime.now(UTC)
        answer = recommender.recommend(asked)
        items, k = list(answer["items"]), asked.get("k", 10)
        while answer.get("cursor"):
            answer = recommender.recommend({**asked, "cursor": answer["cursor"]})
            items += answer["items"]
            k += asked["k"]
        fault = find_fault(items, self._oracle.scores(asked, now), k)
        return fault, {item["item_id"] for item in items}

    def _where(self) -> str:
        kind = "a replay" if self._is_replay else "live"
        return f"seed {self._seed}, {kind}, step {self._step}, in {self._folder}"

    def _explain(self, fault: str) -> str:
        """The lines about the first item that a fault names."""
        named = [word.strip("[]',") for word in fault.split() if "-" in word]
        every = self._stock.whole + self._activity.whole
        about = [line.decode() for line in every if named and f'"{named[0]}"'.encode() in line]
        return "\n" + "\n".join(dict.fromkeys(about))

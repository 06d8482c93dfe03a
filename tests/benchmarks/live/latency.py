"""How soon what happens reaches the answers, under load.

The laptop's processes serve a small market whose towers are made at random. Lines of both feeds
are written all the time; what is measured is the time from just before a line is written to the
end of the first answer that knows it.
"""

import argparse
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from refit.progress import log_message
from serving.client import RecommenderClient
from serving.launch import ServerHandle, launch
from serving.settings import ServeSettings
from tests.benchmarks.live.figures import Figure, at_most, count
from tests.benchmarks.live.market import make_groups
from tests.kafka.broker import Broker
from tests.serving import tiny

PART = "latency"
N_LIVE = 20_000
GROUP = 400
"""So many listings share a brand, so that one answer shows which of them are on sale."""
EDITED = 300
"""Background lines edit these listings over and over."""
TICK = 0.02
LOOKERS = 4
WARM_UPS = 50
BOUNDS = {"sale to gone": 1.0, "listing to shown": 5.0, "view to changed": 1.0}
WAIT_SECONDS = 60.0


class Lines:
    """Appends lines to a feed, in a folder or on a topic."""

    def __init__(self, address: str, broker: Broker | None) -> None:
        self.address, self._topic = address, address.rpartition("/")[2]
        self._producer = broker.producer() if broker else None
        self._lock = threading.Lock()
        self.written = 0
        if not self._producer:
            Path(address).mkdir(parents=True, exist_ok=True)
            self._file = (Path(address) / "a.jsonl").open("ab", buffering=0)

    def warm_up(self) -> None:
        """Write lines of an item and a person that nobody knows, until they are written at once."""
        for _ in range(WARM_UPS):
            line = {**_line("nobody-knows-it", "sold"), "user_id": "nobody-knows-them"}
            event = {"event_type": "view", "event_time": line["at"]}
            self.append("item_id", [{**line, **event}] * 10)
            if self._producer:
                self._producer.flush(10)

    def append(self, key: str, lines: list[dict[str, Any]]) -> float:
        """Append lines; return the time just before."""
        with self._lock:
            started = time.monotonic()
            self.written += len(lines)
            if self._producer:
                for line in lines:
                    self._producer.produce(self._topic, json.dumps(line), line[key])
                self._producer.poll(0)
            else:
                self._file.write("".join(json.dumps(line) + "\n" for line in lines).encode())
            return started


@dataclass
class Measured:
    """Times from events to answers, and what went wrong.

    Attributes:
        seconds: By what is measured.
        requests: Seconds that each request took.
        failures: Requests that failed.
        lost: Events that no answer ever showed.
    """

    seconds: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in BOUNDS})
    requests: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    lost: int = 0


class Market:
    """A market under load.

    Args:
        server: What serves it.
        stock: Its stock feed.
        activity: Its activity feed.
        measured: Where times go.
    """

    def __init__(
        self, server: ServerHandle, stock: Lines, activity: Lines, measured: Measured
    ) -> None:
        self.server, self.stock, self.activity, self.measured = server, stock, activity, measured
        self.stop = threading.Event()
        self._local = threading.local()
        self.paused = threading.Event()
        self._waiting: dict[str, tuple[str, dict[str, float]]] = {}

    def ask(self, **request: Any) -> list[tuple[str, float]]:
        """The items and scores of an answer; a failure is recorded, and gives none."""
        if not hasattr(self._local, "client"):
            self._local.client = RecommenderClient(self.server.url)
        started = time.monotonic()
        try:
            answer = self._local.client.recommend(**request)
        except Exception as error:
            self.measured.failures.append(str(error))
            return []
        self.measured.requests.append(time.monotonic() - started)
        return [(item["item_id"], item["score"]) for item in answer["items"]]

    def look_around(self, per_second: float) -> None:
        """Ask at a steady rate, as people do who neither buy nor view."""
        due, number = time.monotonic(), 0
        while not self.stop.is_set():
            self.ask(user_id=f"user-{number % tiny.N_USERS}", k=10)
            number += 1
            due = max(due + 1 / per_second, time.monotonic() - 1)
            time.sleep(max(due - time.monotonic(), 0))

    def sell_and_list(self, sales: int, listings: int, lines_per_second: float) -> None:
        """Sell and list in turn, among edits; the rest of the lines are background."""
        total, written, edits = sales + listings, 0, np.random.default_rng(0)
        started, background = time.monotonic(), 0
        while written < total and not self.stop.is_set():
            while self.paused.is_set():
                time.sleep(TICK)
                started += TICK
            due = int((time.monotonic() - started) * lines_per_second) - written - background
            for _ in range(min(max(due, 0) // 3 + 1, total - written)):
                self._write_event(
                    written, written % (total // listings) == 0 if listings else False
                )
                written += 1
            more = max(due, 0) * 2 // 3
            rows = N_LIVE - 1 - edits.integers(EDITED, size=more)
            prices = edits.uniform(5, 100, more).round(2)
            edited = zip(rows.tolist(), prices.tolist(), strict=True)
            self.stock.append(
                "item_id", [_line(f"item-{r}", "changed", price=p) for r, p in edited]
            )
            background += more
            time.sleep(TICK)

    def _write_event(self, number: int, is_listing: bool) -> None:
        group = f"{'new' if is_listing else 'probe'}-{number // GROUP}"
        waiting = self._waiting.setdefault(group, ("listing" if is_listing else "sale", {}))[1]
        if is_listing:
            item = f"new-{number}"
            line = _line(item, "listed", **{**_NEW, "brand": group})
        else:
            item, line = f"item-{number}", _line(f"item-{number}", "sold")
        waiting[item] = time.monotonic()
        self.stock.append("item_id", [line])

    def watch_stock(self) -> None:
        """Ask for the listings of each group until what was said of them has been seen."""
        while not self.stop.is_set() or self._waiting:
            now = time.monotonic()
            for group, (kind, waiting) in list(self._waiting.items()):
                if not waiting:
                    continue
                pending = dict(waiting)
                shown = {i for i, _ in self.ask(k=500, require={"brand": [group]})}
                seen = time.monotonic()
                name = "sale to gone" if kind == "sale" else "listing to shown"
                for item, at in pending.items():
                    if (item in shown) == (kind == "listing") and (shown or kind == "sale"):
                        self.measured.seconds[name].append(seen - at)
                        del waiting[item]
                    elif seen > at + WAIT_SECONDS and self.stop.is_set():
                        self.measured.lost += 1
                        del waiting[item]
            if self.stop.is_set() and not any(w for _, w in self._waiting.values()):
                return
            time.sleep(max(TICK - (time.monotonic() - now), 0))

    def view(self, person: int, before: list[tuple[str, float]]) -> None:
        """Let one person view a listing, and ask until their answer is another one."""
        while self.paused.is_set():
            time.sleep(TICK)
        user = f"person-{person}"
        event = {
            "user_id": user,
            "item_id": f"item-{N_LIVE - EDITED - 1 - person % 1000}",
            "event_type": "view",
            "event_time": datetime.now(UTC).isoformat(),
        }
        at = self.activity.append("user_id", [event])
        while time.monotonic() < at + WAIT_SECONDS:
            shown = self.ask(user_id=user, k=10)
            if shown and [s for _, s in shown] != [s for _, s in before]:
                self.measured.seconds["view to changed"].append(time.monotonic() - at)
                return
            time.sleep(TICK)
        self.measured.lost += 1


_NEW = {"seller_id": "seller", "size": "M", "price": 50.0, "image_embedding": [0.1, 0.2, 0.3]}


def _line(item: str, change: str, **fields: Any) -> dict[str, Any]:
    return {"item_id": item, "change": change, "at": datetime.now(UTC).isoformat(), **fields}


def run(options: argparse.Namespace, folder: Path) -> Iterator[Figure]:
    """Measure with the feed that the options name, which stays where it is."""
    yield from _report(PART, *_measure(options, folder, options.feed, away=0.0))


def run_broker(options: argparse.Namespace, folder: Path) -> Iterator[Figure]:
    """Take a real broker away for a while, with fewer lines; what was said is not lost."""
    few = argparse.Namespace(**{**vars(options), "sales": 1200, "listings": 400, "views": 300})
    part = f"broker away {options.away:.0f} s"
    for figure in _report(part, *_measure(few, folder, "kafka", options.away)):
        # What was said while the broker was away, or just before, cannot be known in time.
        yield replace(figure, goal="", met=True) if ", p99 (" in figure.what else figure


def _measure(
    options: argparse.Namespace, folder: Path, feed: str, away: float
) -> tuple[Measured, float]:
    """Serve a market and measure; return the times, and how long it took."""
    tiny.promote(folder / "registry", make_groups(folder, N_LIVE, GROUP))
    broker = Broker(folder / "kafka") if feed == "kafka" else None
    addresses = {
        name: broker.make_topic(name, 3) if broker else str(folder / name)
        for name in ("stock", "activity")
    }
    stock, activity = (Lines(addresses[name], broker) for name in ("stock", "activity"))
    recommender = {
        "registry": str(folder / "registry"),
        "log_folder": str(folder / "log"),
        "feeds": addresses,
        "people": {"running_visit": "always"},
        "tower_deadline_ms": 2000,
    }
    ports = dict.fromkeys(("http_port", "grpc_port", "metrics_port", "model_server_port"), 0)
    settings = ServeSettings.parse({"recommender": recommender, "threads": 8, **ports})
    measured = Measured()
    with launch(settings) as server, ThreadPoolExecutor(options.clients + LOOKERS + 3) as pool:
        market = Market(server, stock, activity, measured)
        stock.warm_up()
        activity.warm_up()
        before = market.ask(user_id="nobody", k=10)
        started = time.monotonic()
        watchers = [pool.submit(market.watch_stock)]
        rate = options.requests / LOOKERS
        watchers += [pool.submit(market.look_around, rate) for _ in range(LOOKERS)]
        if broker and away:
            watchers.append(pool.submit(_take_away, broker, market, away))
        views = [pool.submit(market.view, person, before) for person in range(options.views)]
        market.sell_and_list(options.sales, options.listings, options.lines)
        for one in views:
            one.result()
        market.stop.set()
        for one in watchers:
            one.result()
        seconds = time.monotonic() - started
    if broker:
        broker.stop()
    log_message(f"{stock.written + activity.written:,} lines in {seconds:.0f} s")
    return measured, seconds


def _take_away(broker: Broker, market: Market, seconds: float) -> None:
    """Stop the broker for a while; what is asked meanwhile must be answered."""
    time.sleep(5)
    market.paused.set()
    time.sleep(1)
    log_message(f"the broker is away for {seconds:.0f} s")
    broker.stop()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        market.ask(user_id="nobody", k=10)
        time.sleep(TICK)
    broker.start()
    market.paused.clear()


def _report(part: str, measured: Measured, seconds: float) -> Iterator[Figure]:
    answered = len(measured.requests)
    yield count(part, "failed at the first try", answered, len(measured.failures))
    events = sum(map(len, measured.seconds.values()))
    yield count(part, "events that no answer showed", events, measured.lost)
    for name, bound in BOUNDS.items():
        if times := measured.seconds[name]:
            p50, p99, most = np.percentile(times, [50, 99, 100])
            told = f"{name}, p99 (p50 {p50:.3f}, longest {most:.2f} s)"
            yield at_most(part, told, len(times), float(p99), bound)
    p50, p99, most = np.percentile(measured.requests, [50, 99, 100])
    rate = f"a request, at {answered / seconds:.0f} a second: p50, p99, longest"
    yield Figure(part, rate, answered, f"{p50:.3f}, {p99:.3f}, {most:.2f} s")

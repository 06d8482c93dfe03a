"""One process of ``size``: opens a bundle as a server does, and measures itself when told to.

size_worker.py BUNDLE FRESH REQUESTS K
"""

import time

STARTED = time.perf_counter()

import json  # noqa: E402
import sys  # noqa: E402
from datetime import timedelta  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import faiss  # noqa: E402
import numpy as np  # noqa: E402

from refit.bundle import load_bundle  # noqa: E402
from serving.catalogue import Catalogue  # noqa: E402
from serving.counters import Counters  # noqa: E402
from serving.fresh import FreshListings, Listing  # noqa: E402
from serving.query import Query  # noqa: E402
from serving.request import Request, parse_request  # noqa: E402
from serving.snapshot import ServingSnapshot  # noqa: E402
from serving.stage_settings import RetrievalSettings, SlateSettings  # noqa: E402
from serving.stages import AnswerRequest, Stages  # noqa: E402
from serving.stock import LiveStock  # noqa: E402
from serving.towers import NoModelServer, ServedQueryTower  # noqa: E402

MIB = 2**10  # of the kB that Linux counts in
Times = tuple[float, float]
GONE = 0.01
"""The share of the bundle's listings that were sold since."""


class Market:
    """A serving snapshot without a query tower."""

    def __init__(self, path: Path, fresh: int, requests: int, k: int) -> None:
        started = time.perf_counter()
        bundle = load_bundle(path)
        self.verified = time.perf_counter() - started
        self.catalogue = Catalogue(bundle)
        towers = NoModelServer()
        self.stock = LiveStock(self.catalogue, None, towers, Counters())
        query_tower = ServedQueryTower(towers, "none", self.catalogue.size)
        self.snapshot = ServingSnapshot.of(self.catalogue, self.stock, query_tower)
        self.stages = Stages(RetrievalSettings(), SlateSettings())
        self.queries = np.load(path / "queries.npy")
        self.now = self.catalogue.as_of + timedelta(hours=1)
        self.fresh, self.requests, self.k = fresh, requests, k
        self.rng = np.random.default_rng(1)
        self.answer({})
        self.ready = time.perf_counter() - STARTED
        gone = self.rng.random(self.catalogue.n_live) < GONE
        self.stock.gone = gone

    def answer(self, require: dict[str, Any]) -> int:
        """Answer one person; the number of items shown."""
        user = self.rng.integers(len(self.catalogue.histories))
        asked = {"user_id": f"u-{user:06}", "k": self.k, "require": require}
        request = parse_request(asked) if require else Request(**asked)
        self.snapshot.catalogue.check(request)
        history = self.snapshot.read_history(request, self.now)
        self.snapshot.catalogue.query_inputs(request, self.now, history)
        query = Query(self.queries[self.rng.integers(len(self.queries))])
        pool = self.snapshot.find_pool(request, self.now)
        return len(self.stages.answer(pool, AnswerRequest(request, "r", self.now, query)).items)

    def measure(self) -> dict[str, Any]:
        filters = self.find_filters()
        seconds: dict[str, list[Times]] = {name: [] for name, _, _ in filters}
        for _ in range(self.requests):
            for name, require, _ in filters:
                seconds[name].append(self.time(require))
        return {
            "ready": self.ready,
            "verified": self.verified,
            "filters": [
                {"name": name, "share": share, **quantiles(seconds[name])}
                for name, _, share in filters
            ],
            "fresh": self.measure_fresh(),
        }

    def time(self, require: dict[str, Any]) -> Times:
        """How long an answer took, and how long the processor was at it."""
        started, used = time.perf_counter(), time.thread_time()
        shown = self.answer(require)
        seconds = time.perf_counter() - started, time.thread_time() - used
        assert shown == self.k
        return seconds

    def find_filters(self) -> list[tuple[str, dict[str, Any], float]]:
        """Filters by what they leave; of one attribute, and of several together."""
        price = self.catalogue.attributes["price"]
        values = np.sort(price.values)
        median = float(values[len(values) // 2])
        found: list[tuple[str, dict[str, Any]]] = [
            ("none", {}),
            ("50%, a range", {"price": {"max": median}}),
            ("50%, texts", {"condition": self.texts("condition", 0.5, several=True)}),
            ("1%, a text", {"category_2": self.texts("category_2", 0.01)}),
            (
                "1%, three attributes",
                {
                    "category_1": self.texts("category_1", 0.02),
                    "condition": ["condition-000000", "condition-000001"],
                    "price": {"min": 5.0, "max": 100.0},
                },
            ),
            (".1%, a text", {"brand": self.texts("brand", 0.001)}),
        ]
        return [(name, require, self.share(require)) for name, require in found]

    def share(self, require: dict[str, Any]) -> float:
        flags = np.ones(self.catalogue.n_live, dtype=np.bool_)
        for name, wanted in parse_request({"require": require}).require.items():
            flags &= self.catalogue.attributes[name].matches(wanted)
        return float(flags.mean())

    def texts(self, name: str, share: float, several: bool = False) -> list[str]:
        """The text whose share is nearest, or so many of the most frequent as are needed."""
        column: Any = self.catalogue.attributes[name]
        shares = np.bincount(column.codes, minlength=len(column.code_of)) / len(column.codes)
        order = np.argsort(-shares)
        if several:
            enough = int(np.argmin(np.abs(np.cumsum(shares[order]) - share))) + 1
            return [column.texts[int(code)] for code in order[:enough]]
        return [column.texts[int(np.argmin(np.abs(shares - share)))]]

    def measure_fresh(self) -> dict[str, Any]:
        listings, none = FreshListings(self.catalogue), FreshListings(self.catalogue).view()
        size, width = self.catalogue.size, self.catalogue.content.shape[1]
        rows = self.rng.standard_normal((self.fresh + 1000, size + width), dtype=np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        first = self.catalogue.n_numbers
        new = [
            Listing(
                f"new-{i}",
                first + i,
                {"seller_id": f"u-{i:06}", "brand": f"brand-{i % 5000:06}", "price": float(i % 97)},
                row[:size],
                row[size:],
            )
            for i, row in enumerate(rows)
        ]
        listings.add(new[: self.fresh])
        views = {0: none, self.fresh: listings.view()}
        seconds: dict[int, list[Times]] = {n: [] for n in views}
        for _ in range(self.requests):
            for n, view in views.items():
                self.stock.fresh = view
                seconds[n].append(self.time({}))
        self.stock.fresh = none
        started = time.perf_counter()
        for one in new[self.fresh :]:
            listings.add([one])
            listings.view()
        added = time.perf_counter()
        for one in new[self.fresh :]:
            listings.remove(one.item_id)
        return {
            "answers": [{"n": n, **quantiles(times)} for n, times in seconds.items()],
            "add_ms": added - started,
            "remove_ms": time.perf_counter() - added,
        }


def quantiles(seconds: list[Times]) -> dict[str, float]:
    wall, cpu = np.array(seconds).T * 1000
    p50, p99 = np.percentile(wall, (50, 99))
    return {"p50": float(p50), "p99": float(p99), "cpu": float(np.median(cpu))}


def memory() -> dict[str, float]:
    """Of this process, in MiB."""
    found = {}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]:
        name, value = line.split(":")
        found[name] = float(value.split()[0]) / MIB
    return {"rss": found["Rss"], "pss": found["Pss"], "anonymous": found["Anonymous"]}


def main() -> None:
    faiss.omp_set_num_threads(1)
    path, *numbers = sys.argv[1:]
    market = Market(Path(path), *map(int, numbers))
    for order in sys.stdin:
        result = market.measure() if order.strip() == "measure" else memory()
        sys.stdout.write(json.dumps(result) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()

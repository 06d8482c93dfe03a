"""A small simulated marketplace: stock, events and logged answers from Gaussian mixtures."""

import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from refit.dataset import DatasetManifest, RowCounts, Split
from refit.files import write_json
from refit.prediction import PREDICTION_SCHEMA

START = datetime(2024, 3, 1, tzinfo=UTC)
TOWERS = "towers-1"
DIMENSION, PICTURE = 16, 8
CATEGORIES = np.array(["dresses", "shoes", "bags", "coats"])
BRANDS = np.array([f"brand {i}" for i in range(12)])


@dataclass(frozen=True)
class Market:
    """The distributions of a marketplace; ``change`` returns one that has drifted."""

    seed: int = 0
    tastes: tuple[float, ...] = (0.4, 0.3, 0.2, 0.1)
    brand_null: float = 0.02
    encoder: int = 0
    new_category: float = 0.0
    price_factor: float = 1.0
    buys: float = 0.1
    answers_a_day: int = 300
    listings_a_day: int = 200
    centres: np.ndarray = field(
        default_factory=lambda: np.random.default_rng(7).normal(size=(5, DIMENSION)), repr=False
    )

    def change(self, **changes):
        return replace(self, **changes)

    def kinds(self, random, n):
        weights = np.array([*self.tastes, 0.0]) * (1 - self.new_category)
        weights[-1] = self.new_category
        return random.choice(5, n, p=weights / weights.sum())

    def vectors(self, random, kinds):
        x = self.centres[kinds] + 0.8 * random.normal(size=(len(kinds), DIMENSION))
        return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)

    def pictures(self, random, kinds):
        centres = np.random.default_rng(100 + self.encoder).normal(size=(5, PICTURE))
        return centres[kinds] + 0.7 * random.normal(size=(len(kinds), PICTURE))

    def items(self, day, days=1):
        """Listings of some days."""
        random = np.random.default_rng((self.seed, day, 1))
        n = self.listings_a_day * days
        kinds = self.kinds(random, n)
        listed = [START + timedelta(days=day + d) for d in random.uniform(0, days, n)]
        names = np.append(CATEGORIES, "hats")[kinds]
        brands = random.choice(BRANDS, n, p=np.arange(12, 0, -1) / 78)
        return pa.table(
            {
                "item_id": [f"i{self.seed}-{day}-{i}" for i in range(n)],
                "seller_id": [f"s{i}" for i in random.integers(0, 500, n)],
                "category_1": names.tolist(),
                "brand": pa.array(
                    [None if random.random() < self.brand_null else b for b in brands],
                    pa.string(),
                ),
                "price": self.price_factor * random.lognormal(3, 0.6, n),
                "listed_at": pa.array(listed, pa.timestamp("us", tz="UTC")),
                "image_embedding": list(self.pictures(random, kinds)),
            }
        ), kinds

    def answers(self, stock, kinds, day, days=1, towers=TOWERS, bundle="b1", fallback=0.0):
        """Logged answers: each recommends items of the kind of its query."""
        random = np.random.default_rng((self.seed, day, 2))
        n = self.answers_a_day * days
        wanted = self.kinds(random, n)
        by_kind = [np.flatnonzero(kinds == k) for k in range(5)]
        ids = np.array(stock["item_id"].to_pylist(), dtype=object)
        rows = []
        queries = self.vectors(random, wanted)
        for i, kind in enumerate(wanted):
            pool = by_kind[kind] if len(by_kind[kind]) else np.arange(len(ids))
            recommended = random.choice(pool, 10)
            is_fallback = random.random() < fallback
            rows.append(
                {
                    "request_id": f"r{self.seed}-{day}-{i}",
                    "bundle_id": bundle,
                    "embedding_version": towers,
                    "user_id": f"u{random.integers(0, 400)}",
                    "time": START + timedelta(days=day + float(random.uniform(0, days))),
                    "context": json.dumps({"kind": int(kind)}),
                    "query_embedding": None if is_fallback else queries[i].tolist(),
                    "item_ids": ids[recommended].tolist(),
                    "scores": np.sort(random.normal(0.7, 0.1, 10))[::-1].tolist(),
                    "fallback": "tower down" if is_fallback else None,
                    "latency_ms": 2.0,
                }
            )
        rows.sort(key=lambda row: row["time"])
        return pa.Table.from_pylist(rows, schema=PREDICTION_SCHEMA)

    def events(self, answers):
        """What followed the answers: half lead to a view, some of those to a purchase."""
        first = answers["time"][0].as_py()
        random = np.random.default_rng((self.seed, int(first.timestamp()), 3))
        rows = []
        for answer in answers.to_pylist():
            draw = random.random()
            if draw < 0.5:
                rows.append(
                    {
                        "user_id": answer["user_id"],
                        "item_id": answer["item_ids"][0],
                        "event_type": "purchase" if draw < self.buys else "view",
                        "event_time": answer["time"] + timedelta(minutes=3),
                        "request_id": answer["request_id"],
                        "price": float(random.lognormal(3, 0.6)),
                    }
                )
        schema = pa.schema(
            [
                ("user_id", pa.string()),
                ("item_id", pa.string()),
                ("event_type", pa.string()),
                ("event_time", pa.timestamp("us", tz="UTC")),
                ("request_id", pa.string()),
                ("price", pa.float64()),
            ]
        )
        return pa.Table.from_pylist(rows, schema=schema)


@dataclass
class Marketplace:
    """A folder with everything that a reference is built from, and a log that can grow."""

    root: Path
    market: Market
    days: int = 10

    def __post_init__(self):
        daily = [self.market.items(day) for day in range(self.days)]
        self.stock = pa.concat_tables([items for items, _ in daily])
        self.kinds = np.concatenate([kinds for _, kinds in daily])
        self.log, self.now = self.root / "log", self.days
        self.all_items, self.all_events = [items for items, _ in daily], []
        self.all_kinds = self.kinds
        answers = self.market.answers(self.stock, self.kinds, 0, self.days)
        self.root.mkdir(parents=True, exist_ok=True)
        self.predictions = self.root / "predictions.parquet"
        pq.write_table(answers, self.predictions)
        self.dataset = self.root / "dataset"
        self.dataset.mkdir(parents=True)
        pq.write_table(self.stock, self.dataset / "items.parquet")
        pq.write_table(self.market.events(answers), self.dataset / "events.parquet")
        end = START + timedelta(days=self.days)
        DatasetManifest(
            source="simulated",
            simulated=True,
            terms="none",
            counts={"events": RowCounts(rows_in=0, kept=0, rejected=0, duplicates=0)},
            split=Split(start=START, validation_start=START, test_start=START, end=end),
            fingerprint="0",
        ).write(self.dataset)
        self.index = self.write_index("index", self.stock, self.kinds, end)

    @property
    def end(self):
        return START + timedelta(days=self.now)

    def write_index(self, name, stock, kinds, as_of, towers=TOWERS, market=None):
        folder = self.root / name
        folder.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(len(kinds))
        np.save(folder / "vectors.npy", (market or self.market).vectors(random, kinds))
        columns = ["item_id", "seller_id", "category_1", "brand", "price"]
        table = stock.select(columns)
        pq.write_table(
            table.append_column("live", pa.array([True] * table.num_rows)),
            folder / "items.parquet",
        )
        write_json(folder / "index.json", {"embedding_version": towers, "as_of": as_of.isoformat()})
        return folder

    def run(self, market, days, **kwargs):
        """Let some days pass; the log, items and events grow."""
        for day in range(self.now, self.now + days):
            items, kinds = market.items(day)
            self.all_items.append(items)
            self.all_kinds = np.concatenate([self.all_kinds, kinds])
            stock, at = pa.concat_tables(self.all_items[-10:]), self.all_kinds
            at = at[-stock.num_rows :]
            answers = market.answers(stock, at, day, **kwargs)
            folder = self.log / f"date={(START + timedelta(days=day)):%Y-%m-%d}"
            folder.mkdir(parents=True, exist_ok=True)
            pq.write_table(answers, folder / f"part-{day}.parquet")
            self.all_events.append(market.events(answers))
        self.now += days
        self.items = self.root / "items-now.parquet"
        self.events = self.root / "events-now.parquet"
        pq.write_table(pa.concat_tables(self.all_items), self.items)
        pq.write_table(pa.concat_tables(self.all_events), self.events)
        stock = pa.concat_tables(self.all_items)
        tail = stock.num_rows - min(stock.num_rows, market.listings_a_day * 10)
        self.index_now = self.write_index(
            "index-now", stock.slice(tail), self.all_kinds[tail:], self.end
        )
        return self

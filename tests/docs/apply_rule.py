"""Apply the rule of "Add an eligibility rule" offline and online; print what is shown.

Run as a script in the folder of the page, in the environment that has the rule. Ann lives in
Norway. The features are built from files; the server's index is written by hand, since no rule
depends on vectors.
"""

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.evaluation.data import EvaluationData
from components.evaluation.ranking import build_evaluation_set, rank
from components.features.build import build_features
from components.ingestion.ingest import ingest
from pipelines.settings import read_settings
from refit.bundle import Bundle, BundleManifest
from refit.eligibility import RULES, MarketSettings
from refit.features import FeaturesManifest, FeatureSpec
from refit.index import IndexManifest
from serving.catalogue import Catalogue
from serving.counters import Counters
from serving.fresh import FreshListings, Listing
from serving.query import Query
from serving.request import Request, parse_request
from serving.snapshot import ServingSnapshot
from serving.stage_settings import RetrievalSettings, SlateSettings
from serving.stages import AnswerRequest, Stages
from serving.stock import LiveStock
from serving.towers import NoModelServer, ServedQueryTower

START = datetime(2024, 3, 1, 12, tzinfo=UTC)
NOW = START + timedelta(days=10)
SHIPS_TO = {"everywhere": None, "both": "SE NO", "sweden": "SE", "denmark": "DK"}
NEW = {"new everywhere": None, "new norway": "NO", "new sweden": "SE"}
COUNTRIES = {"ann": "NO", "bea": "SE"}
EVENTS = (  # who bought what on which day; the last two days are the test
    ("bea", "everywhere", 0),
    ("ann", "everywhere", 5),
    ("bea", "sweden", 7),
    ("ann", "both", 8.5),
    ("ann", "denmark", 9),  # which contradicts the rule
)
REQUESTS: dict[str, dict[str, Any]] = {
    "ann": {"user_id": "ann"},
    "guest in Sweden": {"context": {"country": "SE"}},
    "guest": {},
}
EMBEDDING_VERSION = "0" * 16


class Constant:
    """A scorer without a preference."""

    def at(self, queries, snapshot):
        return lambda which: np.ones((len(which), len(snapshot.items)), dtype=np.float32)


def write_shop(folder: Path) -> None:
    folder.mkdir()
    events = [f"{u},{i},purchase,{(START + timedelta(days=d)).isoformat()}" for u, i, d in EVENTS]
    items = [f"{i},{ships_to or ''},{START.isoformat()}" for i, ships_to in SHIPS_TO.items()]
    users = [f"{user},{country}" for user, country in COUNTRIES.items()]
    for name, header, lines in (
        ("events", "user_id,item_id,event_type,event_time", events),
        ("items", "item_id,ships_to,listed_at", items),
        ("users", "user_id,country", users),
    ):
        (folder / f"{name}.csv").write_text("\n".join([header, *lines, ""]))


def evaluate(folder: Path) -> dict[str, Any]:
    """Ingest the shop, build its features, and rank its test queries."""
    write_shop(folder / "shop")
    changes = [
        f"ingestion.path={folder / 'shop'}",
        "features.market.stock=replenishable",  # so that no other rule removes anything
    ]
    settings = read_settings("acme.yaml", changes)
    ingest(settings.ingestion, folder / "dataset")
    build_features(settings.features, folder / "dataset", folder / "features")
    data = EvaluationData(folder / "features")
    evaluation_set = build_evaluation_set(data, "test")
    found = rank(Constant(), evaluation_set, len(SHIPS_TO))
    return {
        "shown": [sorted(data.catalogue.item_id[row[row >= 0]]) for row in found.top],
        "removed": found.removed,
        "left_out": evaluation_set.left_out,
    }


def open_snapshot(folder: Path, market: MarketSettings) -> ServingSnapshot:
    """A bundle with the four items, and three listings that are newer."""
    index, n = folder / "index", len(SHIPS_TO)
    index.mkdir(parents=True)
    vectors = np.ones((n, 2), dtype=np.float32)
    flat = faiss.IndexFlatIP(2)
    flat.add(vectors)
    faiss.write_index(flat, str(index / "index.faiss"))
    np.save(index / "vectors.npy", vectors)
    np.save(index / "content.npy", vectors)
    lists = {"item_row": pa.int32(), "event_type": pa.string()}
    lists |= {"event_time": pa.timestamp("us", "UTC")}
    pairs = {name: pa.array([], pa.int32()) for name in ("user_row", "item_row")}
    tables = {
        "items": {"item_id": list(SHIPS_TO), "ships_to": list(SHIPS_TO.values())},
        "histories": {
            "user_id": list(COUNTRIES),
            "country": list(COUNTRIES.values()),
            **{name: pa.array([[], []], pa.list_(kind)) for name, kind in lists.items()},
        },
        "purchases": pairs,
        "hides": pairs,
        "delisted_items": {"item_id": pa.array([], pa.string())},
        "popularity": {
            "column": [""],
            "value": [""],
            "item_row": pa.array([range(n)], pa.list_(pa.int32())),
            "score": pa.array([[1.0] * n], pa.list_(pa.float32())),
        },
    }
    for name, columns in tables.items():
        pq.write_table(pa.table(columns), index / f"{name}.parquet")
    IndexManifest(
        embedding_version=EMBEDDING_VERSION,
        kind="flat",
        dimension=2,
        n_live=n,
        n_items=n,
        recall_at_100=1.0,
        n_queries=1,
        latency_ms={},
        as_of=START,
    ).write(index)
    spec = FeatureSpec()
    FeaturesManifest(spec=spec, market=market, popularity_values={}, vector_size=0).write(folder)
    manifest = BundleManifest(
        bundle_id="by-hand",
        created_at=START,
        embedding_version=EMBEDDING_VERSION,
        as_of=START,
        checksums={},
    )
    catalogue = Catalogue(Bundle(folder, manifest))
    towers = NoModelServer()
    stock = LiveStock(catalogue, None, towers, Counters())
    numbers = enumerate(NEW.items(), start=catalogue.n_numbers)
    fresh = FreshListings(catalogue)
    fresh.add(
        [
            Listing(item, number, {"ships_to": ships_to}, vectors[0], vectors[0])
            for number, (item, ships_to) in numbers
        ]
    )
    stock.fresh = fresh.view()
    return ServingSnapshot.of(catalogue, stock, ServedQueryTower(towers, "none", 0))


def serve(folder: Path, market: MarketSettings) -> dict[str, Any]:
    """Answer the requests from the index and the delta index, and as the fallback does."""
    snapshot = open_snapshot(folder, market)

    stages = Stages(RetrievalSettings(), SlateSettings())

    def show(request: Request, query: Query | None) -> dict[str, Any]:
        pool = snapshot.find_pool(request, NOW)
        slate = stages.answer(pool, AnswerRequest(request, "r", NOW, query))
        return {"shown": sorted(item for item, _ in slate.items), "removed": pool.removed}

    answers = {}
    for name, body in REQUESTS.items():
        request, query = parse_request(body), Query(np.ones(2, dtype=np.float32))
        answers[name] = {"model": show(request, query), "fallback": show(request, None)}
    return answers


if __name__ == "__main__":
    out = Path(sys.argv[1])
    offline = evaluate(out)
    market = FeaturesManifest.read(out / "features").market
    online = serve(out / "bundle", market)
    place = RULES.load(market.rules[0]).__file__
    sys.stdout.write(json.dumps({"place": place, "offline": offline, "online": online}))

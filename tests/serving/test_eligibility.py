"""Server and evaluation show the same items: those of a brute force of ten lines, in any market."""

import json
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.evaluation.candidates import CandidateItems, QueryBlock
from components.evaluation.data import EvaluationData
from components.evaluation.ranking import build_request_set
from refit.bundle import Bundle, BundleManifest
from refit.columns import Range
from refit.eligibility import MarketSettings
from refit.index import IndexManifest
from refit.item_lists import ItemLists
from refit.served import write_served
from serving.catalogue import Catalogue
from serving.counters import Counters
from serving.feeds.dead_letters import DeadLetters
from serving.feeds.folder import FolderFeed
from serving.feeds.lines import FeedReader
from serving.feeds.stock import StockChange
from serving.query import Query
from serving.request import parse_request
from serving.snapshot import ServingSnapshot
from serving.stage_settings import RetrievalSettings, SlateSettings
from serving.stages import AnswerRequest, Stages
from serving.stock import LiveStock
from serving.towers import ServedQueryTower, TowerClient, models_of
from tests import factories
from tests.serving import tiny
from tests.serving.without_stages import answer_without_stages

MARKETS, REQUESTS = 80, 10
INDEXED, NOW = 59.0, 60.0  # days after the start of the market
BRANDS, SIZES, PRICES = ("acne", "cos", None), ("S", "M", None), (1.1, 19.99, 20, 35.7, 1e6, None)
ATTRIBUTES = ("seller_id", "brand", "size", "price")


@dataclass
class Item:
    """An item as it is sold from ``known_at`` to ``gone_at``; until ``INDEXED`` it was ``old``."""

    item_id: str
    known_at: float
    gone_at: float | None
    seller_id: str | None
    brand: str | None
    size: str | None
    price: float | None
    old: dict = field(default_factory=dict)

    def has(self, name: str, wanted: list | dict) -> bool:
        value = getattr(self, name)
        if isinstance(wanted, list):
            return value is not None and value in wanted
        low, high = wanted.get("min", -np.inf), wanted.get("max", np.inf)
        return value is not None and low <= value <= high


@dataclass
class Market:
    """A random market; an event is (user, item number, kind, day)."""

    items: list[Item]
    events: list[tuple[str, int, str, float]]
    settings: MarketSettings

    def may_be_shown(self, number: int, user: str, exclude: list, require: dict) -> bool:
        item, seen = self.items[number], [e for e in self.events if e[3] < NOW]
        done = {kind for who, what, kind, _ in seen if (who, what) == (user, number)}
        return (
            item.known_at <= NOW
            and (item.gone_at is None or item.gone_at >= NOW)
            and item.seller_id != user
            and ("purchase" not in done or self.settings.stock == "replenishable")
            and "hide" not in done
            and item.item_id not in exclude
            and all(item.has(name, wanted) for name, wanted in require.items())
        )


def make_market(rng: np.random.Generator) -> Market:
    def pick(values: tuple) -> object:
        return values[rng.integers(len(values))]

    items = []
    for number in range(rng.integers(5, 30)):
        known = pick((1.0, 1.0, 1.0, 59.4, 60.5))
        gone = pick((None, None, 70.0, 59.5, 59.0 if known < INDEXED else None))
        names = ("user-0", "user-1", None), BRANDS, SIZES, PRICES
        values = dict(zip(ATTRIBUTES, map(pick, names), strict=True))
        item = Item(f"i{number}", known, gone, **values)
        if known < INDEXED and rng.random() < 0.2:
            item.old = dict(zip(ATTRIBUTES, map(pick, names), strict=True))
        if item.old or known > INDEXED:
            item.seller_id = item.seller_id or "user-1"  # the feed refuses a listing of nobody
        items.append(item)
    events = [
        (f"user-{rng.integers(4)}", int(rng.integers(len(items))), str(kind), float(day))
        for kind, day in zip(
            rng.choice(["view", "purchase", "hide"], 40),
            np.sort(rng.choice([*np.linspace(2, 58, 25), 59.2, 59.7, 60.2, 60.4], 40)),
            strict=True,
        )
    ]
    stock = pick(("one_of_a_kind", "one_of_a_kind", "replenishable"))
    return Market(items, events, MarketSettings(stock=stock))


def make_request(rng: np.random.Generator, market: Market) -> dict:
    """A request as a client sends it, with what the user did since the index was built."""
    user = f"user-{rng.integers(5)}"
    ids = [item.item_id for item in market.items]
    recent = [e for e in market.events if e[0] == user and INDEXED < e[3] < NOW]
    hidden = [e for e in recent if e[2] == "hide" and rng.random() < 0.5]
    require: dict = {}
    if rng.random() < 0.4:
        require["brand"] = list(rng.choice(["acne", "cos", "unheard of"], 2))
    if rng.random() < 0.2:
        require["size"] = ["M"]
    if rng.random() < 0.6:
        low, high = sorted(rng.choice([p for p in PRICES if p], 2))
        ranges = {"min": low}, {"max": high}, {"min": low, "max": high}, [low, high]
        require["price"] = ranges[rng.integers(4)]
    return {
        "user_id": user,
        "k": 500,
        "exclude": [*rng.choice(ids, rng.integers(3)), "unheard of"],
        "hidden": [market.items[e[1]].item_id for e in hidden],
        "history": [
            {
                "item_id": market.items[number].item_id,
                "event_type": kind,
                "event_time": factories.day(day).isoformat(),
            }
            for _, number, kind, day in (e for e in recent if e not in hidden)
        ],
        "require": require,
    }


def open_snapshot(folder: Path, market: Market, bundle: Bundle, towers: TowerClient, rng):
    """The server's view: an index of day 59, and a stock feed of what happened since."""
    items, index = market.items, folder / "index"
    live = [n for n, i in enumerate(items) if i.known_at <= INDEXED < (i.gone_at or 1e9)]
    past = [e for e in market.events if e[3] <= INDEXED]
    others = sorted({e[1] for e in past} - set(live), key=lambda n: items[n].item_id)
    in_history = [n for n in others if rng.random() < 0.5]
    delisted = [n for n in others if n not in in_history]
    row_of = {n: row for row, n in enumerate((*live, *in_history, *delisted))}
    rows = [{**vars(items[n]), **items[n].old} for n in (*live, *in_history)]
    users = sorted({e[0] for e in past})
    index.mkdir(parents=True)
    vectors = rng.normal(size=(len(live), tiny.D)).astype(np.float32)
    flat = faiss.IndexFlatIP(tiny.D)
    flat.add(vectors)
    faiss.write_index(flat, str(index / "index.faiss"))
    np.save(index / "vectors.npy", vectors)
    np.save(index / "content.npy", np.zeros((len(rows), tiny.C), np.float32))
    columns = {name: [row[name] for row in rows] for name in ("item_id", *ATTRIBUTES)}
    table = {n: pa.array(v, pa.float64() if n == "price" else None) for n, v in columns.items()}
    table |= {n: pa.array(table[n], pa.string()) for n in ATTRIBUTES[:3]}
    table |= {"category_1": pa.nulls(len(rows), pa.string())}
    pq.write_table(pa.table(table), index / "items.parquet")
    empty = {"item_row": pa.int32(), "event_type": pa.string(), "event_time": factories.UTC_TIME}
    histories = {n: pa.array([[] for _ in users], pa.list_(kind)) for n, kind in empty.items()}
    columns = {"user_id": pa.array(users, pa.string()), "city": pa.nulls(len(users), pa.string())}
    pq.write_table(pa.table({**columns, **histories}), index / "histories.parquet")
    for name, kind in (("purchases", "purchase"), ("hides", "hide")):
        pairs = sorted({(users.index(e[0]), row_of[e[1]]) for e in past if e[2] == kind})
        pq.write_table(tiny.make_user_items(*pairs), index / f"{name}.parquet")
    ids = pa.array([items[n].item_id for n in delisted], pa.string())
    pq.write_table(pa.table({"item_id": ids}), index / "delisted_items.parquet")
    pq.write_table(tiny.make_popularity().slice(0, 0), index / "popularity.parquet")
    if len(live) % 2:  # the others are read as those of earlier versions are
        write_served(index, len(live))
    as_of = factories.day(INDEXED)
    manifest = bundle.manifest.model_dump()
    IndexManifest(
        embedding_version=manifest["embedding_version"],
        kind="flat",
        dimension=tiny.D,
        n_live=len(live),
        n_items=len(rows),
        recall_at_100=1.0,
        n_queries=1,
        latency_ms={},
        as_of=as_of,
    ).write(index)
    tiny.FEATURES.model_copy(update={"market": market.settings}).write(folder)
    catalogue = Catalogue(Bundle(folder, BundleManifest(**{**manifest, "as_of": as_of})))
    (folder / "stock").mkdir()
    (folder / "stock" / "feed.jsonl").write_text("".join(feed_lines(market, live)))
    counters = Counters()
    letters = DeadLetters(folder / "bad.jsonl", counters, "refit_stock_dead_letters")
    feed = FeedReader(FolderFeed(folder / "stock"), StockChange, letters)
    stock = LiveStock(catalogue, feed, towers, counters)
    stock.catch_up()
    stock.embed_waiting()
    assert counters.total("refit_stock_dead_letters") == 0
    return ServingSnapshot.of(catalogue, stock, ServedQueryTower(towers, "query", tiny.D))


def feed_lines(market: Market, live: list[int]) -> list[str]:
    lines = []
    for number, item in enumerate(market.items):
        is_new = INDEXED < item.known_at <= NOW
        if is_new or (number in live and item.old):
            attributes = {name: getattr(item, name) for name in ATTRIBUTES}
            attributes["image_embedding"] = [0.1, 0.2, 0.3]
            at = factories.day(item.known_at if is_new else 59.1).isoformat()
            lines.append({"item_id": item.item_id, "change": "listed", "at": at, **attributes})
        if item.gone_at and INDEXED < item.gone_at <= NOW:
            at = factories.day(item.gone_at).isoformat()
            lines.append({"item_id": item.item_id, "change": "delisted", "at": at})
    return [json.dumps(line) + "\n" for line in sorted(lines, key=lambda line: line["at"])]


def read_evaluation(folder: Path, market: Market, users: list[str]) -> EvaluationData:
    """The evaluation's view: the whole log, and a query of every request's user on day 60."""

    def row(user: str, number: int, kind: str, at: float) -> dict:
        return {**factories.example(user, number, at), "event_type": kind}

    events = [row(*event) for event in market.events if event[2] != "hide"]
    examples = {
        "train": [row("nobody", 0, "view", 0.1)],
        "validation": [row("nobody", 0, "view", 0.2)],
        "test": [*events, row("nobody", 0, "view", 60.9)],
        "hides": [row(*event) for event in market.events if event[2] == "hide"],
        "requests": [row(user, 0, "view", NOW) for user in users],
    }
    items = [{**vars(item), "category_1": None} for item in market.items]
    for item in items:
        del item["old"]
        if item["gone_at"] is None:
            del item["gone_at"]
    manifest = tiny.FEATURES.model_copy(update={"market": market.settings})
    factories.write_features(folder, items, examples, [0.0, INDEXED, 61.0], manifest)
    return EvaluationData(folder).of_requests()


def evaluate(data: EvaluationData, requests: list[dict], market: Market) -> list[set[int]]:
    """The items that the evaluation would show to each request."""
    evaluation_set = build_request_set(data, len(requests))
    (group,) = evaluation_set.groups
    numbers = {item.item_id: number for number, item in enumerate(market.items)}
    pairs = [(i, numbers[e]) for i, r in enumerate(requests) for e in r["exclude"] if e in numbers]
    query, item = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    required = [
        {n: Range(**w) if isinstance(w, dict) else w for n, w in request["require"].items()}
        for request in requests
    ]
    block = QueryBlock(data, evaluation_set.queries.rows, ItemLists(query, item), required)
    found = data.rules.find_eligible(CandidateItems(data, group.snapshot), block)
    eligible = np.ones((len(requests), len(group.snapshot.items)), dtype=bool)
    if found.eligible is not None:
        eligible = found.eligible
    assert sum(found.removed.values()) == (~eligible).sum()
    return [set(group.snapshot.items[row].tolist()) for row in eligible]


@pytest.mark.timeout(300)
def test_index_delta_index_fallback_and_evaluation_agree_with_brute_force(
    tmp_path, bundle, model_server
):
    rng = np.random.default_rng(20)
    towers = TowerClient(model_server)
    towers.serve_only(models_of(bundle), 60)
    stages = Stages(RetrievalSettings(), SlateSettings())
    shown = hidden = 0
    for round_ in range(MARKETS):
        market = make_market(rng)
        requests = [make_request(rng, market) for _ in range(REQUESTS)]
        snapshot = open_snapshot(tmp_path / f"s{round_}", market, bundle, towers, rng)
        users = [request["user_id"] for request in requests]
        data = read_evaluation(tmp_path / f"e{round_}", market, users)
        evaluated = evaluate(data, requests, market)
        for body, of_evaluation in zip(requests, evaluated, strict=True):
            expected = {
                number
                for number in range(len(market.items))
                if market.may_be_shown(number, body["user_id"], body["exclude"], body["require"])
            }
            ids = {market.items[number].item_id for number in expected}
            request = parse_request(body)
            now = tiny.AS_OF + timedelta(days=1)
            query = rng.normal(size=tiny.D).astype(np.float32)
            for vector in (query, None):
                wanted = None if vector is None else Query(vector)
                asked = AnswerRequest(request, "r", now, wanted)
                found = stages.answer(snapshot.find_pool(request, now), asked)
                assert found.items == answer_without_stages(snapshot, request, vector, now)
                few = request.model_copy(update={"k": 1 + len(ids) // 2})
                asked = AnswerRequest(few, "r", now, wanted)
                shorter = stages.answer(snapshot.find_pool(few, now), asked)
                assert shorter.items == answer_without_stages(snapshot, few, vector, now)
                names = [item_id for item_id, _ in found.items]
                assert len(names) == len(set(names))
                assert set(names) == ids
            assert of_evaluation == expected
            shown += len(expected)
            hidden += len(market.items) - len(expected)
    assert min(shown, hidden) > 5 * MARKETS * REQUESTS / 10
    towers.close()

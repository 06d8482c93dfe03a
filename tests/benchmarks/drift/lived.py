"""A lived market: a simulated history and live days, written as the monitor reads them.

It holds all that a monitor measures (data set, index, offline predictions, prediction log, events
and items), without TensorFlow and within seconds: stand-in towers recommend, see ``towers``.

    market = LivedMarket({"seed": 3}, folder)
    reference = market.build_reference(MeasureSettings())
    market.live(5)
    results = measure(settings, reference, market.data(), market.windows(5))
"""

import copy
import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from monitoring.reference import build_reference
from monitoring.settings import MeasureSettings
from monitoring.windows import MonitoredData, daily_windows
from refit.dataset import ITEMS_FILE, Split
from refit.drift import Window
from refit.errors import UsageError
from refit.prediction import build_predictions
from simulation.feed_faults import draw, encode_again
from simulation.marketplace import CONTEXT_COLUMNS, USER_COLUMNS, Day, Marketplace
from simulation.scenario import Scenario
from simulation.settings import MarketChange, SimulationSettings
from tests.benchmarks.drift import towers as standin
from tests.benchmarks.drift.towers import Encoding, Floats, Ints, StandInTowers
from tests.benchmarks.drift.written import write_dataset, write_index, write_table

HOLDOUT = "holdout"
"""The ``fallback`` of an answer to a user who gets popular listings for comparison."""
Tables = Mapping[str, pa.Table]
"""``events``, ``items`` and ``users`` as a team exports them."""
Fault = Callable[[Tables, datetime], Tables]
"""``fault(tables, now)``: what the feeds hold at a time, of what is true."""

ONE_THREAD = partial(threadpool_limits, 1)
"""On matrices this small several threads only wait for each other: ten times slower when busy."""
INDEX_COLUMNS = (
    "item_id",
    "seller_id",
    "title",
    "brand",
    "category_1",
    "category_2",
    "colour",
    "size",
    "condition",
    "price",
)


@dataclass(frozen=True)
class LivedSettings:
    """How a lived market is operated.

    Attributes:
        refresh_every: Days between two refreshes of the index; 0 for never.
        test_days: The last days of the data, whose visits get the offline predictions.
        held_out_days: The last days of the data, which towers are not fitted on. Fewer than
            ``test_days``: a linear model's scores are no higher on what it was fitted on (.740
            against .740), and a refit must learn from the days of a change.
        predictions: At most this many visits get offline predictions, evenly over time.
        pairs: At most this many pairs of visit and wanted item are fitted, the latest.
        event_days: ``events`` of the monitored data reach back this far before the end of the data
            set.
        dimension: Length of the vectors.
        k: Length of the lists.
        skew: Share of the users whose history the server loses.
        holdout: Share of the users who get popular listings instead, for comparison.
        known_listings: How many listings of the data set are encoded again for every export.
    """

    refresh_every: int = 5
    test_days: int = 7
    held_out_days: int = 1
    predictions: int = 5000
    pairs: int = 60_000
    event_days: int = 7
    dimension: int = 32
    k: int = 10
    skew: float = 0.0
    holdout: float = 0.0
    known_listings: int = 300


@dataclass
class ServedIndex:
    """The index in service: the listings of one moment, and what has been delisted since."""

    towers: StandInTowers
    bundle_id: str
    as_of: datetime
    item_ids: NDArray[Any]
    vectors: Floats
    live: NDArray[np.bool_]
    content: Floats
    row_of: dict[str, int]
    content_row: dict[str, int]
    rows_of_seller: dict[str, Ints]
    user_part: Floats
    user_row: dict[str, int]
    popularity: Floats
    attributes: Mapping[str, NDArray[Any]]

    def query(
        self, user_id: str, context: Mapping[str, str], history: Sequence[Mapping[str, Any]]
    ) -> Floats:
        """[D] the unit vector of one request; ``history`` is newest first."""
        towers, known = self.towers, self.towers.encoding
        kept = [
            (row, standin.EVENT_WEIGHTS.get(event["event_type"], 0.0) * standin.KEPT_PER_EVENT**i)
            for i, event in enumerate(history)
            if (row := self.content_row.get(event["item_id"])) is not None
        ]
        query = -(towers.query_mean @ towers.query_matrix)
        if kept:
            weights = np.array([weight for _, weight in kept], dtype=np.float32)
            query = query + weights @ self.content[[row for row, _ in kept]] / weights.sum()
        start = self.towers.item_matrix.shape[0]
        for name, words in known.context.items():
            if (value := context[name]) in words.values:
                query = query + towers.query_matrix[start + words.values.index(value)]
            start += len(words.values)
        if (row := self.user_row.get(user_id)) is not None:
            query = query + self.user_part[row]
        return np.asarray(query / max(float(np.linalg.norm(query)), 1e-9), dtype=np.float32)

    def answer(self, user_id: str, query: Floats, k: int) -> tuple[list[str], list[float]]:
        """The best k live listings that are not the user's own, and their scores."""
        return self._best(user_id, self.vectors @ query, k)

    def popular(
        self, user_id: str, context: Mapping[str, str], k: int
    ) -> tuple[list[str], list[float]]:
        """The k most popular live listings of what is asked for, and their popularity."""
        scores = self.popularity.copy()
        if wanted := context["wanted_category"]:
            columns = (self.attributes["category_1"], self.attributes["category_2"])
            scores[(columns[0] != wanted) & (columns[1] != wanted)] = -np.inf
        if size := context["wanted_size"]:
            scores[self.attributes["size"] != size] = -np.inf
        return self._best(user_id, scores, k)

    def _best(self, user_id: str, scores: Floats, k: int) -> tuple[list[str], list[float]]:
        scores[~self.live] = -np.inf
        scores[self.rows_of_seller.get(user_id, [])] = -np.inf
        top, found = standin.top_lists(scores[None, :], k)
        shown = top[0] >= 0
        return self.item_ids[top[0][shown]].tolist(), found[0][shown].tolist()

    def remove(self, item_ids: Sequence[str]) -> None:
        """Take delisted items out of the answers."""
        self.live[[self.row_of[i] for i in item_ids if i in self.row_of]] = False


class LivedMarket:
    """A simulated marketplace that a stand-in recommends in and that a monitor can measure.

    Args:
        simulation: Settings of the simulation, or their plain values.
        folder: Everything is written below it.
        settings: How the market is operated.
        faults: Faults of the feeds, applied in turn to what is exported.

    Attributes:
        market: The simulated marketplace; its ``day`` is the next to live.
        dataset, index, predictions: What the reference of the towers in service is built from.
        current_index: Index folder in service.
        encoded: Parquet of ``item_id`` and ``image_embedding``: listings of the data set, and the
            vectors that the encoder gives for them now.
        days: What happened, by live day, see ``quality``.
    """

    def __init__(
        self,
        simulation: SimulationSettings | Mapping[str, Any],
        folder: Path,
        settings: LivedSettings | None = None,
        faults: Sequence[Fault] = (),
    ) -> None:
        self.settings = settings or LivedSettings()
        self.folder = folder
        self.faults = tuple(faults)
        self.market = Marketplace(simulation)
        self.first_day = self.market.day
        self.days: list[dict[str, Any]] = []
        self._events = self.market.events_table()
        self._items = self.market.items_table()
        self._refits = 0
        self._towers: StandInTowers
        self._served: ServedIndex
        self.encoded = folder / "encoded.parquet"
        self.dataset = self.index = self.predictions = self.current_index = folder
        self._deploy()

    @property
    def now(self) -> datetime:
        """Midnight, UTC, of the next day to live."""
        return self.market.now

    @property
    def embedding_version(self) -> str:
        """Embedding version of the towers in service."""
        return self._towers.embedding_version

    def live(self, days: int = 1) -> list[Day]:
        """Live some days, and write what the monitor measures at the end of them."""
        lived = []
        every = self.settings.refresh_every
        with ONE_THREAD():
            for _ in range(days):
                age = (self.now - self._served.as_of).days
                if every and age >= every:
                    self._refresh_index(self.exported())
                lived.append(self._live_one_day())
            self._write_monitored()
        return lived

    def refit(self, noise: float = 0.0) -> None:
        """Fit new towers on everything exported so far, and put them in service.

        Towers, embedding version, data set, index and offline predictions are new; the prediction
        log goes on.

        Args:
            noise: How much worse the towers are made than they could be: standard deviation of
                noise on their weights, in that of the weights.
        """
        self._refits += 1
        self._deploy(noise)

    def change(self, *changes: MarketChange) -> None:
        """Let the market change, as if the simulation had been set so from the start.

        Raises:
            UsageError: A change begins on a day that has been lived.
        """
        if any(change.day < self.market.day for change in changes):
            raise UsageError(f"a change must begin on day {self.market.day} or later")
        together = {"changes": (*self.market.settings.changes, *changes)}
        self.market.settings = self.market.settings.model_copy(update=together)
        self.market.scenario = Scenario(self.market.settings)

    def operate(self, **settings: Any) -> None:
        """Operate the market in another way from now on; see ``LivedSettings``."""
        self.settings = dataclasses.replace(self.settings, **settings)

    def refresh(self) -> None:
        """Build the index again, with the towers in service."""
        self._refresh_index(self.exported())
        self._write_monitored()

    def fork(self, folder: Path) -> "LivedMarket":
        """An independent copy at the same moment, to live on in another way."""
        shutil.copytree(self.folder, folder, copy_function=os.link)
        other = copy.deepcopy(self)
        for name in ("dataset", "index", "predictions", "current_index"):
            path = getattr(self, name).relative_to(self.folder)
            setattr(other, name, folder / path)
        other.folder, other.encoded = folder, folder / "encoded.parquet"
        return other

    def data(self) -> MonitoredData:
        """Where the monitor finds what was written by the latest ``live``."""
        return MonitoredData(
            log=self.folder / "log",
            events=self.folder / "events.parquet",
            items=self.folder / "items.parquet",
            index=self.current_index,
        )

    def windows(self, count: int, days: float = 1.0) -> list[Window]:
        """The latest windows, oldest first."""
        return daily_windows(self.now, count, days)

    def build_reference(self, settings: MeasureSettings | None = None, name: str = "") -> Path:
        """Build the reference of the towers in service; returns its folder."""
        out = self.dataset.parent / (name or "reference")
        build_reference(
            settings or MeasureSettings(),
            self.predictions,
            self.index,
            self.dataset,
            self.embedding_version,
            out,
        )
        return out

    def encode_again(self) -> pa.Table:
        """What the encoder gives now for some listings of the data set: id and vector."""
        ids = pq.read_table(self.dataset / ITEMS_FILE, columns=["item_id"])["item_id"]
        rows = np.linspace(0, len(ids) - 1, min(self.settings.known_listings, len(ids)))
        known = ids.take(pa.array(np.unique(rows.astype(np.int64)))).to_pylist()
        return encode_again(self.true_tables()["items"], known, self.faults, self.now)

    def quality(self) -> pa.Table:
        """One row for each live day: what a perfect, this and a random recommender sell.

        Answers to the holdout do not count.

        Columns: day, date, index_age (days), requests, bought, chance_of_sale, organic_chance,
        perfect_chance, random_chance (means over the requests), embedding_version.
        """
        return pa.Table.from_pylist(self.days)

    def true_tables(self) -> dict[str, pa.Table]:
        """All tables without faults, as known now."""
        stock, start = self.market.stock, int(self.market.settings.starts_at.timestamp()) * 10**6
        until = self.market.day * 86_400_000_000
        gone = stock.delisted_at[: self._items.num_rows]
        delisted = pa.array(gone + start, pa.timestamp("us", tz="UTC"), mask=gone >= until)
        place = self._items.column_names.index("delisted_at")
        return {
            "events": self._events,
            "items": self._items.set_column(place, "delisted_at", delisted),
            "users": self.market.users_table(),
        }

    def exported(self) -> Tables:
        """All tables as the team exports them now, faults included."""
        tables: Tables = self.true_tables()
        for fault in self.faults:
            tables = fault(tables, self.now)
        return tables

    def _deploy(self, noise: float = 0.0) -> None:
        """Write a data set, fit towers on it, and put them in service with a fresh index."""
        home = self.folder / f"fit-{self._refits}"
        tables = self.exported()
        self.dataset, self.predictions = home / "dataset", home / "predictions.parquet"
        split = self._split()
        write_dataset(self.dataset, tables, split, CONTEXT_COLUMNS, USER_COLUMNS)
        visits = _Visits.of(tables, split.end)
        with ONE_THREAD():
            self._towers = _fit(self.settings, tables, visits, split).with_noise(noise)
        self._refresh_index(tables)
        self.index = self.current_index
        write_table(self.predictions, self._predict_offline(tables, visits, split))
        self._write_monitored(tables)

    def _split(self) -> Split:
        end = self.now
        test_start = end - timedelta(days=self.settings.test_days)
        start = self.market.settings.starts_at
        return Split(
            start=start,
            validation_start=max(start, test_start - timedelta(days=3)),
            test_start=max(start, test_start),
            end=end,
        )

    def _refresh_index(self, tables: Tables) -> None:
        items, users, towers = tables["items"], tables["users"], self._towers
        features = towers.encoding.items(items)
        width = towers.item_matrix.shape[0]
        live = _live_at(items, self.now)
        stock = items.filter(pa.array(live))
        ids = np.array(stock["item_id"].to_pylist(), dtype=object)
        sellers = np.array(stock["seller_id"].to_pylist(), dtype=object)
        by_seller: dict[str, list[int]] = {}
        for row, seller in enumerate(sellers):
            by_seller.setdefault(seller, []).append(row)
        start = width + sum(len(v.values) for v in towers.encoding.context.values())
        user_part = towers.encoding.users(users) @ towers.query_matrix[start:]
        self._served = ServedIndex(
            towers=towers,
            bundle_id=f"{self.now:%Y%m%dT%H%M%S}000Z-{towers.embedding_version}",
            as_of=self.now,
            item_ids=ids,
            vectors=towers.item_vectors(features[live]),
            live=np.ones(len(ids), dtype=np.bool_),
            content=features @ towers.query_matrix[:width],
            row_of={item: row for row, item in enumerate(ids)},
            content_row={i: row for row, i in enumerate(items["item_id"].to_pylist())},
            rows_of_seller={s: np.array(rows) for s, rows in by_seller.items()},
            user_part=user_part,
            user_row={u: row for row, u in enumerate(users["user_id"].to_pylist())},
            popularity=self._popularity(tables["events"], stock),
            attributes={
                name: np.array(stock[name].to_pylist(), dtype=object)
                for name in ("category_1", "category_2", "size")
            },
        )
        name = f"index-{self._refits}-{self.now:%Y%m%d}"
        self.current_index = self.folder / name
        if not self.current_index.exists():
            self._write_index(stock)

    def _popularity(self, events: pa.Table, stock: pa.Table) -> Floats:
        """[N] weighted events of the last week on each listing of the stock."""
        week = pa.scalar(self.now - timedelta(days=7), pa.timestamp("us", tz="UTC"))
        recent = events.filter(pc.greater_equal(events["event_time"], week))
        rows = pc.index_in(recent["item_id"], stock["item_id"].combine_chunks())
        known = np.asarray(pc.fill_null(rows, -1), dtype=np.int64)
        weights = standin.event_weights(recent["event_type"])
        counts = np.bincount(known + 1, weights, minlength=stock.num_rows + 1)[1:]
        return np.asarray(counts, dtype=np.float32)

    def _write_index(self, stock: pa.Table) -> None:
        served = self._served
        names = [name for name in INDEX_COLUMNS if name in stock.column_names]
        version = served.towers.embedding_version
        write_index(self.current_index, served.vectors, stock.select(names), version, served.as_of)

    def _live_one_day(self) -> Day:
        served, date, skew = self._served, self.now, self.settings.skew
        log = _Log(served)

        def recommend(
            user_id: str,
            context: dict[str, str],
            history: list[dict[str, Any]],
            k: int,
            time: datetime,
        ) -> tuple[str, list[str]]:
            known = () if skew and draw([user_id], "skew")[0] < skew else history
            query = served.query(user_id, context, known)
            if self.settings.holdout and draw([user_id], HOLDOUT)[0] < self.settings.holdout:
                items, scores = served.popular(user_id, context, k)
                return log.add(user_id, context, time, query, items, scores, HOLDOUT), items
            items, scores = served.answer(user_id, query, k)
            return log.add(user_id, context, time, query, items, scores, None), items

        day = self.market.simulate_day(recommend, self.settings.k, on_delisted=served.remove)
        self._events = pa.concat_tables([self._events, day.events])
        self._items = pa.concat_tables([self._items, day.listed])
        write_table(self.folder / "log" / f"date={date:%Y-%m-%d}" / "part-0.parquet", log.table())
        requests = day.requests.filter(pc.is_in(day.requests["request_id"], log.by_the_model()))
        age = (date - served.as_of).days
        self.days.append(_describe_day(day, requests, age, self.embedding_version))
        return day

    def _write_monitored(self, tables: Tables | None = None) -> None:
        tables = tables or self.exported()
        first = self.market.settings.starts_at + timedelta(
            days=self.first_day - self.settings.event_days
        )
        times = tables["events"]["event_time"]
        recent = pc.greater_equal(times, pa.scalar(first, pa.timestamp("us", tz="UTC")))
        write_table(self.folder / "events.parquet", _keep_recent(tables["events"], recent))
        write_table(self.folder / "items.parquet", tables["items"])
        write_table(self.encoded, self.encode_again())

    def _predict_offline(self, tables: Tables, visits: "_Visits", split: Split) -> pa.Table:
        """Answers to the first event of visits since the test started, from the stock then."""
        items, k = tables["items"], self.settings.k
        asked = visits.since(split.test_start)
        asked = asked[
            np.unique(np.linspace(0, len(asked) - 1, self.settings.predictions).astype(int))
        ]
        towers = self._towers
        features = towers.encoding.items(items)
        vectors = towers.item_vectors(features)
        queries = towers.query_vectors(*visits.inputs(towers.encoding, tables, features, asked))
        listed, gone = _times(items, "listed_at"), _times(items, "delisted_at")
        time, user = visits.time[asked], visits.users[asked]
        sellers = np.array(items["seller_id"].to_pylist(), dtype=object)
        ids = np.array(items["item_id"].to_pylist(), dtype=object)
        log = _Log(self._served, bundle_id="offline", prefix="offline")
        for batch in np.array_split(np.arange(len(asked)), max(1, len(asked) // 250)):
            near = np.flatnonzero((listed <= time[batch].max()) & (gone > time[batch].min()))
            at = time[batch][:, None]
            offered = (listed[near] <= at) & (gone[near] > at)
            offered &= sellers[near] != user[batch][:, None]
            scores = np.where(offered, queries[batch] @ vectors[near].T, -np.inf)
            top, found = standin.top_lists(scores.astype(np.float32), k)
            for i, row in enumerate(batch):
                shown = top[i] >= 0
                log.add(
                    user[row],
                    visits.context(asked[row]),
                    datetime.fromtimestamp(0, self.now.tzinfo)
                    + timedelta(microseconds=int(time[row])),
                    queries[row],
                    ids[near[top[i][shown]]].tolist(),
                    found[i][shown].tolist(),
                    None,
                )
        return log.table()


@dataclass
class _Visits:
    """Events in order of time, and the first event of each visit."""

    user: Ints
    users: NDArray[Any]
    time: Ints
    item: Ints
    weight: Floats
    first: Ints
    visit: Ints
    contexts: Mapping[str, pa.ChunkedArray]
    types: pa.ChunkedArray
    user_rows: Ints
    _rows: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, tables: Tables, end: datetime) -> "_Visits":
        events = tables["events"].sort_by("event_time")
        events = events.filter(
            pc.less(events["event_time"], pa.scalar(end, pa.timestamp("us", tz="UTC")))
        )
        item = pc.index_in(events["item_id"], tables["items"]["item_id"].combine_chunks())
        user_rows = pc.index_in(events["user_id"], tables["users"]["user_id"].combine_chunks())
        user_codes = events["user_id"].combine_chunks().dictionary_encode()
        sessions = np.asarray(
            events["session_id"].combine_chunks().dictionary_encode().indices, dtype=np.int64
        )
        _, first, visit = np.unique(sessions, return_index=True, return_inverse=True)
        return cls(
            user=np.asarray(user_codes.indices, dtype=np.int64),
            users=np.array(events["user_id"].to_pylist(), dtype=object),
            time=_times(events, "event_time"),
            item=np.asarray(pc.fill_null(item, -1), dtype=np.int64),
            weight=standin.event_weights(events["event_type"]),
            first=first,
            visit=visit,
            contexts={
                name: pc.fill_null(events[name], "").combine_chunks() for name in CONTEXT_COLUMNS
            },
            types=events["event_type"],
            user_rows=np.asarray(pc.fill_null(user_rows, -1), dtype=np.int64),
        )

    def since(self, time: datetime) -> Ints:
        """Positions of the first events of the visits since a time, in order of time."""
        begun = self.first[self.time[self.first] >= int(time.timestamp() * 1e6)]
        return np.sort(begun)

    def context(self, event: int) -> dict[str, str]:
        """The context of one event."""
        if not self._rows:
            self._rows.update({name: c.to_pylist() for name, c in self.contexts.items()})
        return {name: values[event] for name, values in self._rows.items()}

    def inputs(
        self, encoding: Encoding, tables: Tables, features: Floats, asked: Ints
    ) -> tuple[Floats, Floats, Floats]:
        """Histories, contexts and users at some events, each [A, ...]."""
        histories = standin.running_means(self.user, self.item, self.weight, features, asked)
        rows = pa.array(asked)
        contexts = encoding.contexts({n: c.take(rows) for n, c in self.contexts.items()})
        users = encoding.users(tables["users"])
        users = np.concatenate([users, np.zeros_like(users[:1])])[self.user_rows[asked]]
        return histories, contexts, users


def _fit(settings: LivedSettings, tables: Tables, visits: _Visits, split: Split) -> StandInTowers:
    encoding = Encoding.of(tables["items"], tables["events"], tables["users"])
    features = encoding.items(tables["items"])
    wanted = np.asarray(pc.is_in(visits.types, pa.array(standin.TARGETS))) & (visits.item >= 0)
    until = int((split.end - timedelta(days=settings.held_out_days)).timestamp() * 1e6)
    pairs = np.flatnonzero(wanted & (visits.time < until))
    if not len(pairs):
        pairs = np.flatnonzero(wanted)
    pairs = pairs[-settings.pairs :]
    asked, place = np.unique(visits.first[visits.visit[pairs]], return_inverse=True)
    queries = np.concatenate(visits.inputs(encoding, tables, features, asked), axis=1)
    return standin.fit_towers(
        encoding,
        queries[place],
        features[visits.item[pairs]],
        visits.weight[pairs],
        features,
        settings.dimension,
    )


class _Log:
    """Rows of a prediction log."""

    def __init__(self, served: ServedIndex, bundle_id: str = "", prefix: str = "live") -> None:
        self._served = served
        self._bundle_id = bundle_id or served.bundle_id
        self._prefix = prefix
        self._rows: dict[str, list[Any]] = {
            name: []
            for name in (
                *("user_id", "time", "context"),
                *("query_embedding", "item_ids", "scores", "fallback"),
            )
        }

    def add(self, user_id: str, context: Mapping[str, str], time: datetime, *answer: Any) -> str:
        """Add an answer (query, items, scores, fallback); returns its request id."""
        values = (user_id, time, json.dumps(context), *answer)
        for column, value in zip(self._rows.values(), values, strict=True):
            column.append(value)
        return f"{self._prefix}-{time:%Y%m%d}-{len(self._rows['time']) - 1}"

    def by_the_model(self) -> pa.Array:
        """Request ids of the answers that are no holdout."""
        ids = zip(self._ids(), self._rows["fallback"], strict=True)
        return pa.array([i for i, fallback in ids if fallback is None], pa.string())

    def _ids(self) -> list[str]:
        return [f"{self._prefix}-{t:%Y%m%d}-{i}" for i, t in enumerate(self._rows["time"])]

    def table(self) -> pa.Table:
        """All rows in ``PREDICTION_SCHEMA``."""
        rows, n = self._rows, len(self._rows["time"])
        fixed = {
            "request_id": self._ids(),
            "bundle_id": [self._bundle_id] * n,
            "embedding_version": [self._served.towers.embedding_version] * n,
            "latency_ms": [2.0] * n,
        }
        return build_predictions({**rows, **fixed}, n)


def _describe_day(
    day: Day, requests: pa.Table, index_age: int, embedding_version: str
) -> dict[str, Any]:
    means = ("chance_of_sale", "organic_chance", "perfect_chance", "random_chance")
    return {
        "day": day.day,
        "date": day.date,
        "index_age": index_age,
        "requests": requests.num_rows,
        "bought": pc.sum(requests["bought"]).as_py() or 0,
        **{name: pc.mean(requests[name]).as_py() for name in means},
        "embedding_version": embedding_version,
    }


def _keep_recent(events: pa.Table, recent: pa.ChunkedArray) -> pa.Table:
    """Events that are recent; without a copy where they are the last rows, as they mostly are."""
    recent = pc.fill_null(recent, False)
    start = events.num_rows - (pc.sum(recent).as_py() or 0)
    is_tail = pc.all(recent.slice(start)).as_py()
    return events.slice(start) if is_tail else events.filter(recent)


def _live_at(items: pa.Table, now: datetime) -> NDArray[np.bool_]:
    at = int(now.timestamp() * 1e6)
    return (_times(items, "listed_at") <= at) & (_times(items, "delisted_at") > at)


def _times(table: pa.Table, column: str) -> Ints:
    """[N] epoch microseconds; null is never."""
    stamps = pc.cast(table[column], pa.int64())
    return np.asarray(pc.fill_null(stamps, np.iinfo(np.int64).max), dtype=np.int64)

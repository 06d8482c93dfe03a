"""The collection of one bundle: filled with its items, then kept like the stock."""

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import numpy as np
import pyarrow.parquet as pq

from refit.errors import RefitError, ServiceUnreachable
from refit.index import HISTORIES_FILE, scan
from refit.progress import log_message
from serving.catalogue import Catalogue
from serving.counters import Counters
from serving.engines.engine import EngineFailure, column_kinds
from serving.engines.filters import item_filters
from serving.engines.nodes import GrpcNodes
from serving.engines.objects import ItemObjects
from serving.engines.protocol import weaviate_pb2 as messages
from serving.engines.settings import CollectionSettings
from serving.engines.weaviate import WeaviateEngine
from serving.feeds.feed import Line
from serving.feeds.lag import FeedLag
from serving.feeds.lines import FeedReader
from serving.feeds.stock import StockChange
from serving.request import Request
from serving.snapshot import ServingSnapshot
from serving.stock import LiveStock
from serving.towers import ServedQueryTower, TowerClient, TowerNames

WRITE_SECONDS = 60.0
RECALL_AT = 100
RECALL_SECONDS = 10.0
_BUNDLE = object()
"""What is written of an item of the bundle, as of no newer listing."""
_UNKNOWN = object()


@dataclass
class NotedLines(FeedReader[StockChange]):
    """A stock feed that notes which items its lines are about.

    Attributes:
        items: The items since they were last taken from here.
    """

    items: set[str] = field(default_factory=set)

    def read(self, use: Callable[[StockChange, Line], None]) -> None:
        """Use every line since the last call; see ``FeedReader``."""

        def note(change: StockChange, line: Line) -> None:
            self.items.add(change.item_id)
            use(change, line)

        super().read(note)


class Collection:
    """Writes and removes the objects of one collection.

    Args:
        nodes: The cluster.
        name: Of the collection.
        settings: How it is filled.
    """

    def __init__(self, nodes: GrpcNodes, name: str, settings: CollectionSettings) -> None:
        self._nodes, self.name, self._settings = nodes, name, settings

    def put(self, objects: Sequence[Any], on_all: bool = False) -> None:
        """Write objects; those that are there are replaced.

        Args:
            objects: The objects.
            on_all: Whether every replica has to have them; else most.

        Raises:
            ServiceUnreachable: They were not written.
        """
        level = messages.CONSISTENCY_LEVEL_ALL if on_all else messages.CONSISTENCY_LEVEL_QUORUM
        for start in range(0, len(objects), self._settings.batch):
            part = objects[start : start + self._settings.batch]
            request = messages.BatchObjectsRequest(objects=part, consistency_level=level)
            reply = self._call("BatchObjects", request)
            if reply.errors:
                raise ServiceUnreachable(
                    f"{self.name}: {len(reply.errors)} of {len(part)} items were not written: "
                    f"{reply.errors[0].error}"
                )

    def remove(self, item_ids: Sequence[str]) -> None:
        """Remove items; those that are not there already are.

        Raises:
            ServiceUnreachable: They were not removed.
        """
        for start in range(0, len(item_ids), self._settings.batch):
            part = tuple(item_ids[start : start + self._settings.batch])
            request = messages.BatchDeleteRequest(
                collection=self.name,
                filters=item_filters(part),
                consistency_level=messages.CONSISTENCY_LEVEL_QUORUM,
            )
            reply = self._call("BatchDelete", request)
            if reply.failed:
                raise ServiceUnreachable(f"{self.name}: {reply.failed} items were not removed")

    def count(self) -> int:
        """How many items it holds."""
        request = messages.AggregateRequest(collection=self.name, objects_count=True)
        return int(self._call("Aggregate", request).single_result.objects_count)

    def _call(self, method: str, request: Any) -> Any:
        import grpc

        try:
            return self._nodes.call(method, request, WRITE_SECONDS, WRITE_SECONDS / 2)
        except grpc.RpcError as error:
            raise ServiceUnreachable(
                f"Weaviate did not do {method} on {self.name}: {error.code().name} "
                f"{error.details()}"
            ) from None


class Mirror:
    """Keeps one collection like the stock of one bundle; used by one thread.

    It is filled once, in steps, so that other collections are kept up to date meanwhile. What the
    feed says is written only after the stock has taken it in, so a process that was killed writes
    the same again: nothing that was written twice, or late, changes what the collection holds.

    Args:
        catalogue: The bundle.
        stock: Its stock, which reads ``lines``.
        lines: The stock feed; None where there is none.
        collection: Where it is written.
        objects: What is written.
        settings: How.
        is_filled: Whether the collection holds all items of the bundle already.
        counters: Counts what was written.

    Attributes:
        is_checked: Whether it was found to hold the bundle's items and to find the nearest ones.
        is_served: Whether the alias of its embedding version stands for it.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        stock: LiveStock,
        lines: NotedLines | None,
        collection: Collection,
        objects: ItemObjects,
        settings: CollectionSettings,
        is_filled: bool,
        counters: Counters,
    ) -> None:
        self.catalogue, self.stock, self.collection = catalogue, stock, collection
        self._lines, self._objects, self._settings = lines, objects, settings
        self._counters = counters
        self._filled = catalogue.n_live if is_filled else 0
        self._written: dict[str, Any] = {}
        self._due: set[str] = set()
        self._fresh_seen: Any = None
        self.is_checked = is_filled
        self.is_served = False

    @property
    def is_filled(self) -> bool:
        """Whether all items of the bundle were written."""
        return self._filled >= self.catalogue.n_live

    @property
    def is_current(self) -> bool:
        """Whether it holds what the bundle and the feed say, and was checked."""
        return self.is_checked and not self._due

    def fill(self) -> None:
        """Write the next items of the bundle, on every replica.

        Raises:
            ServiceUnreachable: They were not written; the next call tries them again.
        """
        batch, threads = self._settings.batch, self._settings.threads
        end = min(self._filled + batch * threads, self.catalogue.n_live)
        starts = range(self._filled, end, batch)

        def write(start: int) -> None:
            rows = range(start, min(start + batch, end))
            self.collection.put(self._objects.of_rows(rows), on_all=True)

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(write, starts))
        self._filled = end
        self._counters.set("refit_index_writer_filled", end / max(self.catalogue.n_live, 1))

    def follow(self) -> None:
        """Write what the feed said since the last call.

        Raises:
            ServiceUnreachable: The feed or the cluster does not answer; what was not written is
                written by the next call.
        """
        self.stock.catch_up()
        self.stock.embed_waiting()
        self._due |= self._find_changed()
        # Before, the bundle's own items would be written over what is newer.
        if self.is_checked and self._due:
            self._write(self._due)
        self._counters.set("refit_index_writer_waiting", len(self._due))

    @property
    def lag(self) -> FeedLag | None:
        """How far the writer is behind the feed; None without one."""
        return None if self._lines is None else self._lines.lag

    def close(self) -> None:
        """Close the feed."""
        self.stock.close()

    def _find_changed(self) -> set[str]:
        """Items of which the feed or the item tower said something since the last call."""
        changed: set[str] = set()
        if self._lines is not None:
            changed, self._lines.items = self._lines.items, changed
        fresh = self.stock.fresh
        if fresh is not self._fresh_seen:
            self._fresh_seen = fresh
            changed |= {
                one.item_id
                for _, one in fresh.on_sale()
                if self._written.get(one.item_id) is not one
            }
        return changed

    def _write(self, item_ids: Iterable[str]) -> None:
        fresh, gone = self.stock.fresh, self.stock.gone
        place = {one.item_id: row for row, one in fresh.on_sale()}
        listings: list[int] = []
        rows: list[int] = []
        ended: list[str] = []
        wanted: dict[str, Any] = {}
        for item_id in item_ids:
            position, row = place.get(item_id), self.catalogue.row_of.get(item_id)
            if position is not None:
                wanted[item_id] = fresh.listings[position]
            elif self._is_live(row) and (gone is None or not gone[row]):
                wanted[item_id] = _BUNDLE
            else:
                wanted[item_id] = None
            if wanted[item_id] is self._written.get(item_id, _UNKNOWN):
                continue
            if wanted[item_id] is None:
                ended.append(item_id)
            elif wanted[item_id] is _BUNDLE and row is not None:
                rows.append(row)
            elif position is not None:
                listings.append(position)
        self.collection.remove(ended)
        self.collection.put(self._objects.of_listings(fresh, listings))
        self.collection.put(self._objects.of_rows(rows) if rows else [])
        self._written |= wanted
        self._due = set()
        for change, n in (("removed", len(ended)), ("written", len(listings) + len(rows))):
            self._counters.add("refit_index_writer_items", n, change=change)

    def _is_live(self, row: int | None) -> TypeGuard[int]:
        return row is not None and row < self.catalogue.n_live

    def check(self, engine: WeaviateEngine, towers: TowerClient) -> None:
        """Check that the collection holds the bundle's items, and finds the nearest ones.

        Raises:
            ServiceUnreachable: The towers or the cluster do not answer.
            RefitError: It holds other items, or finds too few of the nearest.
        """
        held, items = self.collection.count(), self.catalogue.n_live
        if held < items:
            raise RefitError(f"{self.collection.name} holds {held} items instead of {items}")
        recall, p50 = self._measure(engine, towers)
        self._counters.set("refit_index_writer_recall", recall)
        name, least = self.collection.name, self._settings.min_recall
        if recall < least:
            raise RefitError(
                f"{name} finds {recall:.3f} of the {RECALL_AT} nearest items, less than "
                f"collection.min_recall {least:g}; raise collection.ef"
            )
        self.is_checked = True
        log_message(f"{name}: {held} items, recall {recall:.3f}, median search {p50:.1f} ms")

    def _measure(self, engine: WeaviateEngine, towers: TowerClient) -> tuple[float, float]:
        """Share of the exact nearest items that are found, and the median time in milliseconds."""
        queries = self._sample_queries(towers)
        k = min(RECALL_AT, self.catalogue.n_live)
        _, exact = scan(queries, np.asarray(self.catalogue.index.vectors), k)
        kinds = column_kinds(self.catalogue)
        found, times = [], []
        for query, rows in zip(queries, exact, strict=True):
            started = time.perf_counter()
            try:
                hits = engine.search_collection(self.collection.name, query, k, None, kinds)
            except EngineFailure as failure:
                raise ServiceUnreachable(str(failure)) from None
            times.append((time.perf_counter() - started) * 1000)
            wanted = {self.catalogue.item_ids[row] for row in rows.tolist()}
            found.append(len(wanted & set(hits.item_ids)) / k)
        return float(np.mean(found)), float(np.median(times))

    def _sample_queries(self, towers: TowerClient) -> Any:
        """[Q, D] query vectors of some of the people whom the bundle knows, or of nobody."""
        path = self.catalogue.bundle.index / HISTORIES_FILE
        users = pq.read_table(path, columns=["user_id"])["user_id"]
        step = max(len(users) // self._settings.recall_people, 1)
        asked = [Request(user_id=user.as_py()) for user in users[::step]] or [Request()]
        name = TowerNames.of(self.catalogue.bundle.manifest.embedding_version).query
        query_tower = ServedQueryTower(towers, name, self.catalogue.size)
        snapshot = ServingSnapshot.of(self.catalogue, self.stock, query_tower)
        now = self.catalogue.as_of
        found = snapshot.embed([(request, now) for request in asked], RECALL_SECONDS)
        return np.stack([query.vector for query in found])

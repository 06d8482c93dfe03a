"""The one process that writes to a Weaviate cluster: a collection for each bundle in use.

A collection is filled, checked and brought up to date with the feed before the alias of its
embedding version stands for it. The writer can be killed at any moment: a collection that was not
complete has no alias, and is removed and filled again; one that was is brought up to date by
reading the feed again. While it is away answers go on, since every server applies the feeds itself.
"""

import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from refit.bundle import Bundle
from refit.errors import RefitError, ServiceUnreachable
from refit.progress import log_message
from refit.registry import DEFAULT_CACHE, Registry
from serving.catalogue import Catalogue
from serving.counters import Counters
from serving.engines.mirror import Collection, Mirror, NotedLines
from serving.engines.nodes import GrpcNodes, HttpNodes
from serving.engines.objects import ItemObjects
from serving.engines.settings import IndexWriterSettings
from serving.engines.stored import StoredVectors
from serving.engines.weaviate import Aliases, WeaviateEngine
from serving.feeds.dead_letters import DeadLetters
from serving.feeds.opening import open_feed
from serving.feeds.stock import StockChange
from serving.stock import LiveStock
from serving.towers import TowerClient, TowerFailure, TowerNames, models_of

CHECK_SECONDS = 10.0
"""A search of the writer may take so long."""
TIDY_SECONDS = 5.0


class IndexWriter:
    """Keeps the collections of a Weaviate cluster like the registry and the stock.

    Args:
        settings: What is written, and where.
    """

    def __init__(self, settings: IndexWriterSettings) -> None:
        self.settings, self.counters = settings, Counters()
        patient = {"deadline_ms": 2000 * CHECK_SECONDS, "attempt_ms": 1000 * CHECK_SECONDS}
        cluster = settings.weaviate.model_copy(update=patient)
        self._engine, self._nodes = WeaviateEngine(cluster), GrpcNodes(cluster)
        self.aliases = Aliases(HttpNodes(cluster), cluster.collections)
        self._registry = Registry(settings.registry, settings.cache or DEFAULT_CACHE)
        self._towers = TowerClient(settings.model_server)
        self._letters = DeadLetters(
            settings.letters / "stock.jsonl", self.counters, "refit_index_writer_dead_letters"
        )
        self.mirrors: dict[str, Mirror] = {}
        self._refused: set[str] = set()
        self._unused: dict[str, float] = {}
        self._tidied = 0.0
        self.counters.add("refit_index_writer_failures", 0)

    def step(self) -> bool:
        """Do what is due; return whether there is more to do at once.

        Raises:
            ServiceUnreachable: Something that is needed does not answer; the next call goes on.
        """
        wanted = self._wanted()
        for bundle_id in wanted:
            if bundle_id not in self.mirrors and bundle_id not in self._refused:
                self._open(bundle_id)
        for bundle_id, mirror in list(self.mirrors.items()):
            self._advance(bundle_id, mirror)
        self._point(wanted)
        if time.monotonic() - self._tidied > TIDY_SECONDS:
            self._tidied = time.monotonic()
            self._tidy(wanted)
        return any(not mirror.is_filled for mirror in self.mirrors.values())

    def close(self) -> None:
        """Close feeds and connections."""
        for mirror in self.mirrors.values():
            mirror.close()
        self._engine.close()
        self._nodes.close()
        self._towers.close()

    def _wanted(self) -> tuple[str, ...]:
        """The bundles that servers answer from: the champion, a candidate, and those named."""
        promotion, proposal = self._registry.champion(), self._registry.candidate()
        champion = [promotion.bundle_id] if promotion else []
        candidate = [proposal.bundle_id] if proposal else []
        return tuple(dict.fromkeys([*champion, *candidate, *self.settings.bundles]))

    def _open(self, bundle_id: str) -> None:
        """Begin with a bundle; a collection that is complete is used again."""
        catalogue = self._read(bundle_id)
        if catalogue is None:
            return
        bundle = catalogue.bundle
        self._load_towers(bundle)
        version = bundle.manifest.embedding_version
        target = self.aliases.target(version)
        mark = self.aliases.mark(target) if target else None
        is_filled = mark is not None and mark.bundle_id == bundle_id
        stamp = f"{datetime.now(UTC):%Y%m%d%H%M%S%f}"
        name = target if is_filled and target else f"{self.aliases.alias_of(version)}_{stamp}"
        objects = ItemObjects(catalogue, name)
        if not is_filled:
            self.aliases.create(objects.define(self.settings.collection))
        lines = self._open_feed(catalogue)
        late = self.settings.feeds.late_hours
        stock = LiveStock(catalogue, lines, self._towers, self.counters, late)
        collection = Collection(self._nodes, name, self.settings.collection)
        self.mirrors[bundle_id] = Mirror(
            catalogue,
            stock,
            lines,
            collection,
            objects,
            self.settings.collection,
            is_filled,
            self.counters,
        )
        log_message(f"{bundle_id}: {'keeping' if is_filled else 'filling'} {name}")

    def _read(self, bundle_id: str) -> Catalogue | None:
        """Open a bundle; None if it cannot be served."""
        try:
            return Catalogue(self._registry.get(bundle_id), StoredVectors.read)
        except ServiceUnreachable:
            raise
        except RefitError as error:
            self._refuse(bundle_id, error)
            return None

    def _open_feed(self, catalogue: Catalogue) -> NotedLines | None:
        feeds = self.settings.feeds
        since = catalogue.as_of - timedelta(hours=feeds.late_hours)
        feed = open_feed(feeds.stock, feeds, since)
        if feed is None:
            return None
        ahead = timedelta(seconds=feeds.ahead_seconds)
        return NotedLines(feed, StockChange, self._letters, ahead)

    def _load_towers(self, bundle: Bundle) -> None:
        names = TowerNames.of(bundle.manifest.embedding_version)
        if all(self._towers.is_available(name) for name in (names.query, names.item)):
            return
        models = models_of(bundle)
        for mirror in self.mirrors.values():
            models |= models_of(mirror.catalogue.bundle)
        self._towers.serve_only(models, self.settings.load_timeout_s)

    def _advance(self, bundle_id: str, mirror: Mirror) -> None:
        """Fill, check and follow; one that is refused is left alone."""
        if bundle_id in self._refused:
            return
        try:
            if not mirror.is_filled:
                mirror.fill()
            elif not mirror.is_checked:
                mirror.check(self._engine, self._towers)
            mirror.follow()
        except ServiceUnreachable:
            raise
        except TowerFailure as failure:
            raise ServiceUnreachable(str(failure)) from None
        except RefitError as error:
            self._refuse(bundle_id, error)
        if mirror.lag is not None:
            mirror.lag.measure("stock", self.counters)

    def _refuse(self, bundle_id: str, error: RefitError) -> None:
        self._refused.add(bundle_id)
        self.counters.add("refit_index_writer_refused")
        log_message(f"{bundle_id} refused: {error}")

    def _point(self, wanted: Iterable[str]) -> None:
        """Let each alias stand for the newest complete collection of its embedding version."""
        newest: dict[str, Mirror] = {}
        for bundle_id in wanted:
            mirror = self.mirrors.get(bundle_id)
            if mirror is None or not mirror.is_current or bundle_id in self._refused:
                continue
            version = mirror.catalogue.bundle.manifest.embedding_version
            other = newest.get(version)
            if other is None or mirror.catalogue.as_of > other.catalogue.as_of:
                newest[version] = mirror
        for version, mirror in newest.items():
            name = mirror.collection.name
            if mirror.is_served:
                continue
            if self.aliases.target(version) != name:
                self.aliases.point(version, name)
                log_message(f"{self.aliases.alias_of(version)} is {name} now")
            for one in self.mirrors.values():
                one.is_served = one is mirror or (
                    one.is_served and one.catalogue.bundle.manifest.embedding_version != version
                )

    def _tidy(self, wanted: Iterable[str]) -> None:
        """Remove collections that nothing uses any more, some time after their last use."""
        kept = {self.mirrors[one].collection.name for one in wanted if one in self.mirrors}
        if not all(one in self.mirrors and self.mirrors[one].is_checked for one in wanted):
            return  # servers still answer from what was there before
        aliases = self.aliases.all()
        now = time.monotonic()
        unused = [name for name in self.aliases.collections() if name not in kept]
        self._unused = {name: self._unused.get(name, now) for name in unused}
        for name, since in list(self._unused.items()):
            if now - since >= self.settings.collection.keep_seconds:
                self._drop(name, aliases)

    def _drop(self, name: str, aliases: dict[str, str]) -> None:
        for bundle_id, mirror in list(self.mirrors.items()):
            if mirror.collection.name == name:
                mirror.close()
                del self.mirrors[bundle_id]
        for alias, target in aliases.items():
            if target == name:
                self.aliases.drop_alias(alias.partition("_")[2])
        self.aliases.drop(name)
        log_message(f"removed {name}")

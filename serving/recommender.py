"""The recommender: one request in, one answer out, always from one bundle."""

import json
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import repeat
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from refit.bundle import Bundle
from refit.errors import RefitError, ServiceUnreachable
from refit.in_process_tower import InProcessTower, has_in_process_tower
from refit.index import ItemIndex
from refit.prediction import HOLDOUT, NOT_PERSONALISED, SIMILAR_ITEMS
from refit.progress import log_message
from refit.registry import DEFAULT_CACHE, Promotion, Registry
from serving.catalogue import Catalogue
from serving.counters import Counters, key_of
from serving.engines.engine import EngineFailure, SearchEngine
from serving.engines.remote import RemoteSearch
from serving.engines.settings import EngineSettings
from serving.engines.stored import StoredVectors
from serving.experiment import find_bucket, is_held_out
from serving.explain import explain
from serving.feeds.activity import ActivityEvent
from serving.feeds.dead_letters import DeadLetters
from serving.feeds.lag import FeedLag
from serving.feeds.lines import FeedLine, FeedReader
from serving.feeds.opening import open_feed
from serving.feeds.stock import StockChange
from serving.listings import check_encoders
from serving.pages import read_cursor, write_cursor
from serving.people import LivePeople
from serving.pool import Pool
from serving.prediction_log import Prediction, PredictionLog
from serving.query import Query
from serving.request import (
    Request,
    RequestError,
    SimilarRequest,
    is_about_item,
    is_batch,
    parse_batch,
    parse_request,
    parse_similar,
)
from serving.retrievers.similar import knows
from serving.settings import RecommenderSettings
from serving.slate import Slate
from serving.snapshot import ServingSnapshot
from serving.stage_settings import SIMILAR
from serving.stages import AnswerRequest, Stages
from serving.stock import LiveStock
from serving.towers import (
    Breaker,
    Fallback,
    ModelServer,
    NoModelServer,
    OwnQueryTower,
    QueryEmbedder,
    ServedQueryTower,
    TowerClient,
    TowerFailure,
    TowerNames,
    models_of,
)

Answer = dict[str, Any]

JOIN_SECONDS = 2.0
LAG_SECONDS = 1.0
WARM_UPS = 20
"""Maximum number of warm-up calls; towers that are slow after them are used anyway."""


@dataclass(frozen=True)
class Embedded:
    """The query tower's result for a request: a query, or the reason for a fallback."""

    query: Query | None
    fallback: Fallback | None = None


@dataclass(frozen=True)
class Plan:
    """How one request is answered.

    Attributes:
        request: The request.
        request_id: Its id.
        now: When it is answered.
        stages: The stages, with the settings of the person's bucket.
        bucket: The person's bucket of an experiment.
        reason: Why no query is wanted, one of ``ON_PURPOSE``; None: it is.
        shown: Items of the earlier pages.
    """

    request: Request
    request_id: str
    now: datetime
    stages: Stages
    bucket: str | None
    reason: str | None
    shown: tuple[str, ...]

    def ask(
        self, query: Query | None, retriever: str = "", about: tuple[str, ...] = ()
    ) -> AnswerRequest:
        """What is asked of the stages; see ``AnswerRequest``."""
        first = len(self.shown)
        return AnswerRequest(
            self.request, self.request_id, self.now, query, retriever, about, first
        )


class Recommender:
    """Answers requests from the registry's champion, and follows its changes.

    With ``settings.bundle`` it always answers from that bundle, whichever is the champion.

    Threads may share it. Create it after a fork, not before.

    Raises:
        UsageError: The registry has no champion, or does not have ``settings.bundle``.
        RefitError: The bundle is corrupt.
    """

    def __init__(self, settings: RecommenderSettings) -> None:
        self.settings = settings
        self.counters = Counters()
        self._stages = Stages(settings.retrieval, settings.slate)
        self._buckets = {
            name: Stages(bucket.retrieval or settings.retrieval, bucket.slate or settings.slate)
            for name, bucket in settings.experiment.buckets.items()
        }
        self._registry = Registry(settings.registry, settings.cache or DEFAULT_CACHE)
        self._towers: ModelServer = (
            TowerClient(settings.model_server) if settings.model_server else NoModelServer()
        )
        self._breaker = Breaker(settings.breaker_failures, settings.breaker_seconds)
        self._engine = _open_engine(settings.engine)
        self._stock_letters = self._dead_letters("stock")
        self._activity_letters = self._dead_letters("activity")
        self._refused: set[int] = set()
        self._unload_at: float | None = None
        self._closing = threading.Event()
        self._start_counters()
        self.snapshot = self._open_first()
        self._log = PredictionLog(
            settings.local_log,
            settings.log_rows,
            settings.log_seconds,
            settings.log_queue,
            self.counters,
            settings.log_url,
            settings.log_staging_mib << 20,
        )
        self._threads = self._follow_feeds()
        self._threads.append(self._repeat(self._follow_champion, "champion", settings.poll_seconds))
        if self._engine:
            self._threads.append(self._repeat(self._open_search, "engine", settings.poll_seconds))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def bundle_id(self) -> str:
        """The bundle in service."""
        return self.snapshot.bundle_id

    def recommend(self, body: Any, arrived: float | None = None) -> Answer:
        """Answer one request, a batch of them, or a request for similar items.

        Args:
            body: The request as parsed JSON, see ``serving.request.Request``;
                ``{"requests": [...]}`` is a batch, and a request with ``item_id`` asks ``similar``.
            arrived: When its last byte was read, by ``time.perf_counter``; the latency counts from
                there, and from now without it.

        Returns:
            ``request_id``, ``bundle_id``, ``items`` (``item_id`` and ``score``, best first) and
            ``fallback`` (None, or the reason why no query vector was used; those of ``ON_PURPOSE``
            are no failures). With ``cursor`` in the request, that of the next page, None after the
            last one. Of a batch ``bundle_id`` and ``answers``, in the order of its requests.

        Raises:
            RequestError: The request, or one of a batch, is invalid.
        """
        return self._count_errors(self._recommend, body, arrived)

    def similar(self, body: Any, arrived: float | None = None) -> Answer:
        """Answer a request for items similar to one item, whoever asks.

        Args:
            body: The request as parsed JSON; see ``serving.request.SimilarRequest``.
            arrived: As in ``recommend``.

        Returns:
            As ``recommend``. The score is a cosine; ``fallback`` is None, or ``unknown_item`` where
            the bundle does not know the item, so that popular items are returned.

        Raises:
            RequestError: The request is invalid.
        """
        return self._count_errors(self._similar, body, arrived)

    def _recommend(self, body: Any, started: float) -> Answer:
        if is_about_item(body):
            return self._similar(body, started)
        if is_batch(body):
            answers = self._answer(parse_batch(body), started)
            return {"bundle_id": answers[0]["bundle_id"], "answers": answers}
        return self._answer([parse_request(body)], started)[0]

    def _similar(self, body: Any, started: float) -> Answer:
        return self._answer_similar(parse_similar(body), started)

    def _answer(self, requests: Sequence[Request], started: float) -> list[Answer]:
        """Answer requests from one snapshot: embed, apply rules, retrieve, score, slate, log."""
        snapshot = self.snapshot
        plans = [self._plan(snapshot, request) for request in requests]
        queries = self._embed(snapshot, [plan for plan in plans if plan.reason is None])
        answers = []
        for plan in plans:
            embedded = Embedded(None) if plan.reason else next(queries)
            pool = snapshot.find_pool(plan.request, plan.now)
            asked = plan.ask(embedded.query)
            embedded, slate = _compose(plan.stages, pool, asked, embedded)
            answers.append(self._finish(snapshot, plan, embedded, pool, slate, started))
        return answers

    def _answer_similar(self, wanted: SimilarRequest, started: float) -> Answer:
        snapshot = self.snapshot
        plan = self._plan(snapshot, wanted.as_request(), SIMILAR_ITEMS)
        pool = snapshot.find_pool(plan.request, plan.now)
        known = knows(pool, wanted.item_id)
        embedded = Embedded(None, None if known else Fallback.UNKNOWN_ITEM)
        asked = plan.ask(None, SIMILAR, (wanted.item_id,)) if known else plan.ask(None)
        embedded, slate = _compose(plan.stages, pool, asked, embedded)
        answer = self._finish(snapshot, plan, embedded, pool, slate, started)
        return answer | {"fallback": embedded.fallback}

    def _plan(self, snapshot: ServingSnapshot, request: Request, reason: str | None = None) -> Plan:
        """Check a request, and find out how it is answered."""
        snapshot.catalogue.check(request)
        now, shown = self._now(request), read_cursor(request.cursor)
        if shown:
            request = request.model_copy(update={"exclude": [*request.exclude, *shown]})
        bucket = None
        if reason is None and not request.personalised:
            reason = NOT_PERSONALISED
        elif reason is None:
            settings = self.settings
            if is_held_out(request.user_id, settings.holdout_share, settings.holdout_salt):
                reason = HOLDOUT
            else:
                bucket = find_bucket(settings.experiment, request.user_id)
        request_id = request.request_id or f"{random.getrandbits(128):032x}"
        stages = self._stages if bucket is None else self._buckets[bucket]
        return Plan(request, request_id, now, stages, bucket, reason, shown)

    def _finish(
        self,
        snapshot: ServingSnapshot,
        plan: Plan,
        embedded: Embedded,
        pool: Pool,
        slate: Slate,
        started: float,
    ) -> Answer:
        """Log and count one answer, and build it."""
        milliseconds = (time.perf_counter() - started) * 1000
        request, items, query = plan.request, slate.items, embedded.query
        failure = embedded.fallback.value if embedded.fallback else None
        first = len(plan.shown)
        self._count(plan, embedded, pool, slate, milliseconds)
        prediction = Prediction(
            request_id=plan.request_id,
            bundle_id=snapshot.bundle_id,
            embedding_version=snapshot.catalogue.bundle.manifest.embedding_version,
            user_id=request.user_id,
            time=plan.now,
            context=json.dumps(request.context),
            query_embedding=None if query is None else query.vector.tolist(),
            item_ids=[item_id for item_id, _ in items],
            scores=[score for _, score in items],
            fallback=failure or plan.reason,
            latency_ms=milliseconds,
            sources=slate.sources,
            positions=list(range(first, first + len(items))),
            propensities=slate.propensities,
            bucket=plan.bucket,
            repeat_item_ids=None if query is None else list(query.repeats),
            repeat_scores=None if query is None else list(query.repeats.values()),
        )
        if not _ends_list(plan, slate):
            self._log.put(prediction)
        answer: Answer = {
            "request_id": prediction.request_id,
            "bundle_id": prediction.bundle_id,
            "items": [{"item_id": item_id, "score": score} for item_id, score in items],
            "fallback": prediction.fallback,
        }
        if snapshot.is_baseline:
            answer["baseline"] = True
        if request.cursor is not None:
            shown = (*plan.shown, *prediction.item_ids)
            answer["cursor"] = write_cursor(shown) if len(items) == request.k else None
        if request.explain:
            weighed = plan.stages.weigh(pool.catalogue, query)
            why = explain(pool, request, plan.now, slate.rows, weighed)
            for item, reasons, source in zip(answer["items"], why, slate.sources, strict=True):
                item["why"] = {"source": source, **reasons}
        return answer

    def is_ready(self) -> bool:
        """Whether it wants requests; asks no other process.

        It does not where answers would rest on a feed that was not read; see
        ``LiveFeedSettings.unready_seconds``.
        """
        most = self.settings.feeds.unready_seconds
        return all(lag.is_ready(most) for lag in self._lags().values())

    def status(self) -> dict[str, Any]:
        """What is served now, for health checks; an unreachable model server is not an error."""
        return {
            "bundle_id": self.snapshot.bundle_id,
            "kind": self.snapshot.catalogue.bundle.manifest.kind,
            "towers": self._describe_towers(),
            "search": self._describe_search(),
            "live_items": len(self.snapshot.stock),
            "ready": self.is_ready(),
            "feeds": {feed: lag.report() for feed, lag in self._lags().items()},
        }

    def _describe_towers(self) -> str:
        """``available``, or what is missing; a query tower in process is never missing."""
        if not self.settings.model_server:
            return "query tower in process; no model server: newer listings wait"
        try:
            wanted = self._served_models(self.snapshot.catalogue.bundle)
            loaded = all(self._towers.is_available(name) for name in wanted)
            state = "available" if loaded else "not loaded"
        except RefitError as error:
            state = str(error)
        if state == "available" or not self._is_in_process:
            return state
        return f"query tower in process; item tower: {state}"

    @property
    def _is_in_process(self) -> bool:
        return self.settings.query_tower == "in_process"

    def _served_models(self, bundle: Bundle) -> dict[str, Path]:
        """The towers of a bundle that the model server has to serve."""
        models = models_of(bundle)
        if self._is_in_process:
            del models[TowerNames.of(bundle.manifest.embedding_version).query]
        return models

    def _find_query_tower(self, catalogue: Catalogue) -> QueryEmbedder:
        """The bundle's query tower, where the settings want it.

        Raises:
            RefitError: The bundle has none that runs in process.
        """
        bundle = catalogue.bundle
        if not self._is_in_process:
            name = TowerNames.of(bundle.manifest.embedding_version).query
            return ServedQueryTower(self._towers, name, catalogue.size)
        if not has_in_process_tower(bundle.query_tower):
            raise RefitError(
                f"query_tower: bundle {bundle.bundle_id} has no query tower that runs in process; "
                "set query_tower to model_server, or train again with train.in_process_tower"
            )
        return OwnQueryTower(InProcessTower(bundle.query_tower), catalogue.size)

    def _describe_search(self) -> str:
        remote = self.snapshot.remote
        if remote is None:
            return "embedded"
        return "engine" if remote.is_open else "the engine does not hold the bundle's items yet"

    def _lags(self) -> dict[str, FeedLag]:
        readers = {"stock": self.snapshot.stock.reader, "activity": self.snapshot.people.reader}
        return {feed: reader.lag for feed, reader in readers.items() if reader is not None}

    def _follow_feeds(self) -> list[threading.Thread]:
        """Threads that follow the feeds that there are."""
        feeds, threads = self.settings.feeds, []
        if feeds.stock:
            threads += [
                self._repeat(self._follow_stock, "stock", feeds.poll_seconds),
                self._repeat(self._embed_listings, "listings", feeds.listing_seconds),
            ]
        if feeds.activity:
            threads.append(self._repeat(self._follow_people, "activity", feeds.poll_seconds))
        if threads:
            threads.append(self._repeat(self._measure_lags, "lags", LAG_SECONDS))
        return threads

    def _measure_lags(self) -> None:
        for feed, lag in self._lags().items():
            lag.measure(feed, self.counters)

    def close(self) -> None:
        """Stop the threads, write the prediction log, and disconnect from the model server."""
        self._closing.set()
        for thread in self._threads:
            thread.join(JOIN_SECONDS)
        self.snapshot.close()
        self._log.close()
        self._towers.close()
        if self._engine:
            self._engine.close()

    def _now(self, request: Request) -> datetime:
        if request.time is None:
            return datetime.now(UTC)
        if not self.settings.allow_replay:
            raise RequestError("time: this server answers for now only (allow_replay is off)")
        return request.time

    def _embed(self, snapshot: ServingSnapshot, plans: Sequence[Plan]) -> Iterator[Embedded]:
        """The query tower's result for each request, in one call."""
        if not plans:
            return iter(())
        if not self._breaker.allows():
            return repeat(Embedded(None, Fallback.BREAKER_OPEN))
        try:
            timeout = self.settings.tower_deadline_ms / 1000
            asked = [(plan.request, plan.now) for plan in plans]
            queries = snapshot.embed(asked, timeout)
        except TowerFailure as failure:
            # A tower that refuses one request can still answer others.
            if failure.reason in (Fallback.REFUSED, Fallback.BAD_ANSWER):
                self._breaker.succeeded()
            else:
                self._breaker.failed()
            return repeat(Embedded(None, failure.reason))
        self._breaker.succeeded()
        return map(Embedded, queries)

    def _count_errors(
        self, answer: Callable[[Any, float], Answer], body: Any, arrived: float | None
    ) -> Answer:
        try:
            return answer(body, time.perf_counter() if arrived is None else arrived)
        except RequestError:
            self.counters.add("refit_bad_requests")
            raise
        except Exception:
            self.counters.add("refit_errors")
            raise

    def _count(
        self, plan: Plan, embedded: Embedded, pool: Pool, slate: Slate, milliseconds: float
    ) -> None:
        counts = [(key_of("refit_requests"), 1.0)]
        if embedded.fallback:
            counts.append((key_of("refit_fallbacks", reason=embedded.fallback.value), 1.0))
        elif plan.reason == HOLDOUT:
            counts.append((key_of("refit_holdout_answers"), 1.0))
        elif plan.reason == NOT_PERSONALISED:
            counts.append((key_of("refit_not_personalised_answers"), 1.0))
        if not slate.items and not _ends_list(plan, slate):
            counts.append((key_of("refit_empty_answers"), 1.0))
        for rule, removed in pool.removed.items():
            if removed:
                counts.append((key_of("refit_ineligible_items", rule=rule), removed))
        for source in dict.fromkeys(slate.sources):
            key = key_of("refit_shown_items", source=source)
            counts.append((key, slate.sources.count(source)))
        if slate.given_up is not None:
            counts.append((key_of("refit_slate_given_up"), max(slate.given_up, 0.0)))
        self.counters.add_all(counts)
        self.counters.time("refit_latency", milliseconds)

    def _start_counters(self) -> None:
        """Initialise the counters that rollouts compare, so that they are exported as 0."""
        self.counters.add("refit_requests", 0)
        self.counters.add("refit_errors", 0)
        if self.settings.holdout_share:
            self.counters.add("refit_holdout_answers", 0)
        for reason in Fallback:
            self.counters.add("refit_fallbacks", 0, reason=reason.value)

    def _open_first(self) -> ServingSnapshot:
        snapshot = self._open(
            self._registry.get(self.settings.bundle or self._registry.needed_champion_id())
        )
        try:
            self._load_first_towers(snapshot)
        except ServiceUnreachable as error:
            # It may start later; until then popularity answers, or the query tower in process.
            log_message(f"starting without the model server's towers: {error}")
        try:
            self._catch_up(snapshot)
        except ServiceUnreachable as error:
            # It is not ready before it has read its feeds; see status.
            log_message(f"starting without a feed: {error}")
        try:
            self._open_search(snapshot)
        except ServiceUnreachable as error:
            # It is looked for at every poll; until then popularity answers.
            log_message(f"starting without the engine that searches: {error}")
        self._set_in_service(snapshot, 1)
        log_message(f"serving bundle {snapshot.bundle_id}")
        return snapshot

    def _load_first_towers(self, snapshot: ServingSnapshot) -> None:
        """Load towers; retry for ``towers_wait_s`` while the model server is starting."""
        deadline = time.monotonic() + self.settings.towers_wait_s
        while True:
            try:
                self._load_towers(snapshot, beside=None)
            except ServiceUnreachable:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(min(self.settings.poll_seconds, 1.0))
            else:
                return self._warm_up_until_quick(snapshot, deadline)

    def _warm_up_until_quick(self, snapshot: ServingSnapshot, deadline: float) -> None:
        """Warm up the towers, so that the first requests do not open the breaker."""
        quick = self.settings.tower_deadline_ms / 1000 / 4
        for _ in range(WARM_UPS):
            started = time.monotonic()
            try:
                self._warm_up(snapshot)
            except TowerFailure:
                return  # it answered before; if it no longer does, popularity answers
            if time.monotonic() - started < quick or started >= deadline:
                return

    def _warm_up(self, snapshot: ServingSnapshot) -> None:
        for stages in (self._stages, *self._buckets.values()):
            snapshot.warm_up(stages)

    def _open(self, bundle: Bundle) -> ServingSnapshot:
        try:
            catalogue = Catalogue(bundle, StoredVectors.read if self._engine else ItemIndex.read)
        except RefitError:
            raise
        except Exception as error:  # a file that is whole but not what it should be
            raise RefitError(f"bundle {bundle.bundle_id} cannot be served: {error}") from error
        check_encoders(catalogue.features, self.settings.feeds.encoder_version)
        for stages in (self._stages, *self._buckets.values()):
            stages.check(catalogue)
        for rule in catalogue.rules.names:
            self.counters.add("refit_ineligible_items", 0, rule=rule)
        query_tower = self._find_query_tower(catalogue)
        settings, late_hours = self.settings, self.settings.feeds.late_hours
        ended = settings.feeds.ended_listings
        address = settings.feeds.stock
        lines = self._open_feed(catalogue, address, StockChange, self._stock_letters)
        stock = LiveStock(catalogue, lines, self._towers, self.counters, late_hours, ended)
        address = settings.feeds.activity
        events = self._open_feed(catalogue, address, ActivityEvent, self._activity_letters)
        people = LivePeople(catalogue, events, self.counters, settings.people, late_hours)
        always = settings.people.running_visit == "always"
        replay, remote = settings.allow_replay, self._find_remotely(catalogue)
        return ServingSnapshot.of(catalogue, stock, query_tower, people, always, replay, remote)

    def _find_remotely(self, catalogue: Catalogue) -> RemoteSearch | None:
        if self._engine is None:
            return None
        breaker = Breaker(self.settings.breaker_failures, self.settings.breaker_seconds)
        most = self.settings.engine.most
        return RemoteSearch(self._engine, catalogue, self.counters, most, breaker)

    def _open_search(self, snapshot: ServingSnapshot | None = None) -> None:
        """Search in the engine as soon as it holds the bundle's items.

        Raises:
            ServiceUnreachable: It does not answer, or does not hold them yet.
        """
        remote = (snapshot or self.snapshot).remote
        if remote is not None and not remote.is_open:
            remote.open()

    def _open_feed[T: FeedLine](
        self, catalogue: Catalogue, address: str, kind: type[T], letters: DeadLetters
    ) -> FeedReader[T] | None:
        feeds = self.settings.feeds
        since = catalogue.as_of - timedelta(hours=feeds.late_hours)
        feed = open_feed(address, feeds, since)
        ahead = None if self.settings.allow_replay else timedelta(seconds=feeds.ahead_seconds)
        return FeedReader(feed, kind, letters, ahead) if feed else None

    def _dead_letters(self, feed: str) -> DeadLetters:
        folder = self.settings.local_log / f"{feed}_dead_letters"
        path = folder / f"{uuid.uuid4().hex[:8]}.jsonl"
        # A full disk must not hold up the lines that follow.
        return DeadLetters(path, self.counters, f"refit_{feed}_dead_letters", only_count=True)

    def _catch_up(self, snapshot: ServingSnapshot) -> None:
        """Apply what the feeds said since the bundle was built, before it serves.

        Raises:
            ServiceUnreachable: A feed does not answer.
        """
        snapshot.stock.catch_up()
        snapshot.people.catch_up()
        snapshot.stock.embed_waiting()

    def _load_towers(self, snapshot: ServingSnapshot, beside: ServingSnapshot | None) -> None:
        """Make the model server load a snapshot's towers beside those that are still in use.

        Raises:
            ServiceUnreachable: The model server does not answer.
            RefitError: The towers cannot be loaded, or do not fit the index.
        """
        if self._is_in_process:
            # It needs no model server, whose absence must not hide that a bundle cannot answer.
            self._warm_up(snapshot)
        self._towers.check()
        models = self._models_of_previous_champion()
        for one in (beside, snapshot):
            models |= self._served_models(one.catalogue.bundle) if one else {}
        self._towers.serve_only(models, self.settings.load_timeout_s)
        try:
            self._warm_up(snapshot)
        except TowerFailure as failure:
            if failure.reason in (Fallback.UNREACHABLE, Fallback.SLOW):
                raise ServiceUnreachable(str(failure)) from None
            raise

    def _models_of_previous_champion(self) -> dict[str, Path]:
        """Towers that other processes with the same model server may still use."""
        promotion = None if self.settings.bundle else self._registry.champion()
        if promotion is None or promotion.previous is None:
            return {}
        try:
            models = self._served_models(self._registry.get(promotion.previous))
            return models if all(self._towers.is_available(name) for name in models) else {}
        except ServiceUnreachable:
            raise
        except RefitError:
            return {}  # pruned or corrupt: no process serves it

    def _follow_stock(self) -> None:
        self.snapshot.stock.catch_up()

    def _follow_people(self) -> None:
        self.snapshot.people.catch_up()

    def _embed_listings(self) -> None:
        self.snapshot.stock.embed_waiting()

    def _follow_champion(self) -> None:
        """Swap to a new champion, or make sure that the towers in service are loaded."""
        promotion = None if self.settings.bundle else self._registry.champion()
        if (
            promotion
            and promotion.bundle_id != self.snapshot.bundle_id
            and promotion.number not in self._refused
        ):
            self._swap(promotion)
        elif self._unload_at is not None and time.monotonic() >= self._unload_at:
            self._unload_at = None
            models = self._served_models(self.snapshot.catalogue.bundle)
            self._towers.serve_only(models, self.settings.load_timeout_s)
        else:
            self._reload_lost_towers()

    def _swap(self, promotion: Promotion) -> None:
        """Load the new champion, then replace the snapshot in one assignment."""
        # Checked first, so that the bundle is not opened in vain at every poll.
        self._towers.check()
        self._check_feeds()
        try:
            bundle = self._registry.get(promotion.bundle_id)
            if self._engine:
                self._engine.check(bundle)
            log_message(f"new champion {promotion.bundle_id}: loading")
            snapshot = self._open_next(bundle)
        except ServiceUnreachable:
            raise  # not the bundle's fault; retried at the next poll
        except RefitError as error:
            self._refused.add(promotion.number)
            self._unload_at = time.monotonic() + self.settings.unload_after_seconds
            self.counters.add("refit_bundles_refused")
            log_message(f"{promotion.bundle_id} refused, {self.snapshot.bundle_id} stays: {error}")
            return
        old, self.snapshot = self.snapshot, snapshot
        old.close()
        self._unload_at = time.monotonic() + self.settings.unload_after_seconds
        self.counters.add("refit_swaps")
        self._set_in_service(old, 0)
        self._set_in_service(snapshot, 1)
        log_message(f"serving bundle {snapshot.bundle_id} instead of {old.bundle_id}")

    def _open_next(self, bundle: Bundle) -> ServingSnapshot:
        """Open a bundle beside the one in service, up to date with the feeds."""
        with ExitStack() as opened:
            snapshot = self._open(bundle)
            opened.callback(snapshot.close)
            self._open_search(snapshot)
            self._load_towers(snapshot, beside=self.snapshot)
            self._catch_up(snapshot)
            opened.pop_all()
        return snapshot

    def _check_feeds(self) -> None:
        """Check that the feeds answer: a bundle that cannot read them knows less than this one.

        Raises:
            ServiceUnreachable: One does not.
        """
        if silent := [feed for feed, lag in self._lags().items() if not lag.answers]:
            raise ServiceUnreachable(f"the feed of {silent[0]} does not answer")

    def _reload_lost_towers(self) -> None:
        if not self.settings.model_server:
            return
        wanted = self._served_models(self.snapshot.catalogue.bundle)
        if not all(self._towers.is_available(name) for name in wanted):
            log_message("the model server no longer has the towers: loading them again")
            self._load_towers(self.snapshot, beside=None)
            self._breaker.succeeded()

    def _set_in_service(self, snapshot: ServingSnapshot, in_service: int) -> None:
        embedding_version = snapshot.catalogue.bundle.manifest.embedding_version
        self.counters.set(
            "refit_bundle_in_service",
            in_service,
            bundle_id=snapshot.bundle_id,
            embedding_version=embedding_version[:8],
        )

    def _repeat(self, work: Callable[[], None], name: str, seconds: float) -> threading.Thread:
        def run() -> None:
            last = ""
            while not self._closing.wait(seconds):
                try:
                    work()
                    last = ""
                except Exception as error:  # any failure is retried at the next poll
                    self.counters.add("refit_follow_failures", what=name)
                    if str(error) != last:
                        last = str(error)
                        log_message(f"{name}: {type(error).__name__}: {error}")

        thread = threading.Thread(target=run, name=name, daemon=True)
        thread.start()
        return thread


def _ends_list(plan: Plan, slate: Slate) -> bool:
    """Whether this is a page after the last: nothing was shown, and it is no answer of its own."""
    return bool(plan.shown) and not slate.items


def _compose(
    stages: Stages, pool: Pool, asked: AnswerRequest, embedded: Embedded
) -> tuple[Embedded, Slate]:
    """Run the stages; by popularity where the engine that searches gave no answer."""
    try:
        return embedded, stages.answer(pool, asked)
    except EngineFailure as failure:
        asked = replace(asked, query=None, retriever="", about=())
        return Embedded(None, failure.reason), stages.answer(pool, asked)


def _open_engine(settings: EngineSettings) -> SearchEngine | None:
    """The engine on other machines that searches; None: this process does."""
    if settings.weaviate is None:
        return None
    from serving.engines.weaviate import WeaviateEngine

    return WeaviateEngine(settings.weaviate)

"""The recommender: one request in, one answer out, always from one bundle."""

import hashlib
import json
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from refit.bundle import Bundle
from refit.errors import RefitError, ServiceUnreachable
from refit.prediction import HOLDOUT
from refit.progress import log_message
from refit.registry import DEFAULT_CACHE, Promotion, Registry
from serving.catalogue import Catalogue
from serving.counters import Counters
from serving.feeds.activity import ActivityEvent
from serving.feeds.dead_letters import DeadLetters
from serving.feeds.lag import FeedLag
from serving.feeds.lines import FeedLine, FeedReader
from serving.feeds.opening import open_feed
from serving.feeds.stock import StockChange
from serving.people import LivePeople
from serving.prediction_log import Prediction, PredictionLog
from serving.request import Request, RequestError, parse_request
from serving.settings import RecommenderSettings
from serving.snapshot import Recommendations, ServingSnapshot
from serving.stock import LiveStock
from serving.towers import Breaker, Fallback, TowerClient, TowerFailure, models_of

Answer = dict[str, Any]

JOIN_SECONDS = 2.0
LAG_SECONDS = 1.0
WARM_UPS = 20
"""Maximum number of warm-up calls; towers that are slow after them are used anyway."""


@dataclass(frozen=True)
class Query:
    """The query tower's result for a request: a vector, or the reason for a fallback."""

    vector: NDArray[np.float32] | None
    fallback: Fallback | None = None


def is_held_out(user_id: str | None, share: float, salt: str) -> bool:
    """Whether a person gets popularity for comparison; always the same for the same person."""
    if user_id is None or not share:
        return False
    digest = hashlib.sha256(f"{salt}:{user_id}".encode()).digest()
    return int.from_bytes(digest[:8]) < share * 2**64


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
        self._registry = Registry(settings.registry, settings.cache or DEFAULT_CACHE)
        self._towers = TowerClient(settings.model_server)
        self._breaker = Breaker(settings.breaker_failures, settings.breaker_seconds)
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
        )
        self._threads = [
            self._repeat(self._follow_stock, "stock", settings.feeds.poll_seconds),
            self._repeat(self._follow_people, "activity", settings.feeds.poll_seconds),
            self._repeat(self._embed_listings, "listings", settings.feeds.listing_seconds),
            self._repeat(self._measure_lags, "lags", LAG_SECONDS),
            self._repeat(self._follow_champion, "champion", settings.poll_seconds),
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def recommend(self, body: Any) -> Answer:
        """Answer one request.

        Args:
            body: The request as parsed JSON; see ``serving.request.Request``.

        Returns:
            ``request_id``, ``bundle_id``, ``items`` (``item_id`` and ``score``, best first) and
            ``fallback`` (None, or the reason why the model was not used; ``holdout`` is no
            failure).

        Raises:
            RequestError: The request is invalid.
        """
        try:
            return self._answer(body)
        except RequestError:
            self.counters.add("refit_bad_requests")
            raise
        except Exception:
            self.counters.add("refit_errors")
            raise

    def _answer(self, body: Any) -> Answer:
        started = time.perf_counter()
        snapshot = self.snapshot
        request = parse_request(body)
        snapshot.catalogue.check(request)
        now = self._now(request)
        held = is_held_out(request.user_id, self.settings.holdout_share, self.settings.holdout_salt)
        query = Query(None) if held else self._embed(snapshot, request, now)
        if query.vector is None:
            found = snapshot.popular(request, now)
        else:
            found = snapshot.rank(request, query.vector, now)
        items = found.items
        milliseconds = (time.perf_counter() - started) * 1000
        self._count(query, found, milliseconds)
        if held:
            self.counters.add("refit_holdout_answers")
        failure = query.fallback.value if query.fallback else None
        prediction = Prediction(
            request_id=request.request_id or uuid.uuid4().hex,
            bundle_id=snapshot.bundle_id,
            embedding_version=snapshot.catalogue.bundle.manifest.embedding_version,
            user_id=request.user_id,
            time=now,
            context=json.dumps(request.context),
            query_embedding=None if query.vector is None else query.vector.tolist(),
            item_ids=[item_id for item_id, _ in items],
            scores=[score for _, score in items],
            fallback=HOLDOUT if held else failure,
            latency_ms=milliseconds,
        )
        self._log.put(prediction)
        return {
            "request_id": prediction.request_id,
            "bundle_id": prediction.bundle_id,
            "items": [{"item_id": item_id, "score": score} for item_id, score in items],
            "fallback": prediction.fallback,
        }

    def status(self) -> dict[str, Any]:
        """What is served now, for health checks; an unreachable model server is not an error.

        ``ready`` is false where answers would rest on a feed that was not read; see
        ``LiveFeedSettings.unready_seconds``.
        """
        names = self.snapshot.names
        try:
            towers = all(self._towers.is_available(name) for name in (names.query, names.item))
            state = "available" if towers else "not loaded"
        except RefitError as error:
            state = str(error)
        lags = self._lags()
        most = self.settings.feeds.unready_seconds
        return {
            "bundle_id": self.snapshot.bundle_id,
            "towers": state,
            "live_items": len(self.snapshot.stock),
            "ready": all(lag.is_ready(most) for lag in lags.values()),
            "feeds": {feed: lag.report() for feed, lag in lags.items()},
        }

    def _lags(self) -> dict[str, FeedLag]:
        readers = {"stock": self.snapshot.stock.reader, "activity": self.snapshot.people.reader}
        return {feed: reader.lag for feed, reader in readers.items() if reader is not None}

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

    def _now(self, request: Request) -> datetime:
        if request.time is None:
            return datetime.now(UTC)
        if not self.settings.allow_replay:
            raise RequestError("time: this server answers for now only (allow_replay is off)")
        return request.time

    def _embed(self, snapshot: ServingSnapshot, request: Request, now: datetime) -> Query:
        if not self._breaker.allows():
            return Query(None, Fallback.BREAKER_OPEN)
        try:
            timeout = self.settings.tower_deadline_ms / 1000
            vector = snapshot.embed(self._towers, request, now, timeout)
        except TowerFailure as failure:
            # A tower that refuses one request can still answer others.
            if failure.reason in (Fallback.REFUSED, Fallback.BAD_ANSWER):
                self._breaker.succeeded()
            else:
                self._breaker.failed()
            return Query(None, failure.reason)
        self._breaker.succeeded()
        return Query(vector)

    def _count(self, query: Query, found: Recommendations, milliseconds: float) -> None:
        self.counters.add("refit_requests")
        self.counters.time("refit_latency", milliseconds)
        if query.fallback:
            self.counters.add("refit_fallbacks", reason=query.fallback.value)
        if not found.items:
            self.counters.add("refit_empty_answers")
        for rule, removed in found.removed.items():
            if removed:
                self.counters.add("refit_ineligible_items", removed, rule=rule)

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
            # The model server may start later; until then popularity answers.
            log_message(f"starting without towers: {error}")
        try:
            self._catch_up(snapshot)
        except ServiceUnreachable as error:
            # It is not ready before it has read its feeds; see status.
            log_message(f"starting without a feed: {error}")
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
                snapshot.warm_up(self._towers)
            except TowerFailure:
                return  # it answered before; if it no longer does, popularity answers
            if time.monotonic() - started < quick or started >= deadline:
                return

    def _open(self, bundle: Bundle) -> ServingSnapshot:
        try:
            catalogue = Catalogue(bundle)
        except RefitError:
            raise
        except Exception as error:  # a file that is whole but not what it should be
            raise RefitError(f"bundle {bundle.bundle_id} cannot be served: {error}") from error
        for rule in catalogue.rules.names:
            self.counters.add("refit_ineligible_items", 0, rule=rule)
        settings, late_hours = self.settings, self.settings.feeds.late_hours
        address = settings.stock_feed
        lines = self._open_feed(catalogue, address, StockChange, self._stock_letters)
        stock = LiveStock(catalogue, lines, self._towers, self.counters, late_hours)
        address = settings.feeds.activity
        events = self._open_feed(catalogue, address, ActivityEvent, self._activity_letters)
        people = LivePeople(catalogue, events, self.counters, settings.people, late_hours)
        always = settings.people.running_visit == "always"
        return ServingSnapshot.of(catalogue, stock, people, always, settings.allow_replay)

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
        return DeadLetters(path, self.counters, f"refit_{feed}_dead_letters")

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
        self._towers.check()
        models = self._models_of_previous_champion()
        for one in (beside, snapshot):
            models |= models_of(one.catalogue.bundle) if one else {}
        self._towers.serve_only(models, self.settings.load_timeout_s)
        try:
            snapshot.warm_up(self._towers)
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
            models = models_of(self._registry.get(promotion.previous))
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
            self._towers.serve_only(
                models_of(self.snapshot.catalogue.bundle), self.settings.load_timeout_s
            )
        else:
            self._reload_lost_towers()

    def _swap(self, promotion: Promotion) -> None:
        """Load the new champion, then replace the snapshot in one assignment."""
        # Checked first, so that the bundle is not opened in vain at every poll.
        self._towers.check()
        self._check_feeds()
        log_message(f"new champion {promotion.bundle_id}: loading")
        try:
            snapshot = self._open_next(promotion.bundle_id)
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

    def _open_next(self, bundle_id: str) -> ServingSnapshot:
        """Open a bundle beside the one in service, up to date with the feeds."""
        with ExitStack() as opened:
            snapshot = self._open(self._registry.get(bundle_id))
            opened.callback(snapshot.close)
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
        names = self.snapshot.names
        if not all(self._towers.is_available(name) for name in (names.query, names.item)):
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

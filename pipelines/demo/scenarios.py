"""The scenarios of the demo: a simulated marketplace, or real rentals replayed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.demo.settings import DemoSettings
from refit.dataset import EVENTS_FILE, ITEMS_FILE
from refit.files import write_atomically

if TYPE_CHECKING:
    from simulation.oracle import Oracle

Recommend = Callable[[dict[str, Any]], Mapping[str, Any] | None]
"""Sends one request to the server; None when it failed."""

Announce = Callable[[list[dict[str, Any]]], None]
"""Appends lines to the stock feed."""


@dataclass(frozen=True)
class DemoStep:
    """The outcome of one step of a scenario.

    Attributes:
        start, end: The period, UTC.
        answers: Number of requests that were answered.
        hits: Number of answers that led to a purchase or rental.
        events: The events of the period; those that follow an answer have its ``request_id``.
        truth: What only a simulation knows, such as the true chance of a sale of the lists shown.
    """

    start: datetime
    end: datetime
    answers: int
    hits: int
    events: pa.Table
    truth: dict[str, float] = field(default_factory=dict)


class DemoScenario(Protocol):
    """A marketplace that advances step by step and requests recommendations.

    Attributes:
        title: Of the demo's page.
        what: What the demo does, in two sentences.
        quality_means: What live quality counts, such as ``answers that led to a purchase``.
        outcome_means: What makes an answer count, such as ``a simulated purchase``.
        note: How to read the numbers.
        config: Name of the run configuration.
        unit: What one step is, such as ``day``.
    """

    title: str
    what: str
    quality_means: str
    outcome_means: str
    note: str
    config: str
    unit: str

    @property
    def now(self) -> datetime:
        """The end of the last step, UTC."""
        ...

    def data_options(self) -> list[str]:
        """``--set`` options that have a run read the data up to now."""
        ...

    def monitor_options(self) -> list[str]:
        """Options of ``refit monitor``: the events and items that it reads beside the log."""
        ...

    def live(self, recommend: Recommend, announce: Announce) -> DemoStep:
        """Advance by one step."""
        ...

    def truth(self) -> list[dict[str, Any]]:
        """The changes that the scenario's settings ask for."""
        ...

    def describe(self, item_id: str) -> str:
        """A short description of an item."""
        ...

    def chance_of_sale(
        self, user_id: str, context: Mapping[str, Any], items: Sequence[str], time: datetime
    ) -> float | None:
        """The true chance that a list ends in a purchase; None where nobody knows."""
        ...

    def gone_at(self) -> dict[str, datetime]:
        """When items were sold or withdrawn, by item id."""
        ...


class SimulatedScenario:
    """The simulated marketplace; a step is a day."""

    unit = "day"
    config = "simulated"
    title = "Refit: the loop on one machine, in a simulated marketplace"
    quality_means = "answers that led to a purchase"
    outcome_means = "a simulated purchase"
    note = "Everything here is simulated: shoppers, listings, sales and the change."

    def __init__(self, settings: DemoSettings) -> None:
        from simulation.marketplace import Marketplace

        changes = []
        if settings.change:
            day = settings.past_days + settings.change_step
            changes = [{"name": settings.change, "day": day}]
        self._settings = settings
        self._market = Marketplace(
            {
                "seed": settings.seed,
                "days": settings.past_days,
                "requests_per_day": settings.requests_per_step,
                "changes": changes,
            }
        )
        self._folder = settings.out / "data"
        self._written_until: datetime | None = None
        self._oracle: Oracle | None = None
        truth = self.truth()
        self.what = (
            f"A model was trained on {settings.window_days} days of a simulated second-hand "
            "marketplace, evaluated, and served with Seldon. Shoppers then requested "
            f"recommendations from it for {settings.live_steps} days."
            + (
                f" On day {truth[0]['day']} a change began: {truth[0]['does']}"
                if truth
                else " Nothing changed."
            )
        )

    @property
    def now(self) -> datetime:
        """Midnight after the last simulated day."""
        return self._market.now

    def data_options(self) -> list[str]:
        """Write the tables, and have a run read their latest days."""
        self._write()
        first = self.now - timedelta(days=self._settings.window_days)
        return [
            "--set",
            f"ingestion.path={self._folder}",
            "--set",
            f"ingestion.start={_iso(first)}",
            "--set",
            f"ingestion.end={self.now.isoformat()}",
        ]

    def monitor_options(self) -> list[str]:
        """All events, including those that follow an answer, and the items; windows are days."""
        return [
            f"--outcomes={self._folder / 'events.parquet'}",
            f"--items={self._folder / 'items.parquet'}",
        ]

    def live(self, recommend: Recommend, announce: Announce) -> DemoStep:
        """Simulate a day; sales are announced at once, new listings at the end of the day."""
        start = self._market.now

        def show(
            user_id: str,
            context: dict[str, str],
            history: list[dict[str, Any]],
            k: int,
            time: datetime,
        ) -> tuple[str, list[str]]:
            answer = recommend(
                {
                    "user_id": user_id,
                    "context": context,
                    "history": history,
                    "k": k,
                    "time": time,
                }
            )
            if answer is None:
                return "", []
            return answer["request_id"], [item["item_id"] for item in answer["items"]]

        def on_delisted(item_ids: list[str]) -> None:
            at = _iso(self._market.now)
            announce([{"item_id": i, "change": "delisted", "at": at} for i in item_ids])

        day = self._market.simulate_day(
            show,
            k=self._settings.k,
            on_delisted=on_delisted,
            concurrency=self._settings.at_once,
        )
        announce(
            [
                {**_plain(row), "change": "listed", "at": _iso(row["listed_at"])}
                for row in day.listed.to_pylist()
            ]
        )
        bought = day.events.filter(pc.equal(day.events["event_type"], "purchase"))
        requests = day.requests
        return DemoStep(
            start=start,
            end=self._market.now,
            answers=requests.num_rows,
            hits=len(pc.unique(bought["request_id"].drop_null())),
            events=day.events,
            truth={
                name: float(pc.mean(requests[name]).as_py() or 0.0)
                for name in ("chance_of_sale", "perfect_chance", "random_chance")
            },
        )

    def truth(self) -> list[dict[str, Any]]:
        """The change that the settings ask for."""
        return self._market.truth()

    def describe(self, item_id: str) -> str:
        """Title and price of a listing."""
        items = self._market.items_table()
        rows = items.filter(pc.equal(items["item_id"], item_id)).to_pylist()
        return f"{rows[0]['title']} ({rows[0]['price']:.0f} €)" if rows else item_id

    def chance_of_sale(
        self, user_id: str, context: Mapping[str, Any], items: Sequence[str], time: datetime
    ) -> float:
        """The true chance, for the stock as it was then."""
        from simulation.oracle import Oracle

        self._oracle = self._oracle or Oracle(self._market)
        return self._oracle.chance_of_sale(user_id, context, items, time)

    def gone_at(self) -> dict[str, datetime]:
        """When listings were sold or withdrawn."""
        items = self._market.items_table().select(["item_id", "delisted_at"])
        gone = items.filter(pc.is_valid(items["delisted_at"])).to_pydict()
        return dict(zip(gone["item_id"], gone["delisted_at"], strict=True))

    def _write(self) -> None:
        """Write the tables, unless those on disk are up to date."""
        from simulation.history import write_tables

        if self._written_until != self.now:
            write_tables(self._market, self._folder)
            self._written_until = self.now


class ReplayScenario:
    """Real rentals; a step is a week, and each rental is preceded by a request."""

    unit = "week"
    config = "renttherunway"
    title = "Refit: the loop on one machine, replaying real rentals"
    quality_means = "answers that contained the dress that was rented"
    outcome_means = "the rental that really happened (the answer contained it)"
    note = (
        "Real rentals (RentTheRunway, Misra et al. 2018), replayed: the users saw other lists "
        "then, so a hit means that the answer contained what they rented, not that it was the "
        "reason."
    )
    CUT = datetime(2017, 7, 1, tzinfo=UTC)

    def __init__(self, settings: DemoSettings) -> None:
        assert settings.data is not None  # DemoSettings checks it
        self._settings = settings
        self._rng = np.random.default_rng(settings.seed)
        self._now = self.CUT
        self._dataset = settings.out / "dataset"
        self._replayed = settings.out / "replayed"
        self._events, self._items, self._contexts = self._read(settings.data)
        self.what = (
            f"A model was trained on rentals before {self.CUT:%d %B %Y}, evaluated, and served "
            f"with Seldon. It then answered a request for each of a sample of the rentals in the "
            f"{settings.live_steps} weeks that followed. No change is simulated: what drifts here "
            "drifted in reality."
        )

    @property
    def now(self) -> datetime:
        """The end of the last week replayed."""
        return self._now

    def data_options(self) -> list[str]:
        """Have a run read the data up to now."""
        test = self._now - timedelta(days=28)
        validation = test - timedelta(days=28)
        return [
            "--set",
            f"ingestion.path={self._settings.data}",
            "--set",
            f"ingestion.validation_start={_iso(validation)}",
            "--set",
            f"ingestion.test_start={_iso(test)}",
            "--set",
            f"ingestion.end={_iso(self._now)}",
        ]

    def monitor_options(self) -> list[str]:
        """The rentals replayed, including hits, and the dresses; windows are weeks.

        Live quality is waived: 150 answers a week have too few hits to show that it fell.
        """
        return [
            f"--outcomes={self._replayed}",
            f"--items={self._dataset / ITEMS_FILE}",
            "--set",
            "monitoring.measure.window_days=7",
            "--set",
            "monitoring.policy.waived=[listing-embedding/*, live:*-rate/*]",
        ]

    def live(self, recommend: Recommend, announce: Announce) -> DemoStep:
        """Send a request for each of a sample of the next week's rentals.

        A rental that the answer contains is a hit.
        """
        start, end = self._now, self._now + timedelta(days=7)
        times = self._events["event_time"]
        week = self._events.filter(
            pc.and_(pc.greater_equal(times, pa.scalar(start)), pc.less(times, pa.scalar(end)))
        )
        n = min(self._settings.requests_per_step, week.num_rows)
        hits: list[str | None] = [None] * week.num_rows
        answers = 0
        for row in np.sort(self._rng.choice(week.num_rows, n, replace=False)).tolist():
            (rental,) = week.slice(row, 1).to_pylist()
            context = {name: rental[name] for name in self._contexts if rental[name] is not None}
            answer = recommend(
                {
                    "user_id": rental["user_id"],
                    "context": context,
                    "k": self._settings.k,
                    "time": rental["event_time"],
                }
            )
            if answer is None:
                continue
            answers += 1
            if any(item["item_id"] == rental["item_id"] for item in answer["items"]):
                hits[row] = answer["request_id"]
        self._now = end
        replayed = week.append_column("request_id", pa.array(hits, pa.string()))
        with write_atomically(self._replayed / f"{start:%Y-%m-%d}.parquet") as staging:
            pq.write_table(replayed, staging)
        return DemoStep(start, end, answers, sum(hit is not None for hit in hits), replayed)

    def truth(self) -> list[dict[str, Any]]:
        """No change is simulated."""
        return []

    def describe(self, item_id: str) -> str:
        """Category and id of a dress."""
        return f"{self._items.get(item_id, 'unknown')} {item_id}"

    def chance_of_sale(self, *_: Any) -> None:
        """Nobody knows."""

    def gone_at(self) -> dict[str, datetime]:
        """Dresses come back."""
        return {}

    def _read(self, data: Path) -> tuple[pa.Table, dict[str, str], tuple[str, ...]]:
        from components.ingestion.ingest import ingest
        from pipelines.settings import read_settings

        settings = read_settings(self.config, [f"ingestion.path={data}"]).ingestion
        manifest = ingest(settings, self._dataset)
        items = pq.read_table(self._dataset / ITEMS_FILE).to_pydict()
        names = dict(zip(items["item_id"], items["category_1"], strict=True))
        return pq.read_table(self._dataset / EVENTS_FILE), names, manifest.context_columns


def open_scenario(settings: DemoSettings) -> DemoScenario:
    """The scenario that the settings name, at its start."""
    return (
        SimulatedScenario(settings) if settings.source == "simulated" else ReplayScenario(settings)
    )


def _iso(time: datetime) -> str:
    return time.isoformat()


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {name: _iso(v) if isinstance(v, datetime) else v for name, v in row.items()}

"""A lived market under the monitor: every day is lived, measured and decided on."""

import copy
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from monitoring.monitor import MonitorInputs, MonitorOutcome, monitor
from monitoring.reference import Reference
from monitoring.settings import MonitorSettings
from monitoring.store import SqlStore
from refit.alert import Action, Alert
from refit.errors import GateRefused
from tests.benchmarks.drift.lived import LivedMarket

SETTINGS = MonitorSettings()
"""The defaults, which the benches judge."""
STORE = "alerts.sqlite"


def without_pictures() -> AbstractContextManager[Any]:
    """Pages get no pictures: nobody looks at them, and drawing takes longer than all the rest."""
    return patch("monitoring.review.pages.embed", lambda _: "")


@dataclass
class OperatedMarket:
    """A lived market, its alert store, and what the monitor decided.

    Attributes:
        market: The market.
        folder: The alert store and the pages are below it.
        settings: How it is measured and decided on.
        refits: Whether a refit that the monitor starts is carried out; otherwise its gate refuses.
        decisions: The monitor's outcomes by live day.
    """

    market: LivedMarket
    folder: Path
    settings: MonitorSettings = SETTINGS
    refits: bool = False
    decisions: list[MonitorOutcome] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.store = SqlStore(self.folder / STORE)
        self._reference = self._build_reference()

    def live(self, days: int, each_day: Callable[[], None] | None = None) -> None:
        """Live some days, and run the monitor after each."""
        for _ in range(days):
            self.market.live(1)
            inputs = MonitorInputs(
                bundle_id=f"{self.market.now:%Y%m%d}-{self.market.embedding_version}",
                reference=self._reference,
                data=self.market.data(),
                windows=self.market.windows(1),
            )
            with without_pictures():
                outcome = monitor(
                    self.settings,
                    inputs,
                    self.store,
                    self.folder / "pages",
                    self.market.now,
                    launch=self._launch,
                )
            self.decisions.append(outcome)
            if each_day is not None:
                each_day()

    def _launch(self, refit: object, alert: Alert) -> str:
        if not self.refits:
            raise GateRefused("the bench keeps its model")
        self.market.refit()
        self._reference = self._build_reference()
        return self.market.embedding_version

    def fork(self, folder: Path) -> "OperatedMarket":
        """An independent copy at the same moment, to live on in another way."""
        home = folder / "home"
        shutil.copytree(self.folder, home)
        other = copy.copy(self)
        other.market, other.folder = self.market.fork(folder / "market"), home
        other.store, other.decisions = SqlStore(home / STORE), list(self.decisions)
        return other

    def _build_reference(self) -> Reference:
        return Reference.read(self.market.build_reference(self.settings.measure))

    @property
    def alerts(self) -> list[Alert]:
        """Every alert, oldest first."""
        return self.store.alerts()[::-1]

    @property
    def evidence(self) -> tuple[float, ...]:
        """By day, the evidence that something drifts, as a share of what an alert needs."""
        return tuple(
            outcome.evidence.total / outcome.evidence.needed if outcome.evidence else 0.0
            for outcome in self.decisions
        )

    def count(self, action: Action) -> int:
        """On how many days the monitor decided so."""
        return sum(outcome.decision.action is action for outcome in self.decisions)

    def first_day(self, *actions: Action) -> int | None:
        """The first day, from 1, on which it decided to do one of these; None if it never did."""
        for day, outcome in enumerate(self.decisions, 1):
            if outcome.decision.action in actions:
                return day
        return None

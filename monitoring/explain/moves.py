"""Moves: which results moved in an incident, which did not, and of which that is not known."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from functools import cached_property

from monitoring.budget import add_evidence, mean_evidence
from refit.drift import DriftResult, DriftState, Window

LIVE = ("live:", "promotion:")
"""Rates of matured answers."""
FEED = "feed:"
SURE = 200.0
"""Evidence of a single result, in windows, from which on it moved."""
FAULT_RATE = 1e-6
_CLEAR = 1e-3
_RECENT = 3
_OUTCOMES_LATE = 2
"""Windows by which the rates of a window are about earlier answers: outcomes must be complete."""
_GAP = 2


@dataclass(frozen=True)
class Moves:
    """The results of the towers in service up to the newest window, by ``subject/statistic``.

    Attributes:
        series: Results by name, oldest first.
        windows: All windows, oldest first.
        before: Results of earlier towers.
    """

    series: Mapping[str, tuple[DriftResult, ...]]
    windows: tuple[Window, ...]
    before: tuple[DriftResult, ...] = ()

    @classmethod
    def of(cls, results: Iterable[DriftResult]) -> "Moves":
        """From results in any order; of a window that was measured twice the later one counts.

        What was not checked says nothing about a cause.
        """
        latest: dict[tuple[str, datetime, datetime, str], DriftResult] = {}
        for result in results:
            # By its bounds: to hash a window takes several times as long.
            bounds = result.window.start, result.window.end
            latest[result.name, *bounds, result.embedding_version] = result
        latest = {k: r for k, r in latest.items() if r.state is not DriftState.NOT_CHECKED}
        ordered = sorted(latest.values(), key=lambda r: (r.window.end, r.window.start, r.name))
        version = ordered[-1].embedding_version if ordered else ""
        series: dict[str, list[DriftResult]] = {}
        for result in ordered:
            if result.embedding_version == version:
                series.setdefault(result.name, []).append(result)
        return cls(
            {name: tuple(each) for name, each in series.items()},
            tuple(dict.fromkeys(r.window for each in series.values() for r in each)),
            tuple(r for r in ordered if r.embedding_version != version),
        )

    @cached_property
    def newest(self) -> Window:
        """The newest window."""
        return max(self.windows, key=lambda window: window.end)

    @cached_property
    def evidence(self) -> Mapping[str, float]:
        """By name the evidence of each result that has probabilities, see ``monitoring.budget``."""
        found = {}
        for name, each in self.series.items():
            grown: dict[int, float] = {}
            for result in each:
                if result.p_value is not None and not name.startswith(FEED):
                    add_evidence(grown, result)
            if grown:
                found[name] = mean_evidence(grown)
        return found

    def has_moved(self, name: str) -> bool | None:
        """Whether a result moved; None if that is not known."""
        each = self.series.get(name, ())
        measured = [result for result in each if result.value is not None]
        if not measured:
            return None
        if name.startswith(FEED):
            return any(is_fault(result) for result in each if self.is_recent(result))
        if name.startswith(LIVE):
            return _has_fallen(measured)
        drifted = [r for r in measured[-_RECENT:] if _drifts(r)]
        if self.evidence.get(name, 0.0) >= SURE and (
            len(drifted) >= 2 or any((r.p_value or 0.0) <= FAULT_RATE for r in drifted)
        ):
            return True
        if measured[-1].window == self.newest and not drifted:
            return False
        return None

    def is_recent(self, result: DriftResult) -> bool:
        """Whether a result is of the incident's windows."""
        return result.window.start >= self.began

    def any_moved(self, *patterns: str) -> bool | None:
        """True if any result of some patterns moved, False if all are known not to have."""
        states = [self.has_moved(name) for name in self.find(*patterns)]
        if any(states):
            return True
        return False if states and all(state is False for state in states) else None

    def most_moved(self, *patterns: str) -> bool | None:
        """As ``any_moved``, but a few results that are not known do not hide that none moved."""
        states = [self.has_moved(name) for name in self.find(*patterns)]
        if any(states):
            return True
        known = [state for state in states if state is not None]
        return False if known and len(known) > len(states) / 2 else None

    def find(self, *patterns: str) -> list[str]:
        """Names of the results that a shell pattern matches."""
        return [n for n in self.series if any(fnmatchcase(n, pattern) for pattern in patterns)]

    def list_moved(self, *patterns: str) -> list[str]:
        """Names of those that moved, the one with most evidence first."""
        names = [name for name in self.find(*(patterns or ("*",))) if self.has_moved(name)]
        return sorted(names, key=lambda name: (-self.evidence.get(name, 0.0), name))

    @cached_property
    def began(self) -> datetime:
        """Start of the first window of the incident: of the latest run of drift of what moved."""
        starts = []
        for name in self.series:
            start = self._find_start(name)
            if start is not None:
                late = _OUTCOMES_LATE if name.startswith(LIVE) else 0
                late += self.series[name][-1].pooled_windows - 1
                starts.append(start - late * (self.newest.end - self.newest.start))
        return min(starts, default=self.newest.start)

    def _find_start(self, name: str) -> datetime | None:
        """Start of the latest run of drift of a result that moved, or of a fault."""
        if name.startswith(FEED):
            return _find_start(self.series[name], self.windows, is_fault)
        if not self.has_moved(name):
            return None
        drifts = _is_drift if name.startswith(LIVE) else _drifts
        return _find_start(self.series[name], self.windows, drifts)

    @cached_property
    def first_moved(self) -> str:
        """The result that drifted first; of several the one with most evidence."""
        names = self.list_moved()
        if not names:
            return ""
        starts = {name: self._find_start(name) for name in names}
        return min(
            names,
            key=lambda n: (starts[n] or self.newest.end, -self.evidence.get(n, 0.0), n),
        )


def is_fault(result: DriftResult) -> bool:
    """Whether a result is a named fault of a feed, beyond chance."""
    drifts = result.state is DriftState.DRIFT
    return drifts and (result.p_value is None or result.p_value <= FAULT_RATE)


def _is_drift(result: DriftResult) -> bool:
    return result.state is DriftState.DRIFT


def _drifts(result: DriftResult) -> bool:
    return _is_drift(result) and (result.p_value is None or result.p_value <= _CLEAR)


def _has_fallen(measured: Sequence[DriftResult]) -> bool | None:
    """Whether a rate fell: in two of its latest windows, or once by half more than its bound."""
    recent = measured[-_RECENT:]
    fell = [r for r in recent if r.state is DriftState.DRIFT]
    if len(fell) >= 2 or any((r.value or 0.0) > 1.5 * (r.threshold or 0.0) for r in fell[-1:]):
        return True
    return False if not fell else None


def _find_start(
    each: Sequence[DriftResult],
    windows: Sequence[Window],
    drifts: Callable[[DriftResult], bool],
) -> datetime | None:
    """Start of the latest run of drift, with gaps of a window at most."""
    hit = {result.window for result in each if drifts(result)}
    start, gap = None, 0
    for window in reversed(windows):
        if window in hit:
            start, gap = window.start, 0
        elif start is not None or gap < _GAP:
            gap += 1
            if start is not None and gap >= _GAP:
                break
    return start

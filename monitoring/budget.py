"""The budget of false alerts: how much evidence an alert needs over all results and days.

Sixty results a day report drift by chance every day or two. So their probabilities become
**e-values**, whose mean is at most 1 where nothing drifts (calibrator: Vovk and Wang, 2021, their
mixture over all powers), and each result's evidence grows and shrinks as an **e-detector** of
Shiryaev and Roberts' form (Shin, Ramdas and Rinaldo, 2023). The mean of all detectors, weighted
by family of results, is again an e-detector, however the results depend on each other. A result
over several pooled windows shares rows with its neighbours, so that every so many of them make a
detector of their own, and its evidence is their mean. An alert
when it reaches a number of windows has at most one false alert in so many windows on average.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from monitoring.faults import PREFIX
from monitoring.settings import MeasureSettings, PolicySettings
from refit.drift import DriftResult
from refit.settings import Settings

DAYS_PER_MONTH = 30.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SMALLEST = 1e-12
"""Smaller probabilities count as this: how days vary is not known that far out."""


class Evidence(Settings):
    """The evidence of all results that something drifts, at the end of the newest window.

    Attributes:
        needed: Evidence that an alert needs, in windows.
        total: Evidence of all results together.
        shares: By ``subject/statistic`` its part of ``total``, the largest first.
        results: How many results share the budget.
        windows: Windows that it was collected over.
        alerts_per_month: False alerts that the budget allows.
        raised: Alerts that were raised in the last month.
    """

    needed: float
    total: float
    shares: dict[str, float]
    results: int
    windows: int
    alerts_per_month: float
    raised: int = 0

    @property
    def is_enough(self) -> bool:
        """Whether there is enough evidence for an alert."""
        return self.total >= self.needed

    @property
    def leading(self) -> tuple[str, ...]:
        """The results that carry the evidence: each at least a tenth of what an alert needs."""
        return tuple(name for name, share in self.shares.items() if share >= self.needed / 10)

    def describe(self) -> str:
        """The budget and what was spent of it, in a sentence."""
        return (
            f"evidence {self.total:.3g} of the {self.needed:.3g} that an alert needs, so that "
            f"{self.results} results together raise at most {self.alerts_per_month:g} false alerts "
            f"a month; {self.raised} alerts were raised in the last 30 days"
        )


def to_e_value(p_value: float) -> float:
    """The e-value of a probability: the integral of k p^(k-1) over k from 0 to 1.

    Source: Vovk and Wang, E-values: calibration, combination and applications, 2021.
    """
    p = min(max(p_value, _SMALLEST), 1.0)
    if p > 1 - 1e-4:  # the limit at 1, where the formula divides by 0
        return 0.5
    log = math.log(p)
    return (1 - p + p * log) / (p * log**2)


def collect_evidence(
    policy: PolicySettings,
    measure: MeasureSettings,
    results: Sequence[DriftResult],
    since: Mapping[str, datetime] | None = None,
    raised: int = 0,
) -> Evidence:
    """Collect the evidence of all results up to the newest window.

    Args:
        policy: The budget.
        measure: The length of a window.
        results: Of all windows of these towers, in any order. Named faults of feeds have limits
            of their own, and take no part.
        since: By ``subject/statistic``, from when on its evidence counts: an alert that was
            resolved starts it again.
        raised: Alerts of the last month, to be reported beside the budget.
    """
    detectors: dict[str, dict[int, float]] = {}
    ordered = sorted(
        (r for r in results if r.p_value is not None and not r.subject.startswith(PREFIX)),
        key=lambda r: (r.window.end, r.name),
    )
    for result in ordered:
        grown = detectors.setdefault(result.name, {})
        if since and result.name in since and result.window.end <= since[result.name]:
            continue
        add_evidence(grown, result)
    weights = weigh_families(detectors)
    shares = {name: weights[name] * mean_evidence(each) for name, each in detectors.items()}
    return Evidence(
        needed=DAYS_PER_MONTH / measure.window_days / policy.alerts_per_month,
        total=sum(shares.values()),
        shares=dict(sorted(shares.items(), key=lambda pair: (-pair[1], pair[0]))),
        results=len(detectors),
        windows=len({result.window.end for result in ordered}),
        alerts_per_month=policy.alerts_per_month,
        raised=raised,
    )


def add_evidence(grown: dict[int, float], result: DriftResult) -> None:
    """Let the evidence of a result grow by its next window.

    Args:
        grown: Evidence by place: results that pool k windows make k detectors, each of which gets
            a window in k, and counts it as k.
        result: With a probability.
    """
    assert result.p_value is not None
    pooled = result.pooled_windows
    length = result.window.end - result.window.start
    place = round((result.window.end - _EPOCH) / length) % pooled
    for each in range(pooled):
        grown.setdefault(each, 0.0)
    grown[place] = min((pooled + grown[place]) * to_e_value(result.p_value), 1e12)


def mean_evidence(grown: Mapping[int, float]) -> float:
    """The evidence of a result over all of its detectors."""
    return sum(grown.values()) / max(len(grown), 1)


def weigh_families(names: Iterable[str]) -> dict[str, float]:
    """By ``subject/statistic`` its part of the budget.

    Families share it equally, and so do the results of a family, so that many input columns do not
    drown the embeddings.
    """
    families: dict[str, list[str]] = {}
    for name in names:
        families.setdefault(find_family(name), []).append(name)
    return {
        name: 1 / len(families) / len(members) for members in families.values() for name in members
    }


def find_family(name: str) -> str:
    """The family of a result: what comes before its column, such as ``input:items`` or ``mix``."""
    subject = name.split("/")[0]
    return subject.split(".")[0] if subject.startswith("input:") else subject.split(":")[0]

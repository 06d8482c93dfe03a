"""Request counts of a predictor's pods, parsed from their Prometheus metrics.

Counters start at zero with the container. The counts of each pod at the start of a comparison are
stored and subtracted. If a pod's counts are lower than the stored ones, its container has been
restarted, and nothing is subtracted.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from components.deployment.canary import Proportion
from refit.settings import Settings

LATENCY = "refit_latency_bucket"

Labels = Mapping[str, str]


class Counts(Settings):
    """Request counts of one or more pods; None if unknown.

    Attributes:
        requests: Answered requests.
        errors: Failed requests, which are not part of ``requests``.
        fallbacks: Those of ``requests`` that the popularity fallback answered.
        timed: Those of ``requests`` whose latency was measured.
        slow: Those of ``timed`` that were slow.
    """

    requests: float | None = None
    errors: float | None = None
    fallbacks: float | None = None
    timed: float | None = None
    slow: float | None = None

    def since(self, before: "Counts") -> "Counts":
        """The difference to ``before``; all counts if the container has been restarted since."""
        now, then = self.model_dump(), before.model_dump()
        known = [name for name in now if now[name] is not None and then[name] is not None]
        if any(now[name] < then[name] for name in known):
            return self
        return Counts(
            **{name: now[name] - (then[name] or 0) for name in now if now[name] is not None}
        )

    @property
    def error_rate(self) -> Proportion:
        """Failed requests among all requests."""
        known = self.requests is not None and self.errors is not None
        total = (self.requests or 0) + (self.errors or 0) if known else None
        return Proportion(bad=self.errors, total=total)

    @property
    def fallback_rate(self) -> Proportion:
        """Fallbacks among answered requests."""
        return Proportion(bad=self.fallbacks, total=self.requests)

    @property
    def slow_rate(self) -> Proportion:
        """Slow requests among timed requests."""
        return Proportion(bad=self.slow, total=self.timed)


def sum_counts(counts: Sequence[Counts]) -> Counts:
    """Sum over pods; a count that is unknown for one pod is unknown in the sum."""
    sums: dict[str, float] = {}
    for name in Counts.model_fields:
        values = [getattr(one, name) for one in counts]
        if values and all(value is not None for value in values):
            sums[name] = math.fsum(values)
    return Counts(**sums)


def read_counts(text: str | None, slow_ms: float) -> Counts:
    """Parse one pod's metrics; counts that are missing or invalid are unknown.

    Args:
        text: Metrics in Prometheus' text format; None if the pod did not respond.
        slow_ms: Latency in milliseconds above which an answer is slow, rounded up to the next
            bucket bound of the histogram.
    """
    from prometheus_client.parser import text_string_to_metric_families

    try:
        samples = [
            (sample.name, sample.labels, sample.value)
            for family in text_string_to_metric_families(text or "")
            for sample in family.samples
        ]
    except ValueError:
        return Counts()
    timed = _sum(samples, LATENCY, lambda labels: labels["le"] == "+Inf")
    bounds = {float(labels["le"]) for name, labels, _ in samples if name == LATENCY}
    bound = min((b for b in bounds if b * 1000 >= slow_ms), default=math.inf)
    fast = _sum(samples, LATENCY, lambda labels: float(labels["le"]) == bound)
    return Counts(
        requests=_sum(samples, "refit_requests_total"),
        errors=_sum(samples, "refit_errors_total"),
        fallbacks=_sum(samples, "refit_fallbacks_total"),
        timed=timed,
        slow=None if timed is None or fast is None or bound == math.inf else timed - fast,
    )


def _sum(
    samples: Iterable[tuple[str, Labels, float]],
    name: str,
    wanted: Callable[[Labels], bool] = lambda labels: True,
) -> float | None:
    """Sum a metric over a pod's worker processes; None if it is missing or not finite."""
    values = [value for found, labels, value in samples if found == name and wanted(labels)]
    total = math.fsum(values) if values else math.nan
    return total if math.isfinite(total) else None

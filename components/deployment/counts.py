"""What the pods of an arm have answered, from the text that they show to Prometheus.

Counters run since a container's start. Those of each pod at the beginning of a comparison are kept
and subtracted; a pod that shows less than then has been restarted and counts from zero.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from components.deployment.canary import Proportion
from refit.settings import Settings

LATENCY = "refit_latency_bucket"

Labels = Mapping[str, str]


class Counts(Settings):
    """Requests of some pods since a moment; None is not known.

    Attributes:
        requests: Answered ones.
        errors: Failed ones, which are not among ``requests``.
        fallbacks: Of ``requests``, those that popularity answered.
        timed: Of ``requests``, those whose time is known.
        slow: Of ``timed``, the slow ones.
    """

    requests: float | None = None
    errors: float | None = None
    fallbacks: float | None = None
    timed: float | None = None
    slow: float | None = None

    def since(self, before: "Counts") -> "Counts":
        """What came after ``before``; all of it when the pod was restarted meanwhile."""
        now, then = self.model_dump(), before.model_dump()
        known = [name for name in now if now[name] is not None and then[name] is not None]
        if any(now[name] < then[name] for name in known):
            return self
        return Counts(
            **{name: now[name] - (then[name] or 0) for name in now if now[name] is not None}
        )

    @property
    def error_share(self) -> Proportion:
        """Of all that were asked, those that failed."""
        asked = (
            None if self.requests is None or self.errors is None else self.requests + self.errors
        )
        return Proportion(bad=self.errors, of=asked)

    @property
    def fallback_share(self) -> Proportion:
        """Of what was answered, what popularity answered."""
        return Proportion(bad=self.fallbacks, of=self.requests)

    @property
    def slow_share(self) -> Proportion:
        """Of what was timed, what was slow."""
        return Proportion(bad=self.slow, of=self.timed)


def add_up(counts: Sequence[Counts]) -> Counts:
    """The sum over pods; what one of them does not know nobody knows."""
    sums: dict[str, float] = {}
    for name in Counts.model_fields:
        values = [getattr(one, name) for one in counts]
        if values and all(value is not None for value in values):
            sums[name] = math.fsum(values)
    return Counts(**sums)


def read_counts(text: str | None, slow_ms: float) -> Counts:
    """Read one pod's metrics; what cannot be read is not known.

    Args:
        text: In Prometheus' text format; None when the pod did not answer.
        slow_ms: An answer above the first histogram bound from it on is slow.
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
    quick = _sum(samples, LATENCY, lambda labels: float(labels["le"]) == bound)
    return Counts(
        requests=_sum(samples, "refit_requests_total"),
        errors=_sum(samples, "refit_errors_total"),
        fallbacks=_sum(samples, "refit_fallbacks_total"),
        timed=timed,
        slow=None if timed is None or quick is None or bound == math.inf else timed - quick,
    )


def _sum(
    samples: Iterable[tuple[str, Labels, float]],
    name: str,
    wanted: Callable[[Labels], bool] = lambda labels: True,
) -> float | None:
    """A metric over a pod's worker processes; None when it shows none, or no number."""
    values = [value for found, labels, value in samples if found == name and wanted(labels)]
    total = math.fsum(values) if values else math.nan
    return total if math.isfinite(total) else None

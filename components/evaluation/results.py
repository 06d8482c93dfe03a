"""What judging measured: the content of metrics.json, and all that the gate looks at.

A number that was not measured, or came out as no number, is None.
"""

import math
from typing import Any

from pydantic import field_validator

from refit.settings import Settings


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


class Interval(Settings):
    """A measurement with its 95% interval."""

    value: float | None = None
    low: float | None = None
    high: float | None = None

    _no_nan = field_validator("value", "low", "high")(_finite)


class Exposure(Settings):
    """How widely a method's lists of the longest cut are spread."""

    coverage: float | None = None
    item_gini: float | None = None
    seller_gini: float | None = None

    _no_nan = field_validator("coverage", "item_gini", "seller_gini")(_finite)


class Method(Settings):
    """How one way to recommend did on the test queries.

    Attributes:
        kind: ``model``, ``champion`` or ``baseline``.
        not_run: Why it was not run; empty when it was.
        tuned: What tuning on the validation split chose, in words.
        not_finite: Scores that were no finite number.
        gain: The model's metrics minus this method's, paired; empty for the model itself.
    """

    name: str
    kind: str
    not_run: str = ""
    tuned: dict[str, Any] = {}
    metrics: dict[str, Interval] = {}
    gain: dict[str, Interval] = {}
    exposure: Exposure = Exposure()
    not_finite: int | None = None


class SliceResult(Settings):
    """How the methods did on a part of the test queries, on the deciding metric.

    Attributes:
        metrics: Method name to its interval.
    """

    name: str
    n: int
    metrics: dict[str, Interval] = {}


class IndexResult(Settings):
    """What the index is worth, as recorded with it and as measured here.

    Attributes:
        embedding_version: The towers that the index says it was made with.
        recorded_recall: recall@100 against exact search, from index.json.
        recall: The same, measured here on the vectors of test queries.
        p50_ms, p99_ms: Time of one search on one thread, measured here.
        vector_gap: Largest difference of sampled index vectors from the item tower's answer.
        n: Searches measured.
        why: What kept a number from being measured.
    """

    embedding_version: str | None = None
    recorded_recall: float | None = None
    recall: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    vector_gap: float | None = None
    n: int = 0
    why: str = ""

    _no_nan = field_validator("recorded_recall", "recall", "p50_ms", "p99_ms", "vector_gap")(
        _finite
    )


class SmokeResult(Settings):
    """What a real model server answered for the query tower.

    Attributes:
        gap: Largest difference from the model's own answer.
        why: What kept it from being measured.
    """

    gap: float | None = None
    n: int = 0
    why: str = ""

    _no_nan = field_validator("gap")(_finite)


class Results(Settings):
    """Everything that was measured about a model.

    Attributes:
        protocol: How the ranking was done, in words and numbers.
        n_queries, n_users: What the main table rests on.
        left_out: Queries that were left out of it, by reason: an eligibility rule that removes
            their positive item, or that the item was not seen.
        removed: How many candidates each eligibility rule removed, over all test queries, of those
            that no earlier rule had removed.
        embedding_version: Identity of the model's towers, from model.json.
        methods: The model first, then baselines and champion.
        slices: Parts of the test queries.
    """

    protocol: dict[str, Any]
    n_queries: int
    n_users: int
    left_out: dict[str, int] = {}
    removed: dict[str, int] = {}
    embedding_version: str | None = None
    methods: tuple[Method, ...] = ()
    slices: tuple[SliceResult, ...] = ()
    index: IndexResult = IndexResult()
    smoke: SmokeResult = SmokeResult()

    def of_kind(self, kind: str) -> tuple[Method, ...]:
        """The methods of a kind that were run."""
        return tuple(m for m in self.methods if m.kind == kind and not m.not_run)

    def best_baseline(self, metric: str) -> Method | None:
        """The baseline with the highest value of a metric."""
        known = [m for m in self.of_kind("baseline") if _value(m, metric) is not None]
        return max(known, key=lambda m: _value(m, metric) or 0.0, default=None)


def _value(method: Method, metric: str) -> float | None:
    return method.metrics.get(metric, Interval()).value

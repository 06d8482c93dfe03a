"""The measurements of an evaluation: the content of metrics.json, and the input of the gate.

A value that was not measured, or is not finite, is None.
"""

import math
from typing import Any

from pydantic import field_validator

from refit.settings import Settings

MODEL = "model"
CHAMPION = "champion"
"""Names of the two methods that are no baselines."""


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


class Interval(Settings):
    """A measurement with its 95% interval."""

    value: float | None = None
    low: float | None = None
    high: float | None = None

    _no_nan = field_validator("value", "low", "high")(_finite)


class Exposure(Settings):
    """How widely a method's lists of the longest cut are spread over items and sellers."""

    coverage: float | None = None
    item_gini: float | None = None
    seller_gini: float | None = None

    _no_nan = field_validator("coverage", "item_gini", "seller_gini")(_finite)


class Method(Settings):
    """The results of one method on the test queries.

    Attributes:
        kind: ``model``, ``champion`` or ``baseline``.
        extension: A baseline's name in ``evaluation.baselines``.
        not_run: Why it was not run; empty if it was.
        tuned: What tuning on the validation split chose, by parameter.
        not_finite: Scores that were no finite number.
        gain: The model's metrics minus this method's, paired; empty for the model itself.
    """

    name: str
    kind: str
    extension: str = ""
    not_run: str = ""
    tuned: dict[str, Any] = {}
    metrics: dict[str, Interval] = {}
    gain: dict[str, Interval] = {}
    exposure: Exposure = Exposure()
    not_finite: int | None = None


class SliceResult(Settings):
    """The primary metric of every method on a part of the test queries.

    Attributes:
        metrics: Method name to its interval.
    """

    name: str
    n: int
    metrics: dict[str, Interval] = {}


class IndexResult(Settings):
    """The quality of the index, as recorded in it and as measured here.

    Attributes:
        embedding_version: The towers that the index was built with, from index.json.
        recorded_recall: recall@100 against exact search, from index.json.
        recall: The same, measured here on the vectors of test queries.
        p50_ms, p99_ms: Duration of one search on one thread, measured here.
        vector_gap: Largest difference between sampled index vectors and the item tower's output.
        n: Searches measured.
        why: Why a value was not measured.
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
    """The answers of a model server, compared with the query tower's own output.

    Attributes:
        gap: Largest difference of a vector's entry.
        n: Queries compared.
        why: Why it was not measured.
    """

    gap: float | None = None
    n: int = 0
    why: str = ""

    _no_nan = field_validator("gap")(_finite)


class PositiveInHistory(Settings):
    """The share of test queries whose positive item stands in their history, by its newest age.

    Attributes:
        within_hour: Its newest event is less than an hour old.
        within_day: Less than a day, but not less than an hour.
        older: A day or more.
        n: Test queries.
    """

    within_hour: float | None = None
    within_day: float | None = None
    older: float | None = None
    n: int = 0

    _no_nan = field_validator("within_hour", "within_day", "older")(_finite)


class Results(Settings):
    """All measurements of a model.

    Attributes:
        protocol: How the ranking was done.
        n_queries, n_users: The size of the test set.
        left_out: Queries that were left out of it, by reason: the eligibility rule that removes
            their positive, or that the item was not seen.
        removed: By eligibility rule, how many candidates it removed that no earlier rule had
            removed, over all test queries.
        embedding_version: Of the model's towers, from model.json.
        methods: The model first, then the champion and the baselines.
        slices: Parts of the test queries.
        index: The quality of the index.
        smoke: The comparison with a model server.
        positive_in_history: What the histories knew of the positive items.
        undeclared: See ``FeaturesManifest.undeclared``.
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
    positive_in_history: PositiveInHistory = PositiveInHistory()
    undeclared: tuple[str, ...] | None = None

    def of_kind(self, kind: str) -> tuple[Method, ...]:
        """The methods of a kind that were run."""
        return tuple(m for m in self.methods if m.kind == kind and not m.not_run)

    def best_baseline(self, metric: str) -> Method | None:
        """The baseline with the highest value of a metric; None if none was measured."""
        measured = [m for m in self.of_kind("baseline") if _value(m, metric) is not None]
        return max(measured, key=lambda m: _value(m, metric) or 0.0, default=None)


def _value(method: Method, metric: str) -> float | None:
    return method.metrics.get(metric, Interval()).value

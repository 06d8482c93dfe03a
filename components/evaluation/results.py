"""The measurements of an evaluation: the content of metrics.json, and the input of the gate.

A value that was not measured, or is not finite, is None.
"""

import math
from typing import Any

from pydantic import field_validator

from refit.ledger import Looks
from refit.model import ModelKind
from refit.settings import Settings

MODEL = "model"
CHAMPION = "champion"
"""Names of the two methods that are no baselines."""


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


class Interval(Settings):
    """A measurement with its 95% interval, and its standard error over users."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    se: float | None = None

    _no_nan = field_validator("value", "low", "high", "se")(_finite)


class Exposure(Settings):
    """How widely a method's lists are spread over items and sellers.

    Attributes:
        coverage: Share of the candidates in lists of the longest cut.
        item_gini, seller_gini: Gini coefficients of their exposure there.
        head_share: Share of the places of the shortest cut that the most-shown 1% of the
            candidates take.
        repetition: Share of these places that show an item again to the same user; only lists
            after a user's first are counted.
    """

    coverage: float | None = None
    item_gini: float | None = None
    seller_gini: float | None = None
    head_share: float | None = None
    repetition: float | None = None

    _no_nan = field_validator("coverage", "item_gini", "seller_gini", "head_share", "repetition")(
        _finite
    )


class ExposureShare(Settings):
    """How often a part of the stock is shown, against how much of the stock it is.

    Attributes:
        part: Such as ``new listings``, ``small sellers`` or ``size: M``.
        stock: Its share of the live items, averaged over the queries.
        exposure: Its share of the places in the lists.
    """

    part: str
    stock: float | None
    exposure: float | None

    _no_nan = field_validator("stock", "exposure")(_finite)

    @property
    def ratio(self) -> float | None:
        """Exposure over stock: 1 where the part is shown as often as it is there."""
        return None if not self.stock or self.exposure is None else self.exposure / self.stock


class ReliabilityBin(Settings):
    """List places with similar scores: the probability they promise, and what happened.

    Attributes:
        promised: Mean probability that the score stands for.
        happened: Share of the places whose item was chosen.
        n: Number of places.
    """

    promised: float
    happened: float
    n: int


class Beyond(Settings):
    """What accuracy does not see of a method's lists; see ``beyond_accuracy``.

    Attributes:
        values: Measurements by name; None where it could not be measured.
        why: Why, for those.
        parts: Shares of exposure and stock.
        reliability: The score as a probability, on the later half of the test queries.
    """

    values: dict[str, float | None] = {}
    why: dict[str, str] = {}
    parts: tuple[ExposureShare, ...] = ()
    reliability: tuple[ReliabilityBin, ...] = ()


class Method(Settings):
    """The results of one method on the test queries.

    Attributes:
        kind: ``model``, ``champion`` or ``baseline``.
        extension: A baseline's name in ``evaluation.baselines``.
        not_run: Why it was not run; empty if it was.
        excused: Why it need not run, from ``evaluation.baselines.excused``.
        tuned: What tuning on the validation split chose, by parameter.
        not_finite: Scores that were no finite number.
        gain: The model's metrics minus this method's, paired; empty for the model itself.
        compared: For a champion, its own metrics on the queries that the gain is measured on:
            those that neither it nor the model has been trained on.
        n_compared, users_compared: The number of these queries, and of their users.
        seen_until: End of the data that a champion was trained and tuned on, ISO 8601; empty if
            it is not known.
    """

    name: str
    kind: str
    extension: str = ""
    not_run: str = ""
    excused: str = ""
    tuned: dict[str, Any] = {}
    metrics: dict[str, Interval] = {}
    gain: dict[str, Interval] = {}
    compared: dict[str, Interval] = {}
    n_compared: int | None = None
    users_compared: int | None = None
    seen_until: str = ""
    exposure: Exposure = Exposure()
    beyond: Beyond = Beyond()
    not_finite: int | None = None


class SliceResult(Settings):
    """The primary metric and the guard metric of every method on a part of the test queries.

    Attributes:
        n, n_users: Queries of the slice, and their users.
        metrics: Method name to its interval, of the primary metric.
        gain: By the name of a champion or a baseline, the model's metric minus its own, paired.
        guard, guard_gain: The same of the guard metric; without champions.
    """

    name: str
    n: int
    n_users: int = 0
    metrics: dict[str, Interval] = {}
    gain: dict[str, Interval] = {}
    guard: dict[str, Interval] = {}
    guard_gain: dict[str, Interval] = {}


class BaselineWin(Settings):
    """A part of the test queries on which a baseline has a higher value than the model.

    Attributes:
        slice: The part, or ``all queries``.
        n: Its queries.
        baseline: The best one there.
        value, model: Values of the primary metric of the baseline and of the model.
        gain: The model's minus the baseline's, paired.
    """

    slice: str
    n: int
    baseline: str
    value: float
    model: float
    gain: Interval = Interval()

    @property
    def lost(self) -> float:
        """How much the model loses there, in queries."""
        return self.n * (self.value - self.model)

    @property
    def shown(self) -> bool:
        """Whether the interval of the gain is below 0, so that chance does not explain it."""
        return self.gain.high is not None and self.gain.high < 0


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
    """The answers of a model server, compared with a tower's own output.

    Attributes:
        gap: Largest difference of a vector's entry.
        n: Queries, or items, compared.
        why: Why it was not measured.
    """

    gap: float | None = None
    n: int = 0
    why: str = ""

    _no_nan = field_validator("gap")(_finite)


class Freshness(Settings):
    """Ages in days at a moment; None where it is not known.

    Attributes:
        as_of: The moment, ISO 8601.
        trained_until: End of the examples that the model was trained on; empty if unknown.
        model_days, index_days, test_days: Age of the model's newest example, of the index's items,
            and of the last test query.
        overlap_days: By how much the training reaches into the test window; negative where it
            ends before.
    """

    as_of: str = ""
    trained_until: str = ""
    model_days: float | None = None
    index_days: float | None = None
    test_days: float | None = None
    overlap_days: float | None = None

    _no_nan = field_validator("model_days", "index_days", "test_days", "overlap_days")(_finite)


class GroupWorth(Settings):
    """How far the primary metric falls without a group of inputs; see ``leaks``.

    Attributes:
        name: Such as ``items.price`` or ``history.last_hour``.
        kind: ``history``, ``popularity``, ``age``, ``id``, ``item``, ``user`` or ``context``.
        static: Whether the config declares the column as constant.
        fall: The metric minus that with the group permuted or cut, paired by query.
        share: The fall as a share of the gain over popularity; 0 if chance explains it.
        limited: Whether the gate limits the share.
    """

    name: str
    kind: str
    static: bool = False
    fall: Interval = Interval()
    share: float | None = None
    limited: bool = True

    _no_nan = field_validator("share")(_finite)


class LeakResults(Settings):
    """What each group of inputs is worth, on a sample of the test queries.

    Attributes:
        n: Queries of the sample.
        metric: The model's primary metric on them.
        gain: The same minus that of the popularity baseline, paired by query.
        why: Why the shares were not measured.
    """

    n: int = 0
    metric: Interval = Interval()
    gain: Interval = Interval()
    groups: tuple[GroupWorth, ...] = ()
    why: str = ""


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
        queries_per_day: Queries that a day of the test window gave; None if it is not known.
        left_out: Queries that were left out of it, by reason: the eligibility rule that removes
            their positive, or that the item was not seen.
        removed: By eligibility rule, how many candidates it removed that no earlier rule had
            removed, over all test queries.
        embedding_version: Of the model's towers, from model.json.
        methods: The model first, then the champion and the baselines.
        slices: Parts of the test queries.
        index: The quality of the index.
        freshness: How old the model, the index and the test window are.
        smoke: For each tower, the comparison with a model server.
        leaks: What each group of inputs is worth.
        looks: How often models were judged on this test window.
        positive_in_history: What the histories knew of the positive items.
        kind: ``model``, or ``baseline`` for one that is served as itself.
        undeclared: See ``FeaturesManifest.undeclared``.
        wins: Where baselines were better than a model that did not pass, and
        advice: what to try first.
    """

    protocol: dict[str, Any]
    n_queries: int
    n_users: int
    queries_per_day: float | None = None
    left_out: dict[str, int] = {}
    removed: dict[str, int] = {}
    embedding_version: str | None = None
    methods: tuple[Method, ...] = ()
    slices: tuple[SliceResult, ...] = ()
    index: IndexResult = IndexResult()
    freshness: Freshness = Freshness()
    smoke: dict[str, SmokeResult] = {}
    leaks: LeakResults = LeakResults()
    looks: Looks = Looks()
    positive_in_history: PositiveInHistory = PositiveInHistory()
    undeclared: tuple[str, ...] | None = None
    kind: ModelKind = "model"
    wins: tuple[BaselineWin, ...] = ()
    advice: tuple[str, ...] = ()

    def of_kind(self, kind: str) -> tuple[Method, ...]:
        """The methods of a kind that were run."""
        return tuple(m for m in self.methods if m.kind == kind and not m.not_run)

    def best_baseline(self, metric: str) -> Method | None:
        """The baseline with the highest value of a metric; None if none was measured."""
        measured = [m for m in self.of_kind("baseline") if _value(m, metric) is not None]
        return max(measured, key=lambda m: _value(m, metric) or 0.0, default=None)


def _value(method: Method, metric: str) -> float | None:
    return method.metrics.get(metric, Interval()).value

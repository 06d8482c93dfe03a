"""Drift as custom metrics of an Evidently report, beside Evidently's own.

Evidently's drift methods raise false alarms by default (bootstrapped MMD on every sample without
drift), know no days, and its ``EmbeddingsDrift`` draws a picture for a minute. So its reports run
Refit's drift metrics on the declared data sets: ``DriftProbability`` is to be compared with the
false alarm rate, as Evidently's own p-values are, and is a test; ``DriftDistance`` says how far;
``DriftRatio``, the distance over its threshold, is what the dashboard draws. Columns are described
by Evidently's own metrics.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from evidently import Dataset, Report
from evidently.core.metric_types import (
    SingleValue,
    SingleValueCalculation,
    SingleValueMetric,
    get_default_render,
)
from evidently.core.report import Context, Snapshot
from evidently.metrics import MeanValue, MissingValueCount, RowCount, ValueDrift
from evidently.tests import gte

from monitoring.calibration import CalibratedMetric
from monitoring.expectation import Comparison
from monitoring.frame import Frame
from monitoring.reports.datasets import to_dataset, to_frame

_HALF = 1
"""Evidently's size of a widget that shares its line with another."""


@dataclass(frozen=True)
class Outcome:
    """What a report says of one drift metric.

    Attributes:
        value: Its distance.
        threshold: The distance from which it drifts.
        p_value: Probability of at least this distance where nothing drifts.
        is_probable: Whether Evidently's test of the probability passed.
        comparison: What all were computed from.
    """

    value: float
    threshold: float
    p_value: float
    is_probable: bool
    comparison: Comparison


class Compare(Protocol):
    """Compares a window's rows with what is expected of them."""

    def __call__(self, metric: CalibratedMetric, frame: Frame) -> Comparison:
        """The comparison; any exception is the reason why there is none."""


@dataclass
class TableRun:
    """One run of a report on one table; the metrics' calculations find here what they need."""

    metrics: Mapping[str, CalibratedMetric]
    compare: Compare
    current: Dataset
    lacking: Mapping[str, str]
    rate: float
    levels: Mapping[str, float]
    shown: bool = True
    done: dict[str, Comparison] = field(default_factory=dict)
    failed: dict[str, Exception] = field(default_factory=dict)

    @cached_property
    def frame(self) -> Frame:
        """The window's rows, from the report's data set."""
        return to_frame(self.current, self.lacking)

    def find(self, name: str) -> Comparison:
        """The comparison of one metric, computed once."""
        if name not in self.done:
            try:
                self.done[name] = self.compare(self.metrics[name], self.frame)
            except Exception as error:
                self.failed[name] = error
                raise
        return self.done[name]

    def find_threshold(self, name: str) -> float:
        """The distance from which one metric drifts: by chance rarer than the rate, and harmful."""
        return max(self.find(name).threshold(self.rate), self.metrics[name].entry.floor)


_RUN: ContextVar[TableRun] = ContextVar("run of a report")


@contextmanager
def _running(run: TableRun) -> Iterator[None]:
    token = _RUN.set(run)
    try:
        yield
    finally:
        _RUN.reset(token)


def _name(metric: Any) -> str:
    return f"{metric.subject}/{metric.statistic}"


class DriftProbability(SingleValueMetric):
    """Probability of at least the measured distance where nothing drifts."""

    subject: str
    statistic: str


class DriftProbabilityCalculation(SingleValueCalculation[DriftProbability]):
    """Computes it from the current data set; source: Evidently's custom metric interface."""

    def calculate(
        self, context: Context, current_data: Dataset, reference_data: Dataset | None
    ) -> SingleValue:
        """The probability.

        Raises:
            Exception: The metric cannot be measured.
        """
        return _show_half(self, _RUN.get().find(_name(self.metric)).p_value)

    def display_name(self) -> str:
        """A label for Evidently's pages."""
        return f"{_name(self.metric)}: probability without drift"


class DriftDistance(SingleValueMetric):
    """Distance from what earlier days lead to expect, beyond chance."""

    subject: str
    statistic: str


class DriftDistanceCalculation(SingleValueCalculation[DriftDistance]):
    """Computes it from the current data set; source: Evidently's custom metric interface."""

    def calculate(
        self, context: Context, current_data: Dataset, reference_data: Dataset | None
    ) -> SingleValue:
        """The distance.

        Raises:
            Exception: The metric cannot be measured.
        """
        return _show_half(self, _RUN.get().find(_name(self.metric)).value)

    def display_name(self) -> str:
        """A label for Evidently's pages."""
        return f"{_name(self.metric)}: distance"


class DriftRatio(SingleValueMetric):
    """Distance over its threshold: from 1 on it is drift."""

    subject: str
    statistic: str


class DriftRatioCalculation(SingleValueCalculation[DriftRatio]):
    """Computes it from the current data set; source: Evidently's custom metric interface."""

    def calculate(
        self, context: Context, current_data: Dataset, reference_data: Dataset | None
    ) -> SingleValue:
        """The ratio; it is kept for the dashboard and not shown in the report.

        Raises:
            Exception: The metric cannot be measured.
        """
        name, run = _name(self.metric), _RUN.get()
        result = self.result(run.find(name).value / max(run.find_threshold(name), 1e-12))
        result.widget = []
        return result

    def display_name(self) -> str:
        """A label for Evidently's pages."""
        return f"{_name(self.metric)}: distance over threshold"


class MeasuredLevel(SingleValueMetric):
    """A level that was measured from several tables, such as live quality."""

    subject: str


class MeasuredLevelCalculation(SingleValueCalculation[MeasuredLevel]):
    """Returns the level; source: Evidently's custom metric interface."""

    def calculate(
        self, context: Context, current_data: Dataset, reference_data: Dataset | None
    ) -> SingleValue:
        """The level."""
        return _show_half(self, _RUN.get().levels[self.metric.subject])

    def display_name(self) -> str:
        """A label for Evidently's pages."""
        return f"{self.metric.subject}: level"


def _show_half(calculation: SingleValueCalculation[Any], value: float) -> SingleValue:
    """A result whose picture, if it is shown, shares its line with the next."""
    result = calculation.result(value)
    result.widget = []
    if _RUN.get().shown:
        result.widget = get_default_render(calculation.display_name(), result)
    for widget in result.widget:
        widget.size = _HALF
    return result


def run_report(
    metrics: Sequence[CalibratedMetric],
    compare: Compare,
    reference: Frame,
    frame: Frame,
    rate: float,
    levels: Mapping[str, float],
    shown: bool = True,
    **about: Any,
) -> tuple[Snapshot, dict[str, Outcome], dict[str, Exception]]:
    """Measure one table of one window in one Evidently report.

    Args:
        metrics: The drift metrics of the table.
        compare: Compares the window's rows with what is expected.
        reference: Sampled rows of the reference, which Evidently's own metrics compare with.
        frame: The window's rows.
        rate: A smaller probability fails the test.
        levels: By subject what else is shown, such as live quality.
        shown: Whether the report will be looked at. Otherwise it holds what is returned here and
            nothing more: no pictures, no ratios and levels for the dashboard, no description of
            the columns beside the reference's.
        about: The snapshot's ``timestamp``, ``metadata``, ``tags`` and ``name``.

    Returns:
        The snapshot, and by ``subject/statistic`` what it says, and the errors of those that
        failed.
    """
    here = to_dataset(frame, describe=shown)
    there = reference.once(to_dataset) if shown else None
    by_name = {metric.entry.name: metric for metric in metrics}
    run = TableRun(by_name, compare, here, frame.lacking, rate, levels, shown)
    first: list[Any] = []
    last: list[Any] = []
    if there is not None:
        first = [RowCount()]
        last = [MeasuredLevel(subject=subject, tests=[]) for subject in levels]
        last += _describe_columns(here, there)
    with _running(run):
        while True:
            names = [name for name in run.metrics if name not in run.failed]
            asked = [each for name in names for each in _ask(run.metrics[name], rate, shown)]
            count = len(run.failed)
            try:
                report = Report([*first, *asked, *last])
                snapshot = report.run(here, there, **about)
                break
            except Exception:
                # One failing metric fails a whole report: run it again without that one.
                if len(run.failed) == count:
                    raise
    return snapshot, _read_outcomes(snapshot, run), run.failed


def _ask(metric: CalibratedMetric, rate: float, shown: bool) -> list[SingleValueMetric]:
    names = {"subject": metric.entry.subject, "statistic": metric.entry.statistic}
    asked: list[SingleValueMetric] = [
        DriftProbability(**names, tests=[gte(rate)]),
        DriftDistance(**names, tests=[]),
    ]
    return [*asked, DriftRatio(**names, tests=[])] if shown else asked


def _describe_columns(current: Dataset, reference: Dataset) -> list[Any]:
    """Evidently's own metrics of the columns that both data sets have; they test nothing."""
    described: list[Any] = []
    there, here = reference.data_definition, current.data_definition
    for name in here.get_numerical_columns():
        if name in there.get_numerical_columns():
            described += [
                MeanValue(column=name, tests=[]),
                MissingValueCount(column=name, tests=[], share_tests=[]),
                ValueDrift(column=name, method="wasserstein", tests=[]),
            ]
    for name in here.get_categorical_columns():
        if name in there.get_categorical_columns():
            described += [
                MissingValueCount(column=name, tests=[], share_tests=[]),
                ValueDrift(column=name, method="jensenshannon", tests=[]),
            ]
    return described


def _read_outcomes(snapshot: Snapshot, run: TableRun) -> dict[str, Outcome]:
    """The values of the drift metrics and the states of their tests, from the snapshot."""
    values: dict[str, dict[str, float]] = {}
    passed: dict[str, bool] = {}
    for result in snapshot.metric_results.values():
        kind, _, label = result.display_name.rpartition(": ")
        if label not in ("probability without drift", "distance"):
            continue
        values.setdefault(kind, {})[label] = float(result.value)
        if label == "probability without drift":
            passed[kind] = all(test.status.value == "SUCCESS" for test in result.tests)
    return {
        name: Outcome(
            value=each["distance"],
            threshold=run.find_threshold(name),
            p_value=each["probability without drift"],
            is_probable=passed[name],
            comparison=run.done[name],
        )
        for name, each in values.items()
    }

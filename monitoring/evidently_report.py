"""Evidently: drift as custom metrics of a Report, and its snapshots in a workspace.

Evidently's own embedding drift methods raise false alarms by default (bootstrapped MMD on every
sample without drift), so Evidently runs Refit's drift metrics with their calibrated thresholds;
``wasserstein`` and ``jensenshannon`` compute what Evidently's own methods compute. Importing
Evidently takes seconds: import this module only where it is used.
"""

import os

# Evidently reports usage over the network unless this is set before it is imported.
os.environ.setdefault("DO_NOT_TRACK", "1")

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.core.metric_types import SingleValue, SingleValueCalculation, SingleValueMetric
from evidently.core.report import Context, Snapshot
from evidently.tests import lte
from evidently.ui.workspace import Workspace

from monitoring.calibration import CalibratedMetric
from monitoring.drift_metrics import load_metric
from monitoring.frame import Array
from refit.drift import DriftResult, Window

PROJECT = "refit"
SCALAR = "x"
"""The only column of encoded rows that are single numbers."""


class CalibratedDrift(SingleValueMetric):
    """One drift metric of one subject: the reference's rows against a window's."""

    subject: str
    statistic: str
    n_reference: int
    n_current: int


class CalibratedDriftCalculation(SingleValueCalculation[CalibratedDrift]):
    """Computes the metric from the encoded rows that the run carries."""

    def calculate(
        self, context: Context, current_data: Dataset, reference_data: Dataset | None
    ) -> SingleValue:
        """The metric's value; source: Evidently's custom metric interface.

        Raises:
            UsageError: The metric cannot be loaded here.
            ValueError: The value is not a finite number.
        """
        name = f"{self.metric.subject}/{self.metric.statistic}"
        reference, current = (
            _to_rows(context.additional_data[f"{name} {side}"]) for side in ("reference", "current")
        )
        return self.result(load_metric(self.metric.statistic).measure(reference, current))

    def display_name(self) -> str:
        """A label for Evidently's pages."""
        rows = f"{self.metric.n_current} rows against {self.metric.n_reference}"
        return f"{self.metric.subject}/{self.metric.statistic} ({rows})"


class MeasuredLevel(SingleValueMetric):
    """A change of live quality, measured outside Evidently and shown beside the drift."""

    subject: str
    statistic: str
    value: float


class MeasuredLevelCalculation(SingleValueCalculation[MeasuredLevel]):
    """Returns the measured value."""

    def calculate(
        self, context: Context, current_data: Dataset, reference_data: Dataset | None
    ) -> SingleValue:
        """The measured value; source: Evidently's custom metric interface."""
        return self.result(self.metric.value)

    def display_name(self) -> str:
        """A label for Evidently's pages."""
        return f"{self.metric.subject}/{self.metric.statistic}"


Sides = tuple[CalibratedMetric, Dataset, Dataset]
"""A metric with the encoded rows of its reference and of the current window."""


def to_dataset(rows: Array) -> Dataset:
    """Encoded rows, [n] or [n, d], as an Evidently data set.

    Its columns are not declared numerical: Evidently would describe each of them, which nobody
    reads and which took half the time of measuring.
    """
    names = [SCALAR] if rows.ndim == 1 else [f"x{i}" for i in range(rows.shape[1])]
    frame = pd.DataFrame(rows.reshape(len(rows), -1), columns=names)
    return Dataset.from_pandas(frame, data_definition=DataDefinition(unknown_columns=names))


def _to_rows(dataset: Dataset) -> Array:
    frame = dataset.as_dataframe()
    rows: Array = frame.to_numpy()
    return rows[:, 0] if list(frame.columns) == [SCALAR] else rows


def run_window(
    sides: Sequence[Sides], levels: Sequence[DriftResult], window: Window, notes: Mapping[str, str]
) -> tuple[Snapshot, dict[str, float], dict[str, str]]:
    """Measure all metrics of one window in one Evidently run.

    Args:
        sides: What to measure.
        levels: Results of live quality, to be shown beside it.
        window: The period of time; its end is the run's time stamp.
        notes: The run's metadata.

    Returns:
        The snapshot, and by ``subject/statistic`` the values, and the errors of those that failed.
    """
    failed: dict[str, str] = {}
    try:
        snapshot = _run(sides, levels, window, notes)
    except Exception:
        # One failing metric fails a whole run: try each alone, and run again without those.
        for side in sides:
            try:
                _run([side], [], window, notes)
            except Exception as error:
                failed[side[0].name] = f"{type(error).__name__}: {error}"
        sides = [side for side in sides if side[0].name not in failed]
        snapshot = _run(sides, levels, window, notes)
    values = {
        result.display_name.rsplit(" (", 1)[0]: float(result.value)
        for result in snapshot.metric_results.values()
        if isinstance(result, SingleValue)
    }
    return snapshot, values, failed


def _run(
    sides: Sequence[Sides], levels: Sequence[DriftResult], window: Window, notes: Mapping[str, str]
) -> Snapshot:
    metrics: list[Any] = []
    data: dict[str, Any] = {}
    for metric, reference, current in sides:
        n = current.stats().row_count
        metrics.append(
            CalibratedDrift(
                subject=metric.subject,
                statistic=metric.statistic,
                n_reference=reference.stats().row_count,
                n_current=n,
                tests=[lte(metric.threshold_at(n))],
            )
        )
        data |= {f"{metric.name} reference": reference, f"{metric.name} current": current}
    for level in levels:
        if level.value is not None and level.threshold is not None:
            metrics.append(
                MeasuredLevel(
                    subject=level.subject,
                    statistic=level.statistic,
                    value=level.value,
                    tests=[lte(level.threshold)],
                )
            )
    measured = pd.DataFrame({"measured": np.arange(max(1, len(metrics)), dtype=float)})
    return Report(metrics, metadata=dict(notes)).run(
        measured, None, additional_data=data, timestamp=window.end, name=f"{window.start:%Y-%m-%d}"
    )


def add_to_workspace(folder: Path, snapshots: Sequence[Snapshot]) -> None:
    """Add runs to the project ``refit`` of a workspace, for ``evidently ui --workspace``.

    When a window is measured again, its new run replaces the earlier one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    workspace = Workspace.create(str(folder))
    found = workspace.search_project(PROJECT)
    project = found[0] if found else workspace.create_project(PROJECT)
    earlier = {}
    for run_id in workspace.list_runs(project.id):
        run = workspace.get_run(project.id, run_id)
        if run is not None:
            earlier[(run.name, run.timestamp)] = run_id
    for snapshot in snapshots:
        model = snapshot.to_snapshot_model()
        if run_id := earlier.get((model.name, model.timestamp)):
            workspace.delete_run(project.id, run_id)
        workspace.add_run(project.id, snapshot)

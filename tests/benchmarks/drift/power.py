"""Power of single results on data without days: a new cluster, a mix, a shift, a scale, nulls.

    python -m tests.benchmarks.drift.power

Reference and window are drawn anew for each trial; a result finds the change when it reports drift
at the default false alarm rate. Beside each change stands the same number of windows without one.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from monitoring.calibration import calibrate
from monitoring.drift_metrics import load_metric
from monitoring.expectation import Days, compare, fit_variogram
from monitoring.frame import Frame, mean_features
from monitoring.settings import MeasureSettings
from monitoring.subjects import Subject, SubjectKind
from tests.benchmarks.drift.pool import open_pool
from tests.benchmarks.drift.printing import find_interval, print_row

SETTINGS = MeasureSettings()
REFERENCE_ROWS, REFERENCE_DAYS = 8000, 10
SEED = 1
Draw = Callable[[np.random.Generator, int, bool], pa.Array]
"""``draw(random, rows, changed)``: a column."""


@dataclass(frozen=True)
class Change:
    """One change of a column.

    Attributes:
        name: What changes.
        kind: The kind of the column, by which the defaults choose drift metrics.
        draw: Draws the column.
        sizes: Rows of the windows.
        goals: The share that must be found, by size.
    """

    name: str
    kind: SubjectKind
    draw: Draw
    sizes: tuple[int, ...]
    goals: tuple[float, ...]


def _vectors(rows: Any) -> pa.Array:
    rows = np.asarray(rows, dtype=np.float32)
    offsets = pa.array(np.arange(len(rows) + 1) * rows.shape[1], pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(rows.ravel()))


def _draw_cluster(random: np.random.Generator, n: int, changed: bool) -> pa.Array:
    """Unit vectors around eight centres; 5% around a ninth when it changes."""
    centres = np.random.default_rng(5).normal(size=(8, 16))
    rows = centres[random.integers(0, 8, n)] + random.normal(size=(n, 16))
    if changed:
        new = np.random.default_rng(9).normal(size=16) * 2
        rows[: n // 20] = new + random.normal(size=(n // 20, 16))
    return _vectors(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def _draw_mix(random: np.random.Generator, n: int, changed: bool) -> pa.Array:
    share = 0.5 if changed else 0.6
    return pa.array(np.where(random.random((n,)) < share, "women", "men").tolist())


def _draw_shift(random: np.random.Generator, n: int, changed: bool) -> pa.Array:
    rows = random.normal(size=(n, 32))
    rows[:, :4] += 0.5 * changed
    return _vectors(rows)


def _draw_scores(random: np.random.Generator, n: int, changed: bool) -> pa.Array:
    return pa.array(random.normal(0.7, 0.1, n) * (1.1 if changed else 1.0))


def _draw_nulls(random: np.random.Generator, n: int, changed: bool) -> pa.Array:
    cells = np.where(random.random(n) < (0.1 if changed else 0.0), None, "brand")
    return pa.array(cells.tolist(), pa.string())


CHANGES = (
    Change("5% new cluster", "embedding", _draw_cluster, (500, 2000, 10_000), (0.85, 0.95, 1.0)),
    Change("mix 60/40 to 50/50", "mix", _draw_mix, (2000,), (0.95,)),
    Change(".5 sigma in 4 of 32", "embedding", _draw_shift, (2000,), (1.0,)),
    Change("score x1.1", "score", _draw_scores, (2000,), (1.0,)),
    Change("column to 10% null", "category", _draw_nulls, (2000,), (1.0,)),
)


def _to_frame(column: pa.Array, days: int) -> Frame:
    return Frame(pa.table({"v": column}), np.arange(len(column)) % days + 0.5)


@dataclass(frozen=True)
class Tried:
    """A change at one size.

    Attributes:
        name: Of the change.
        n: Rows of a window.
        trials: Windows with the change, and as many without.
        found: How many of the former are reported to drift.
        false: How many of the latter.
        goal: The share that must be found.
    """

    name: str
    n: int
    trials: int
    found: int
    false: int
    goal: float


def try_change(case: tuple[Change, int, int]) -> Tried:
    """Try a change at one of its sizes, so many times."""
    change, which, trials = case
    n = change.sizes[which]
    found = false = 0
    names = getattr(SETTINGS.metrics, change.kind)
    subject = Subject("bench", "answers", "v", change.kind)
    for trial in range(trials):
        random = np.random.default_rng((SEED, trial))
        # A reference serves ten windows.
        if trial % 10 == 0:
            frame = _to_frame(change.draw(random, REFERENCE_ROWS, False), REFERENCE_DAYS)
            metrics = [calibrate(subject, load_metric(m), frame, SETTINGS) for m in names]
        for changed in (True, False):
            window = _to_frame(change.draw(random, n, changed), 1)
            drifts = False
            for metric in metrics:
                rows, _ = metric.encode(window)
                mean = metric.place(mean_features(rows))[None]
                at = np.array([float(REFERENCE_DAYS)])
                here = Days(mean, np.array([float(n)]), at, at.astype(int) % 7, np.zeros(1))
                days = metric.reference
                compared = compare(days, metric.noise, fit_variogram(days, metric.noise), here)
                drifts |= compared.p_value < SETTINGS.false_alarm_rate
            found += drifts and changed
            false += drifts and not changed
    return Tried(change.name, n, trials, found, false, change.goals[which])


def try_changes(pool: Executor, trials: int) -> Iterator[Tried]:
    """Begin to try every change at every size, so many times."""
    cases = [(change, i, trials) for change in CHANGES for i in range(len(change.sizes))]
    return pool.map(try_change, cases)


def print_power(every: Sequence[Tried]) -> Iterator[str]:
    """Print a row for each change and size; yields what misses its goal."""
    for tried in every:
        what, found, trials = f"{tried.name}, n = {tried.n:,}", tried.found, tried.trials
        low, high = find_interval(found, trials)
        share = f"{found / trials:.2f} ({low:.2f} to {high:.2f})"
        print_row(what, share, f">= {tried.goal:g}", f"{tried.false} of {trials} false")
        if found / trials < tried.goal:
            yield f"{what}: {found} of {trials} found"


def main() -> int:
    """Print the table; the exit code is 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=210)
    options = parser.parse_args()
    with open_pool() as pool:
        tried = list(try_changes(pool, options.trials))
    return bool(list(print_power(tried)))


if __name__ == "__main__":
    raise SystemExit(main())

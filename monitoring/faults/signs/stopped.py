"""One source that sends nothing, while the others go on."""

from collections.abc import Iterator

import numpy as np

from monitoring.drift_metrics import Advice
from monitoring.faults import Sign
from monitoring.faults.feed import Feed, code_known
from monitoring.faults.known import KnownFeed
from monitoring.faults.signs.missing import spells_nothing
from monitoring.frame import count_column, count_missing

UNIT = "share of the rows that belong to the values that stopped"
RUNBOOK = Advice(
    "A value that every day had, such as a surface or a category, has no rows.",
    "Ask the owner of that source whether it was closed or does not send. If it was closed, leave "
    "this check out (`monitoring.measure.faults.left_out`) until a refit has learned it.",
)
TABLES = ("items", "events")
_MOST_VALUES = 40
_LEFT = 0.1


def find(feed: Feed) -> Iterator[Sign]:
    """For each column of few values, those that are gone and that nothing replaced."""
    rows = feed.known.rows
    for column in feed.columns("category"):
        known = feed.known.vocabulary(column)
        if not 2 <= len(known) <= _MOST_VALUES:
            continue
        counts = feed.rows.once(count_column, column)
        n, n0 = len(feed.rows), len(rows)
        if n < feed.settings.minimum_rows:
            why = f"{n} rows, {feed.settings.minimum_rows} are needed"
            yield Sign(column, why=why, n_reference=n0, n_current=n)
            continue
        missing = count_missing(feed.rows, column) - n * (rows.once(count_missing, column) / n0)
        values = np.array(list(known))
        least, varies = feed.known.once(_find_least, column)
        sure = n * least / varies  # minus the logarithm of the chance of no rows at all
        came = np.array([counts.get(str(value), 0) for value in values])
        stopped = (sure >= -np.log(feed.settings.rate)) & (came <= _LEFT * n * least)
        gone = {str(values[i]): float(least[i]) for i in np.flatnonzero(stopped)}
        new = sum(c for v, c in counts.items() if v not in known or spells_nothing(v))
        expected = n * sum(gone.values())
        if new + max(missing, 0.0) > 0.5 * expected:
            gone = {}  # they have other names, or none
        names = ", ".join(map(repr, list(gone)[:3]))
        yield Sign(
            column,
            sum(gone.values()),
            0.0,
            f"there are no rows with {column} {names}, and even a quiet day had "
            f"{sum(gone.values()):.0%} of its rows there",
            float(np.exp(-min(sure[stopped].sum(), 500.0))) if gone else 1.0,
            n0,
            n,
        )


def _find_least(feed: KnownFeed, column: str) -> tuple[np.ndarray, np.ndarray]:
    """[values] nearly the smallest share of each value on a day, and by how much counts vary.

    The second is the variance of a day's rows by their mean: 1 by chance alone, more where rows
    come in visits. Of a rare value the reference shows too little of it, and so the usual one of
    the column is the least.
    """
    code, length = feed.once(code_known, column), len(feed.vocabulary(column))
    day = np.unique(np.nan_to_num(np.floor(feed.rows.day)), return_inverse=True)[1]
    table = np.zeros((int(day.max(initial=0)) + 1, length))
    known = code >= 0
    np.add.at(table, (day[known], code[known]), 1.0)
    rows = np.bincount(day, minlength=len(table)).astype(np.float64)
    table, rows = table[rows >= 10], rows[rows >= 10]
    if len(rows) < 3:
        return np.zeros(length), np.ones(length)
    mean = table.sum(axis=0) / rows.sum()
    expected = np.maximum(rows[:, None] * mean, 1e-9)
    dispersion = ((table - expected) ** 2 / expected).sum(axis=0) / (len(rows) - 1)
    kept = rows.sum() / max(feed.counts.sum(), rows.sum())
    dispersion = 1.0 + np.maximum(dispersion - 1.0, 0.0) / kept
    dispersion = np.maximum(dispersion, np.median(dispersion))
    # Few rows of a day are a bad guess of its share: half the mean is the least that is believed.
    low = np.maximum(np.quantile(table / rows[:, None], 0.1, axis=0), 0.5 * mean)
    always = np.quantile(table, 0.25, axis=0) > 0
    return np.minimum(low, mean) * always, dispersion

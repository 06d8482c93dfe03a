"""Numbers in another unit: cents for euros, another currency, in all rows or in some."""

from collections.abc import Iterator

import numpy as np

from monitoring.drift_metrics import Advice
from monitoring.faults import Sign
from monitoring.faults.chance import compare_shares
from monitoring.faults.feed import Feed, code_cells
from monitoring.frame import Frame, read_numbers

UNIT = "powers of ten that numbers moved by, or the share of rows far outside what was known"
RUNBOOK = Advice(
    "Numbers of all categories moved by one factor: another unit, or another currency.",
    "Ask the owner of the feed for the unit. Prices that rise by more than a market can move in a "
    "day are not inflation; convert the rows of these days before anything learns from them.",
)
TABLES = ("items", "events")
_LEAST = 0.45
"""Powers of ten (a factor of 2.8): what doubles may be a market."""
_SHARE = 0.02
_AGREE = 0.15
_GROUPS = ("category_2", "category_1", "brand", "condition", "event_type", "wanted_category")


def find(feed: Feed) -> Iterator[Sign]:
    """For each column of numbers the common factor, then the share of rows with one."""
    for column in feed.columns("number"):
        before, now = _find_residuals(feed, column)
        if len(before) < feed.settings.minimum_rows:
            continue
        if len(now) < feed.settings.minimum_rows:
            why = f"{len(now)} numbers, {feed.settings.minimum_rows} are needed"
            yield Sign(column, why=why, n_reference=len(before), n_current=len(now))
            continue
        low, middle, high = np.quantile(now, [0.25, 0.5, 0.75]) - np.quantile(
            before, [0.25, 0.5, 0.75]
        )
        if abs(middle) > _LEAST and max(abs(low - middle), abs(high - middle)) < 2 * _AGREE:
            factor = 10.0 ** abs(middle)
            much = "as high" if middle > 0 else "as low"
            detail = (
                f"{column} of new rows is {factor:.3g} times {much} as before, in all categories"
                f"{_guess(factor)}"
            )
            yield Sign(column, abs(float(middle)), _LEAST, detail, 0.0, len(before), len(now))
            continue
        yield _find_share(column, before, now, feed.settings.rate)


def _find_share(column: str, before: np.ndarray, now: np.ndarray, rate: float) -> Sign:
    """The share of rows farther out than the reference by more than a factor of 2.8."""
    low, high = np.quantile(before, [0.001, 0.999])
    sides = {1: (now > high + _LEAST, before > high + _LEAST)}
    sides[-1] = (now < low - _LEAST, before < low - _LEAST)
    side = max(sides, key=lambda each: int(sides[each][0].sum()))
    out, out0 = sides[side]
    share, chance, p = compare_shares(
        int(out.sum()), len(now), int(out0.sum()), len(before), rate, 0.005
    )
    detail = ""
    if out.any():
        factor = 10.0 ** abs(float(np.median(now[out]) - np.median(before)))
        much = "as high" if side > 0 else "as low"
        detail = (
            f"{column} is about {factor:.3g} times {much} as expected in at least {share:.0%} of "
            f"the new rows, and as before in the others"
        )
    threshold = max(_SHARE, chance)
    return Sign(column, max(share, 0.0), threshold, detail, p, len(before), len(now))


def _find_residuals(feed: Feed, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms (base 10) less what category, brand and condition explain; known supply only."""
    before, rows0 = _read_logs(feed.known.rows, column)
    now, rows = _read_logs(feed.rows, column)
    if not len(before):
        return before, now
    known = np.ones(len(now), dtype=bool)
    for name in (c for c in _GROUPS if c in feed.columns("category")):
        values = np.array(list(feed.known.vocabulary(name)))
        code0 = code_cells(feed.known.rows.column(name), values)[rows0]
        code = code_cells(feed.rows.column(name), values)[rows]
        if not len(code) or (code >= 0).mean() < 0.2:
            continue  # this column is broken itself
        size = np.bincount(code0[code0 >= 0], minlength=len(values))
        mean = np.bincount(code0[code0 >= 0], before[code0 >= 0], len(values))
        mean = np.where(size >= 5, mean / np.maximum(size, 1), 0.0)
        before = before - np.where(code0 >= 0, mean[code0], 0.0)
        now = now - np.where(code >= 0, mean[code], 0.0)
        known &= code >= 0
    return before, now[known]


def _read_logs(rows: Frame, column: str) -> tuple[np.ndarray, np.ndarray]:
    numbers, positions = read_numbers(rows, column)
    positive = numbers > 0
    return np.log10(numbers[positive]), positions[positive]


def _guess(factor: float) -> str:
    power = round(np.log10(factor))
    if power and abs(np.log10(factor) - power) < 0.08:
        return {2: ": cents for euros, or euros for cents"}.get(power, ": another unit")
    return ": another unit or currency"

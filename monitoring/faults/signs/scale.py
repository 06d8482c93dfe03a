"""Numbers in another unit: cents for euros, another currency, in all rows or in some.

A price that is written in another unit is not what people see and pay: the events on the same
listings say the old one. Where events carry prices, that tells a broken feed from a market in which
everything costs more, whatever the factor. Only a factor that no market reaches is a fault though
both feeds agree.
"""

from collections.abc import Iterator

import numpy as np
from scipy.stats import binom

from monitoring.drift_metrics import Advice
from monitoring.faults import Sign
from monitoring.faults.chance import compare_shares
from monitoring.faults.feed import Feed, code_as_known, code_known
from monitoring.faults.priced import PairedPrices, read_paired_prices
from monitoring.frame import Frame, read_numbers

UNIT = "powers of ten that numbers moved by, or the share of rows that they are wrong in"
RUNBOOK = Advice(
    "Numbers of all categories moved by one factor: another unit, or another currency.",
    "Ask the owner of the feed for the unit. Prices that rise by more than a market can move in a "
    "day are not inflation; convert the rows of these days before anything learns from them.",
)
TABLES = ("items", "events")
_LEAST = 0.45
"""Powers of ten (a factor of 2.8): what doubles may be a market."""
_IMPOSSIBLE = 0.85
"""Powers of ten (a factor of 7) that no market moves by in days."""
_SAME = 0.01
"""Powers of ten within which two prices are the same."""
_REPRICED = 0.05
"""Powers of ten by which sellers change prices."""
_DISAGREE = 0.1
_BETWEEN_DAYS = 0.01
_FACTORS = 100
"""Factors that are looked for."""
_SHARE = 0.02
_AGREE = 0.15
_GROUPS = ("category_2", "category_1", "brand", "condition", "event_type", "wanted_category")


def find(feed: Feed) -> Iterator[Sign]:
    """For each column of numbers the common factor, then the share of rows with one."""
    for column in feed.columns("number"):
        pairs = read_paired_prices(feed) if (feed.name, column) == ("items", "price") else None
        if pairs is not None and len(pairs.new) >= feed.settings.minimum_rows:
            found = _compare_pairs(column, pairs, feed.settings.rate)
            if found.is_found:
                yield found
                continue
            apart = _find_disagreeing(column, pairs, feed.settings.rate)
            if apart.is_found:
                yield apart
                continue
        else:
            pairs = None
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
            least = _LEAST if pairs is None else _IMPOSSIBLE
            yield Sign(column, abs(float(middle)), least, detail, 0.0, len(before), len(now))
            continue
        apart = _find_share(column, before, now, feed.settings.rate)
        if pairs is not None and (found.value or 0.0) < 0.5 * (apart.value or 0.0):
            apart = found  # people act at these prices: it is the market
        yield apart


def _compare_pairs(column: str, pairs: PairedPrices, rate: float) -> Sign:
    """The share of new listings whose price is one common factor away from that of their events.

    Sellers change prices too, but not by one factor.
    """
    n, n0 = len(pairs.new), len(pairs.before)
    steps, counts = np.unique(np.round(pairs.new / _SAME), return_counts=True)
    counts[np.abs(steps) * _SAME < _REPRICED] = 0
    step = float(steps[counts.argmax()]) * _SAME
    near, near0 = (np.abs(side - step) <= _SAME for side in (pairs.new, pairs.before))
    if not counts.any():
        return Sign(column, 0.0, _SHARE, "", 1.0, n0, n)
    k = int(near.sum())
    usual = (near0.sum() + 1) / (n0 + 2)
    p = min(1.0, _FACTORS * float(binom.sf(k - 1, n, usual)))
    chance = float(binom.isf(rate / _FACTORS, n, usual)) / n
    detail = (
        f"{column} of {k / n:.0%} of the new listings is {10.0**step:.3g} times the {column} at "
        f"which people act on them{_guess(10.0 ** abs(step))}"
    )
    return Sign(column, k / n, max(_SHARE, chance), detail, p, n0, n)


def _find_disagreeing(column: str, pairs: PairedPrices, rate: float) -> Sign:
    """The share of new listings on which people act at any other price than the listed one.

    Sellers change prices of known listings more often than of new ones.
    """
    off, off0 = (np.abs(side) > _REPRICED for side in (pairs.new, pairs.before))
    k, n, k0, n0 = int(off.sum()), len(off), int(off0.sum()), len(off0)
    share, chance, p = compare_shares(k, n, k0, n0, rate, _BETWEEN_DAYS)
    detail = (
        f"{column} of {k / n:.0%} of the new listings is not the {column} at which people act on "
        f"them, before of {k0 / max(n0, 1):.0%}: a default, or the {column} of another listing"
    )
    return Sign(column, max(share, 0.0), max(_DISAGREE, chance), detail, p, n0, n)


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
    before, rows0 = feed.known.rows.once(_read_logs, column)
    now, rows = _read_logs(feed.rows, column)
    if not len(before):
        return before, now
    known = np.ones(len(now), dtype=bool)
    for name in (c for c in _GROUPS if c in feed.columns("category")):
        code0 = feed.known.once(code_known, name)[rows0]
        code = code_as_known(feed.known, feed.rows, name)[rows]
        if not len(code) or (code >= 0).mean() < 0.2:
            continue  # this column is broken itself
        values = len(feed.known.vocabulary(name))
        size = np.bincount(code0[code0 >= 0], minlength=values)
        mean = np.bincount(code0[code0 >= 0], before[code0 >= 0], values)
        mean = np.where(size >= 5, mean / np.maximum(size, 1), 0.0)
        before = before - np.where(code0 >= 0, mean[code0], 0.0)
        now = now - np.where(code >= 0, mean[code], 0.0)
        known &= code >= 0
    return before, now[known]


def _read_logs(rows: Frame, column: str) -> tuple[np.ndarray, np.ndarray]:
    numbers, positions = rows.once(read_numbers, column)
    positive = numbers > 0
    return np.log10(numbers[positive]), positions[positive]


def _guess(factor: float) -> str:
    power = round(np.log10(factor))
    if power and abs(np.log10(factor) - power) < 0.08:
        return {2: ": cents for euros, or euros for cents"}.get(power, ": another unit")
    return ": another unit or currency"

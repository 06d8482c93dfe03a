"""The baseline: what a window's rate should be, from earlier windows of the same towers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property, lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr

from monitoring.quality.intervals import Floats, PersonSums, covariance_of_rates
from monitoring.quality.settings import QualitySettings
from refit.drift import Window

DAY = timedelta(days=1)
MONDAY = datetime(1970, 1, 5)
DAY_SCALES = (0.0, 0.25, 0.5, 1.0, 1.5, 2.5, 4.0, 8.0)
SLOT_SCALES = (0.0, 0.5, 1.0, 2.0)
"""Standard deviations that are thought possible, as multiples of the one in the settings."""
PREDICTIONS = 1024
"""Of a process that are kept, since a later run makes them again."""
UNUSUAL = 1.5
"""A window whose people vary this much more than usual keeps its own variance."""


@dataclass(frozen=True)
class JudgedRate:
    """A window's rate beside what it should be.

    Attributes:
        now: The window's sums.
        expected: The rate that earlier windows make expected; None if they cannot.
        threshold: A larger drop below ``expected`` is a fall.
        spread: Standard deviation of the rate around ``expected``, relative to it.
        own: The part of it that comes from this window: chance, and its day.
        earlier: How many earlier windows it rests on.
        n_earlier: Their answers.
        p_value: Probability of a rate at most this high where nothing changed.
        usable: Whether the window has enough answers for later baselines.
        why: Why there is no judgement.
    """

    now: PersonSums | None
    expected: float | None = None
    threshold: float = 0.0
    spread: float = 0.0
    own: float = 0.0
    earlier: int = 0
    n_earlier: float = 0.0
    p_value: float = 1.0
    usable: bool = True
    why: str = ""

    @property
    def drop(self) -> float:
        """How far the rate lies below the expected one."""
        if self.now is None or self.expected is None:
            raise ValueError("there is no judgement")
        return self.expected - self.now.rate

    @property
    def relative_drop(self) -> float:
        """The drop as a share of the expected rate."""
        return self.drop / (self.expected or 1.0)

    @cached_property
    def fell(self) -> bool:
        """Whether the rate fell further than chance, days and weekdays explain."""
        return self.expected is not None and self.drop > self.threshold


@dataclass(frozen=True)
class RateSeries:
    """The rates of a grid of windows, oldest first.

    Attributes:
        windows: The answers' own periods, all of one length.
        sums: Their sums; None where a window could not be measured.
        reasons: Why not, for each window; empty where it could.
    """

    windows: Sequence[Window]
    sums: Sequence[PersonSums | None]
    reasons: Sequence[str]

    @cached_property
    def covariance(self) -> Floats:
        """[W, W] see ``covariance_of_rates``; rows of windows without sums are 0."""
        known = [i for i, one in enumerate(self.sums) if one is not None]
        whole = np.zeros((len(self.sums), len(self.sums)))
        if known:
            found = covariance_of_rates([one for one in self.sums if one is not None])
            whole[np.ix_(known, known)] = found
        return whole


def judge_series(
    settings: QualitySettings,
    series: RateSeries,
    minimum: float,
    leader: Sequence[JudgedRate] | None = None,
    until: int | None = None,
) -> list[JudgedRate]:
    """Judge every window by those before it that did not fall.

    A window that fell together with a neighbour is left out of later windows' baselines. One
    that fell alone is kept: it tells how much days differ.

    Args:
        settings: What is assumed of days before they show it, and the false alarm rate.
        series: All windows.
        minimum: A window with fewer answers is neither judged nor part of a baseline.
        leader: Judgements of another rate in the same windows, with which this one is compared:
            what is left out of its baselines is left out here, too.
        until: Windows from this one on are in no baseline: other towers answered.
    """
    judged: list[JudgedRate] = []
    for i, now in enumerate(series.sums):
        why = series.reasons[i]
        if not why and (now is None or now.total < minimum):
            why = f"{now.total if now else 0:.0f} answers, {minimum:.0f} are needed"
        if why:
            judged.append(JudgedRate(now, usable=False, why=why))
            continue
        earlier = [
            j
            for j in range(i if until is None else min(i, until))
            if judged[j].usable
            and not _fell_for_good(judged, j)
            and not (leader and _fell_for_good(leader[:i], j))
        ]
        judged.append(_judge(settings, series, earlier, i))
    return judged


def _fell_for_good(judged: Sequence[JudgedRate], j: int) -> bool:
    if not judged[j].fell:
        return False
    after = judged[j + 1 :]
    return not after or after[0].fell or (j > 0 and judged[j - 1].fell)


def _judge(
    settings: QualitySettings, series: RateSeries, earlier: Sequence[int], i: int
) -> JudgedRate:
    now = series.sums[i]
    assert now is not None
    if not earlier:
        why = "no earlier level to compare with: no earlier answers of these towers have matured"
        return JudgedRate(now, why=why)
    before = [one for j in earlier if (one := series.sums[j]) is not None]
    n = np.array([one.total for one in before])
    level = sum(float(one.hits.sum()) for one in before) / float(n.sum())
    if not level:
        why = "no event names a request_id of this log before this window"
        return JudgedRate(now, why=why)
    rates = np.array([one.rate for one in before]) / level
    chance = _chance(series.covariance[np.ix_([*earlier, i], [*earlier, i])], [*n, now.total])
    windows = tuple(series.windows[j] for j in (*earlier, i))
    mixture, low = _predict(settings, windows, rates.tobytes(), (chance / level**2).tobytes())
    expected = mixture.mean
    threshold = expected - low
    if threshold >= expected:
        why = (
            f"{len(before)} earlier windows with {n.sum():.0f} answers say so little that even a "
            f"fall from {expected * level:.2%} to 0 would not exceed the threshold"
        )
        return JudgedRate(now, why=why)
    return JudgedRate(
        now,
        expected * level,
        threshold * level,
        mixture.spread / expected,
        mixture.own / expected,
        len(before),
        float(n.sum()),
        mixture.below(now.rate / level),
    )


def _chance(covariance: Floats, answers: Sequence[float]) -> Floats:
    """[W, W] covariances with variances that do not depend on how a window's own rate came out.

    Few outcomes mean a small variance; weighted by it, windows that are low by chance would count
    most.
    """
    n = np.asarray(answers)
    own = np.diag(covariance).copy()
    usual = float((n[:-1] ** 2 * own[:-1]).sum() / n[:-1].sum()) / n
    variance = np.where(own > UNUSUAL * usual, own, usual)
    scale = np.sqrt(np.divide(variance, own, out=np.zeros_like(own), where=own > 0))
    scaled: Floats = covariance * np.outer(scale, scale)
    np.fill_diagonal(scaled, variance)
    return scaled


@dataclass(frozen=True)
class _Mixture:
    """A mixture of normal distributions: one for each possible size of the days' differences.

    ``of_day`` is the part of the variances that other windows do not share.
    """

    weights: Floats
    means: Floats
    deviations: Floats
    of_day: Floats

    @property
    def own(self) -> float:
        return math.sqrt(float(self.weights @ self.of_day))

    @property
    def mean(self) -> float:
        return float(self.weights @ self.means)

    @property
    def spread(self) -> float:
        square = float(self.weights @ (self.deviations**2 + self.means**2))
        return math.sqrt(max(square - self.mean**2, 0.0))

    def below(self, rate: float) -> float:
        """The probability of at most this rate."""
        return float(self.weights @ ndtr((rate - self.means) / self.deviations))

    def quantile(self, p: float) -> float:
        low = float((self.means - 12 * self.deviations).min())
        high = float((self.means + 12 * self.deviations).max())
        return float(brentq(lambda rate: self.below(rate) - p, low, high, xtol=1e-9))


@lru_cache(maxsize=PREDICTIONS)
def _predict(
    settings: QualitySettings, windows: tuple[Window, ...], rates: bytes, chance: bytes
) -> tuple[_Mixture, float]:
    """The distribution of the last window's rate, given those of the windows before it.

    With its quantile at the false alarm rate.

    Each run judges the earlier windows too, so what was found of them is kept for the next one in
    the process. Arrays are bytes here, since the key of a cache has to be hashable.

    A rate is a level plus the effects of its weekday, of the weekend, of its day and of chance.
    Effects that few days have shown are shrunk towards none (best linear unbiased prediction,
    Henderson, 1975). The sizes of the effects are averaged over, weighted by their restricted
    likelihood (Patterson and Thompson, 1971) and half-t priors (Gelman, 2006), so that little
    knowledge of them makes the distribution wide.

    Args:
        settings: What is assumed of days.
        windows: [W] the earlier ones, then the one to predict.
        rates: [W - 1] float64 rates of the earlier ones.
        chance: [W, W] float64 covariances of all.
    """
    sizes, prior = _sizes(settings, windows)
    identity = np.eye(len(windows))
    by_chance = np.frombuffer(chance).reshape(identity.shape)
    effects = np.einsum("ge,eij->gij", sizes**2, np.stack([identity, *_alike(windows)]))
    covariance = by_chance[None] + effects + 1e-12 * identity
    before, cross = covariance[:, :-1, :-1], covariance[:, :-1, -1]
    ones = np.ones_like(cross)
    values = np.broadcast_to(np.frombuffer(rates), cross.shape)
    solved = np.linalg.solve(before, np.stack([ones, values, cross], axis=-1))
    by_one, by_rate, by_cross = solved[..., 0], solved[..., 1], solved[..., 2]
    information = by_one.sum(axis=1)
    level = by_rate.sum(axis=1) / information
    means = level + (cross * by_rate).sum(axis=1) - level * (cross * by_one).sum(axis=1)
    rest = 1 - (cross * by_one).sum(axis=1)
    variances = covariance[:, -1, -1] - (cross * by_cross).sum(axis=1) + rest**2 / information
    misfit = (values * by_rate).sum(axis=1) - level**2 * information
    fit = -0.5 * (np.linalg.slogdet(before)[1] + np.log(information) + misfit)
    weights: Floats = prior * np.exp(fit - fit.max())
    deviations = np.sqrt(np.maximum(variances, 1e-12))
    of_day = by_chance[-1, -1] + sizes[:, 0] ** 2
    mixture = _Mixture(weights / weights.sum(), means, deviations, of_day)
    return mixture, mixture.quantile(settings.false_alarm_rate)


def _sizes(settings: QualitySettings, windows: Sequence[Window]) -> tuple[Floats, Floats]:
    """[G, 3] standard deviations of day, slot and weekend effects, and [G] their prior weights."""
    length = windows[0].end - windows[0].start
    if length > DAY:
        return _combine_sizes(settings.day_to_day)
    slot = settings.weekday if length == DAY else settings.weekend
    return _combine_sizes(settings.day_to_day, slot, settings.weekend)


@lru_cache(maxsize=8)
def _combine_sizes(day: float, *of_week: float) -> tuple[Floats, Floats]:
    """All combinations of the possible sizes; without those of the week there are none of it."""
    nothing = ((0.0, 1.0),)
    week = [_weigh(SLOT_SCALES, unit) for unit in of_week] or [nothing, nothing]
    combined = list(product(_weigh(DAY_SCALES, day), *week))
    sizes = np.array([[size for size, _ in each] for each in combined])
    prior = np.array([np.prod([weight for _, weight in each]) for each in combined])
    return sizes, prior


def _weigh(scales: Sequence[float], unit: float) -> tuple[tuple[float, float], ...]:
    """Possible sizes with the weights of a half-t distribution with 3 degrees of freedom."""
    at = np.asarray(scales)
    weights = np.gradient(at) * (1 + at**2 / 3) ** -2
    return tuple(zip((at * unit).tolist(), weights.tolist(), strict=True))


def _alike(windows: Sequence[Window]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """[W, W] which windows share their slot (weekday, or time of day), and their kind of day."""
    length = windows[0].end - windows[0].start
    middles = [w.start.replace(tzinfo=None) + length / 2 - MONDAY for w in windows]
    slots = np.array([m.days % 7 if length == DAY else (m % DAY) // length for m in middles])
    weekend = np.array([m.days % 7 >= 5 for m in middles])
    return (slots[:, None] == slots).astype(float), (weekend[:, None] == weekend).astype(float)

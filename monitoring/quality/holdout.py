"""Whose fault a fall is: the model's rate beside that of people who do not get the model."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from monitoring.quality.baseline import JudgedRate
from monitoring.quality.settings import QualitySettings

UNTOLD = (
    "a fall of the whole market cannot be told from one of the model: there is no holdout "
    "(holdout_share of serving), and no events without request_id"
)


ORGANIC_RATE = "organic rate"
LONGEST_EPISODE = 7
"""A fall is compared with the market's over at most so many windows."""


@dataclass(frozen=True)
class Lift:
    """How the model's rate moved relative to a denominator's, since the model's rate fell.

    Attributes:
        name: The denominator, a rate that moves with the market and not with the model:
            ``holdout``, or ``ORGANIC_RATE``, which is weaker: people who browse by themselves are
            others, and may browse more when recommendations are worse.
        model, market: How far each fell below what was expected of it, as a share of that.
        threshold: If the model fell by more than this beyond the market, the fall is its own.
    """

    name: str
    model: float
    market: float
    threshold: float

    @property
    def drop(self) -> float:
        """How much further the model fell."""
        return self.model - self.market

    @property
    def fell(self) -> bool:
        """Whether the model fell further than the market."""
        return self.drop > self.threshold

    @property
    def decides(self) -> bool:
        """Whether it tells whose fall it is.

        The model's, or the market's: then it could show one of the model's own as large, and most
        of what the model fell by is what the market fell by.
        """
        return self.fell or (self.threshold < self.model <= 2 * self.market)


def find_episode(model: Sequence[JudgedRate], i: int) -> list[int]:
    """The windows since the rate fell, up to a window; only this one if it did not fall.

    A single window in between that did not fall belongs to them: chosen for having fallen, the
    others fell by less than it seems.
    """
    first = i
    for j in range(i, max(i - LONGEST_EPISODE, -1), -1):
        if model[j].fell:
            if first - j > 2:
                break
            first = j
    return list(range(first, i + 1))


def compare_with(
    settings: QualitySettings,
    name: str,
    model: Sequence[JudgedRate],
    market: Sequence[JudgedRate],
) -> Lift | None:
    """Compare the fall of the model's rate with that of a denominator in the same windows.

    Chance and the days' own differences average out over the windows; what is uncertain about the
    level before them does not.

    Args:
        settings: The false alarm rate, and how differently people who browse may move.
        name: The denominator.
        model: Judgements of the model's rate in the windows of an episode, the newest last.
        market: Those of the denominator in the same windows.

    Returns:
        The comparison; None if one of both is unknown in the newest window.
    """
    if model[-1].expected is None or market[-1].expected is None:
        return None
    both = [
        (one, other)
        for one, other in zip(model, market, strict=True)
        if one.expected is not None and other.expected is not None
    ]
    drops, variance = [], settings.organic_spread**2 if name == ORGANIC_RATE else 0.0
    for side in zip(*both, strict=True):
        weights = np.array([each.now.total for each in side if each.now is not None])
        weights /= weights.sum()
        drops.append(float(weights @ [each.relative_drop for each in side]))
        shared = weights @ [max(each.spread**2 - each.own**2, 0.0) for each in side]
        variance += float(shared + weights**2 @ [each.own**2 for each in side])
    threshold = float(ndtri(1 - settings.false_alarm_rate)) * math.sqrt(variance)
    return Lift(name, drops[0], drops[1], threshold)


def explain_fall(model: JudgedRate, lifts: Sequence[Lift]) -> tuple[Lift | None, str]:
    """Whose fall it is: the comparison that decides, the better ones first, and words for it."""
    if not model.fell:
        return None, ""
    if not lifts:
        return None, UNTOLD
    lift = next((one for one in lifts if one.decides), None)
    if lift is None:
        least = min(lifts, key=lambda one: one.threshold)
        return None, (
            f"the rate fell by {model.relative_drop:.0%}, but whether the market fell cannot be "
            f"told yet: the {least.name} shows falls of {least.threshold:.0%} and more. The next "
            "windows add to it; a larger holdout_share shows smaller falls"
        )
    moved = (
        f"since then the {lift.name} fell by {lift.market:.0%} and the model by {lift.model:.0%}"
    )
    if lift.fell:
        return lift, f"the model fell, {moved}"
    return lift, f"the market fell, the model did not: {moved}"

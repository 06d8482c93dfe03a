"""Rates by person: sums, intervals, and covariances that count every person once."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.special import ndtri, stdtrit

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class PersonSums:
    """A rate of one window as sums by person: ``hits`` divided by ``answers``.

    Attributes:
        people: [P] number of each person, the same in every window; no person twice.
        hits: [P] the numerator: answers with an outcome, or revenue.
        answers: [P] the denominator: answers, visits, or weights.
    """

    people: Integers
    hits: Floats
    answers: Floats

    @classmethod
    def of(cls, people: Integers, hits: Floats, answers: Floats | None = None) -> "PersonSums":
        """Add up rows by person.

        Args:
            people: [N] the person of each row.
            hits: [N] the row's part of the numerator.
            answers: [N] the row's part of the denominator; 1 without.
        """
        unique, at = np.unique(people, return_inverse=True)
        return cls(
            unique,
            np.bincount(at, hits, len(unique)),
            np.bincount(at, answers, len(unique)).astype(np.float64),
        )

    @cached_property
    def total(self) -> float:
        """The denominator."""
        return float(self.answers.sum())

    @cached_property
    def rate(self) -> float:
        """Hits per answer."""
        return float(self.hits.sum()) / self.total

    @property
    def effective_people(self) -> float:
        """Number of equally busy people whose rate would vary as much. Source: Kish, 1965."""
        return self.total**2 / float((self.answers**2).sum())

    @property
    def influence(self) -> Floats:
        """[P] how much the rate changes when a person is left out; 0 for the only person."""
        rest = self.total - self.answers
        change = self.hits - self.rate * self.answers
        return np.divide(change, rest, out=np.zeros_like(change), where=rest > 0)

    @property
    def variance(self) -> float:
        """Variance of the rate over people. Source: the jackknife, Efron and Stein, 1981."""
        return float((self.influence**2).sum())

    def interval(self, share: bool = True) -> tuple[float, float]:
        """95% interval of the rate, for people drawn at random.

        Args:
            share: Whether the rate is a share of answers, between 0 and 1. Its interval is
                Wilson's, with the number of independent answers that would vary as much.
        """
        quantile = _quantile(self.effective_people)
        if not share:
            half = quantile * math.sqrt(self.variance)
            return max(0.0, self.rate - half), self.rate + half
        independent = self.effective_people
        if self.variance > 0:
            independent = min(self.total, self.rate * (1 - self.rate) / self.variance)
        return wilson_interval(self.rate, max(independent, 1.0), quantile)


def wilson_interval(
    share: float, n: float, quantile: float = float(ndtri(0.975))
) -> tuple[float, float]:
    """Interval of a share of n independent answers. Source: Wilson, 1927."""
    z = quantile
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def ratio_interval(one: PersonSums, other: PersonSums) -> tuple[float, float]:
    """95% interval of the ratio of two positive rates of different people, on the log scale."""
    ratio = one.rate / other.rate
    error = math.sqrt(one.variance / one.rate**2 + other.variance / other.rate**2)
    quantile = _quantile(min(one.effective_people, other.effective_people))
    return ratio * math.exp(-quantile * error), ratio * math.exp(quantile * error)


def covariance_of_rates(windows: Sequence[PersonSums]) -> Floats:
    """[W, W] covariances of the windows' rates that come from which people were there.

    A person who comes every day makes the days' rates alike; their difference varies less than
    that of different people. Source: linearization of ratios, Binder, 1983.
    """
    shape = (1 + max(int(w.people[-1]) for w in windows), len(windows))
    column = np.repeat(np.arange(len(windows)), [len(w.people) for w in windows])
    row = np.concatenate([w.people for w in windows])
    influence = csr_array((np.concatenate([w.influence for w in windows]), (row, column)), shape)
    product: Floats = (influence.T @ influence).toarray()
    return product


def _quantile(effective_people: float) -> float:
    return float(stdtrit(max(effective_people - 1, 1.0), 0.975))

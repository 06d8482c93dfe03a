"""What a test can tell: its smallest detectable difference, and how much more data would do.

The difference of two methods is paired by query. Its standard error is that of the bootstrap over
users: the queries of a user count together (a clustered standard error; Miller, "Adding Error Bars
to Evals", 2024, recommends it for evaluations of models, with this power analysis). At the
two-sided level of 5% a true difference d is found with the power

    Phi(d / SE - z(0.975)),    so that    d = (z(0.975) + z(power)) SE

is the smallest that is found with that power (Bloom, "Minimum Detectable Effects", Evaluation
Review 19, 1995). The standard error falls with the square root of the number of users.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

from components.evaluation.results import Interval

NORMAL = NormalDist()
LEVEL = NORMAL.inv_cdf(0.975)


@dataclass(frozen=True)
class SampleSize:
    """The size of a test, from which follows how much more would do.

    Attributes:
        n_queries: Queries that are compared.
        queries_per_day: How many a day of the test window gives; None if it is not known.
    """

    __test__ = False  # the name is no test of pytest's

    n_queries: int
    queries_per_day: float | None = None

    def describe_more(self, factor: float) -> str:
        """How many more queries, and days, make the test ``factor`` times as large."""
        more = math.ceil(self.n_queries * max(factor - 1.0, 0.0))
        if more < 1:
            return ""
        days = more / self.queries_per_day if self.queries_per_day else None
        at_rate = f", {math.ceil(days):,} days at this window's rate," if days else ""
        return f"about {more:,} more queries{at_rate} would do"


def detectable(gain: Interval, power: float) -> float | None:
    """The smallest difference that this test detects with a power; None if it is not known."""
    return None if gain.se is None else (LEVEL + NORMAL.inv_cdf(power)) * gain.se


def chance_of_equal(gain: Interval, margin: float) -> float | None:
    """The chance that a method that is exactly as good is shown to be within the margin."""
    if gain.se is None:
        return None
    return 1.0 if gain.se == 0.0 else NORMAL.cdf(margin / gain.se - LEVEL)


def needed_factor(gain: Interval, distance: float, power: float) -> float | None:
    """How many times as large a test must be to detect a distance; None if none is enough."""
    smallest = detectable(gain, power)
    if smallest is None or distance <= 0.0:
        return None
    return (smallest / distance) ** 2

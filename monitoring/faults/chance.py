"""What chance, and the usual differences between days, explain of a share."""

import numpy as np
from scipy.special import ndtr, ndtri

USUAL_DIFFERENCE = 0.002
"""Standard deviation of a share between days, where the days do not tell."""


def compare_shares(
    k: float, n: float, k0: float, n0: float, rate: float, between_days: float = USUAL_DIFFERENCE
) -> tuple[float, float, float]:
    """How much larger the share k/n is than k0/n0.

    Returns:
        The difference, the difference that is exceeded with probability ``rate`` where the shares
        are alike, and the probability of at least this difference.
    """
    pooled = min(max((k + k0 + 0.5) / (n + n0 + 1), 0.5 / n), 1.0)
    variance = pooled * (1 - pooled) * (1 / n + 1 / max(n0, 1)) + between_days**2
    deviation = float(np.sqrt(max(variance, 1e-12)))
    difference = k / n - (k0 / n0 if n0 else 0.0)
    return difference, deviation * float(-ndtri(rate)), float(ndtr(-difference / deviation))

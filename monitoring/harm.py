"""Harm: how many purchases a change costs, and whether a refit is worth its price."""

from collections.abc import Sequence

from monitoring.settings import PolicySettings
from refit.drift import DriftResult, DriftState
from refit.settings import Settings

PURCHASES = "live:purchase-rate"
_USUAL_FALL = 0.1
"""Standard deviation of true falls, as a share of the rate."""
UNSEEN = ("query-embedding/new_region", "listing-embedding/new_region")


class Harm(Settings):
    """What a change costs if nobody acts.

    Attributes:
        purchases: Purchases that are expected to be lost within the horizon of the policy.
        a_day: Purchases a day before the change; None if that is not known.
        is_measured: Whether it rests on live quality; otherwise on what is assumed.
        because: How it was found, in a sentence.
    """

    purchases: float
    a_day: float | None
    is_measured: bool
    because: str


def estimate_harm(
    policy: PolicySettings, results: Sequence[DriftResult], window_days: float
) -> Harm:
    """The expected loss of the newest window's state over the policy's horizon.

    Where the purchase rate was measured, the loss is its fall below what is expected, as far as it
    is sure. Where it was not, answers that meet what the model has never seen are assumed to lose
    ``assumed_loss`` of their purchases.

    Args:
        policy: Horizon and assumptions.
        results: Of the newest window.
        window_days: Its length.
    """
    quality = next((r for r in results if r.subject == PURCHASES and r.level is not None), None)
    if quality is None:
        return Harm(
            purchases=0.0,
            a_day=None,
            is_measured=False,
            because="what it costs is not known: purchases are not measured",
        )
    assert quality.level is not None
    answers = quality.n_current / window_days
    if quality.value is not None and quality.interval is not None:
        low, high = quality.interval
        error = max((high - low) / 3.92, 1e-9)
        before = quality.level + quality.value
        lost = _expect_fall(quality.value, error, before)
        return Harm(
            purchases=lost * answers * policy.horizon_days,
            a_day=before * answers,
            is_measured=True,
            because=(
                f"{quality.level:.2%} of the answers lead to a purchase, {before:.2%} are "
                f"expected: {lost * answers * policy.horizon_days:.3g} purchases are lost in "
                f"{policy.horizon_days:g} days if that goes on"
            ),
        )
    unseen = max(
        (r.value for r in results if r.name in UNSEEN and r.state is DriftState.DRIFT and r.value),
        default=0.0,
    )
    lost = quality.level * policy.assumed_loss * unseen
    return Harm(
        purchases=lost * answers * policy.horizon_days,
        a_day=quality.level * answers,
        is_measured=False,
        because=(
            f"live quality is not known yet ({quality.why or 'nothing to compare with'}); "
            f"{unseen:.1%} of the vectors are unlike any before, which is assumed to lose "
            f"{lost * answers * policy.horizon_days:.3g} purchases in {policy.horizon_days:g} days"
        ),
    )


def _expect_fall(fall: float, error: float, before: float) -> float:
    """The mean of the true fall, given the measured one and how far falls usually go.

    Where nothing fell, chance alone must not look like a loss: the measured fall is drawn towards
    none, the more the less sure it is. Source: the normal posterior mean, Efron and Morris, 1973.
    """
    usual = (_USUAL_FALL * before) ** 2
    return max(0.0, fall * usual / (usual + error**2))

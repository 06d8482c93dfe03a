"""Settings of the deployment step and of a rollout on a cluster."""

from typing import Literal, Self

from pydantic import Field, model_validator

from refit.settings import FiniteSettings


class DeploySettings(FiniteSettings):
    """How a bundle goes live.

    Attributes:
        target: ``local`` makes the bundle champion, and the registry's servers load it. ``seldon``
            proposes it, and ``refit rollout reconcile`` promotes it or rolls it back.
        by: Author, recorded in the audit trail.
        keep_bundles: Number of newest bundles to keep. The champion and its predecessor are never
            removed.
        keep_refused: Number of newest bundles to keep among those that the gate refused, so that a
            person can promote one of them; they do not count as ``keep_bundles``.
        keep_compared: Whether to keep also the bundles that the new one was compared with, since
            the gate compares later ones with the best of them.
    """

    target: Literal["local", "seldon"] = "local"
    by: str = Field(default="pipeline", min_length=1)
    keep_bundles: int = Field(default=20, ge=2)
    keep_refused: int = Field(default=5, ge=0)
    keep_compared: bool = True


class RolloutSettings(FiniteSettings):
    """How a new bundle is rolled out on a SeldonDeployment.

    Each measure is a proportion of a predictor's answers. The canary's proportion is compared with
    the baseline's, which is the main predictor: as a difference, except for clicks and purchases,
    which are relative to the baseline. The canary is promoted when every measure is shown to be
    within its limit. It is rolled back when one measure is shown to exceed its limit, or at the
    deadline. ``components.deployment.canary`` describes the method.

    Attributes:
        name: The SeldonDeployment.
        split: What splits the traffic. ``istio``: the VirtualService that Seldon's operator writes
            from the predictors' weights; ``gateway``: the HTTPRoute and GRPCRoute with the
            SeldonDeployment's name, whose weights the rollout sets; ``replicas``: a plain Service
            over all predictors' pods, so that each predictor gets its share of the ready pods.
        share: Percent of the traffic for the canary. With ``replicas`` the canary gets the number
            of pods, at least one, that comes closest: with two main pods one canary pod, a third.
        min_requests: Number of requests that each predictor must have answered before a promotion.
            Of clicks and purchases the effective number of independent answers counts.
        min_users: Number of people that each predictor must have answered before its quality
            promotes it or rolls it back; an answer without a user counts as a person.
        min_days: Number of whole days that the comparison lasts at least before a promotion, since
            people do not want the same at all hours and on all days.
        confidence_error: Probability that a rollout is decided wrongly by chance, over all
            comparisons together.
        error_increase: Allowed increase in the proportion of failed requests.
        fallback_increase: Allowed increase in the proportion of fallbacks to popularity.
        slow_ms: An answer that takes longer, in milliseconds, is slow; rounded up to the next
            bucket bound of the histogram.
        slow_increase: Allowed increase in the proportion of slow answers.
        click_tolerance, purchase_tolerance: The canary's share of answers with a click, or with a
            purchase, may be lower than the baseline's by at most this share of the baseline's, for
            the end of the interval that is worst for the canary. It is the rule of the gate, see
            ``evaluation.champion_tolerance``. None does not compare it.
        click_events, purchase_events: Event types of the two outcomes; as in
            ``monitoring.measure``.
        outcome_minutes: Answers younger than this are not counted: their outcome may still follow.
        restarts: The canary is rolled back after more container restarts than this.
        deadline_hours: The canary is rolled back if it has not been promoted by then.
        poll_seconds: Interval at which ``refit rollout reconcile`` reconciles.
    """

    name: str = "refit"
    split: Literal["istio", "gateway", "replicas"] = "istio"
    share: int = Field(default=10, ge=1, le=50)
    min_requests: int = Field(default=1000, ge=1)
    min_users: int = Field(default=100, ge=2)
    min_days: int = Field(default=1, ge=0)
    confidence_error: float = Field(default=0.05, gt=0, lt=0.5)
    error_increase: float = Field(default=0.01, gt=0, lt=1)
    fallback_increase: float = Field(default=0.02, gt=0, lt=1)
    slow_ms: float = Field(default=200.0, ge=1, le=30_000)
    slow_increase: float = Field(default=0.05, gt=0, lt=1)
    click_tolerance: float | None = Field(default=0.1, gt=0, lt=1)
    purchase_tolerance: float | None = Field(default=0.25, gt=0, lt=1)
    click_events: tuple[str, ...] = ("view", "like", "cart", "offer", "purchase")
    purchase_events: tuple[str, ...] = ("purchase",)
    outcome_minutes: float = Field(default=60.0, ge=0)
    restarts: int = Field(default=3, ge=0)
    deadline_hours: float = Field(default=96.0, gt=0)
    poll_seconds: float = Field(default=15.0, gt=0)

    @model_validator(mode="after")
    def _check_deadline(self) -> Self:
        if self.deadline_hours <= 24 * self.min_days:
            raise ValueError(
                f"deadline_hours is {self.deadline_hours:g}, but the comparison lasts at least "
                f"{self.min_days} whole days (min_days): nothing could ever be promoted"
            )
        return self

    @property
    def outcomes(self) -> dict[str, tuple[str, ...]]:
        """The event types of each outcome that is compared."""
        every = {
            "clicks": (self.click_tolerance, self.click_events),
            "purchases": (self.purchase_tolerance, self.purchase_events),
        }
        return {name: types for name, (tolerance, types) in every.items() if tolerance is not None}

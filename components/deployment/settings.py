"""Settings of the deployment step and of a rollout on a cluster."""

from typing import Literal

from pydantic import Field

from refit.settings import FiniteSettings


class DeploySettings(FiniteSettings):
    """How a bundle goes live.

    Attributes:
        target: ``local`` makes the bundle champion, and the registry's servers load it. ``seldon``
            proposes it, and ``refit rollout reconcile`` promotes it or rolls it back.
        by: Author, recorded in the audit trail.
        keep_bundles: Number of newest bundles to keep. The champion and its predecessor are never
            removed.
    """

    target: Literal["local", "seldon"] = "local"
    by: str = Field(default="pipeline", min_length=1)
    keep_bundles: int = Field(default=20, ge=2)


class RolloutSettings(FiniteSettings):
    """How a new bundle is rolled out on a SeldonDeployment.

    Each measure is a proportion of a predictor's answers. The canary's proportion is compared with
    the baseline's, which is the main predictor: as a difference, except for quality, which is
    relative to the baseline. The canary is promoted when every measure is shown to be within its
    limit. It is rolled back when one measure is shown to exceed its limit, or at the deadline.
    ``components.deployment.canary`` describes the method.

    Attributes:
        name: The SeldonDeployment.
        split: What splits the traffic. ``istio``: the VirtualService that Seldon's operator writes
            from the predictors' weights; ``gateway``: the HTTPRoute and GRPCRoute with the
            SeldonDeployment's name, whose weights the rollout sets; ``replicas``: a plain Service
            over all predictors' pods, so that each predictor gets its share of the ready pods.
        share: Percent of the traffic for the canary. With ``replicas`` the canary gets the number
            of pods, at least one, that comes closest: with two main pods one canary pod, a third.
        min_requests: Number of requests that each predictor must have answered before a promotion.
        confidence_error: Probability that a rollout is decided wrongly by chance, over all
            comparisons together.
        error_increase: Allowed increase in the proportion of failed requests.
        fallback_increase: Allowed increase in the proportion of fallbacks to popularity.
        slow_ms: An answer that takes longer, in milliseconds, is slow; rounded up to the next
            bucket bound of the histogram.
        slow_increase: Allowed increase in the proportion of slow answers.
        quality_drop: Allowed relative decrease in the proportion of answers with an outcome; None
            does not compare quality.
        outcome_events: Event types that count as an outcome.
        outcome_minutes: Answers younger than this are not counted: their outcome may still follow.
        restarts: The canary is rolled back after more container restarts than this.
        deadline_hours: The canary is rolled back if it has not been promoted by then.
        poll_seconds: Interval at which ``refit rollout reconcile`` reconciles.
    """

    name: str = "refit"
    split: Literal["istio", "gateway", "replicas"] = "istio"
    share: int = Field(default=10, ge=1, le=50)
    min_requests: int = Field(default=1000, ge=1)
    confidence_error: float = Field(default=0.05, gt=0, lt=0.5)
    error_increase: float = Field(default=0.01, gt=0, lt=1)
    fallback_increase: float = Field(default=0.02, gt=0, lt=1)
    slow_ms: float = Field(default=200.0, ge=1, le=30_000)
    slow_increase: float = Field(default=0.05, gt=0, lt=1)
    quality_drop: float | None = Field(default=0.25, gt=0, lt=1)
    outcome_events: tuple[str, ...] = ("view", "like", "cart", "offer", "purchase")
    outcome_minutes: float = Field(default=60.0, ge=0)
    restarts: int = Field(default=3, ge=0)
    deadline_hours: float = Field(default=24.0, gt=0)
    poll_seconds: float = Field(default=15.0, gt=0)

"""Settings of the deployment step, and of a rollout on a cluster."""

from typing import Literal

from pydantic import Field

from refit.settings import Settings


class DeploySettings(Settings):
    """How a bundle goes live.

    Attributes:
        target: ``local`` makes it champion, and servers of the registry take it over. ``seldon``
            proposes it: ``refit rollout reconcile`` leads it to the champion's place, or back.
        by: The name in the audit line.
        keep_bundles: Older bundles are removed, never the champion nor its predecessor.
    """

    target: Literal["local", "seldon"] = "local"
    by: str = Field(default="pipeline", min_length=1)
    keep_bundles: int = Field(default=20, ge=2)


class RolloutSettings(Settings):
    """How a SeldonDeployment takes over a new bundle.

    What an arm does worse is a share of its answers; it is compared as the difference between the
    arms' shares, but quality as a part of the main arm's. The canary is promoted once every
    difference is proved to stay within what is allowed, rolled back once one is proved to exceed
    it or at the deadline, and held in between; ``components.deployment.canary`` tells how.

    Attributes:
        name: The SeldonDeployment.
        split: Who splits the traffic. ``istio``: the VirtualService that Seldon's operator writes
            from the predictors' weights; ``gateway``: the HTTPRoute and GRPCRoute of the
            SeldonDeployment's name, whose weights the rollout writes; ``replicas``: a plain Service
            over all predictors' pods, so that an arm's share is its share of the ready pods.
        share: Percent of the traffic that the canary gets. With ``replicas`` it is what the
            canary's number of pods, at least one, comes nearest to: with two pods of the main arm
            that is a third.
        min_requests: So many requests each arm must have answered before it is promoted.
        confidence_error: How often a rollout may be judged wrongly by chance, all looks together.
        error_increase: Allowed difference in answers that failed.
        fallback_increase: Allowed difference in answers that popularity gave.
        slow_ms: An answer above it is slow; taken up to the next bound of the histogram.
        slow_increase: Allowed difference in slow answers.
        quality_drop: Allowed loss of answers that led to something, as a part of the main arm's
            share; None does not compare quality.
        outcome_events: The event types that count as something.
        outcome_minutes: Answers younger than it are left out, since people are still at it.
        restarts: More container restarts than this roll the canary back.
        deadline_hours: What has not proved itself by then is rolled back.
        poll_seconds: How often ``refit rollout reconcile`` looks.
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

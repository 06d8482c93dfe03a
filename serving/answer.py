"""The answer: what a request for recommendations is answered with, as clients read it."""

from pydantic import BaseModel, ConfigDict, Field


class AnsweredItem(BaseModel):
    """One recommended item."""

    model_config = ConfigDict(frozen=True, extra="allow")

    item_id: str
    score: float
    why: dict[str, object] | None = Field(
        None, description="Where it comes from and why; only with `explain`."
    )


class RecommendationAnswer(BaseModel):
    """Recommended items, best first. A newer server may add fields.

    Attributes:
        request_id: Id of the request; outcomes name it.
        bundle_id: The bundle that answered.
        items: At most k items.
        fallback: None, or the reason why the model was not used; ``holdout`` is no failure.
        cursor: Of the next page, where the request has one; None after the last.
        baseline: True where no model is served yet, and popularity in the context answers.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    request_id: str
    bundle_id: str
    items: list[AnsweredItem] = Field(description="At most k items, best first.")
    fallback: str | None = Field(
        None, description="Why the model was not used; null if it was. `holdout` is no failure."
    )
    cursor: str | None = Field(
        None, description="Asks for the next page; only where the request had one."
    )
    baseline: bool = Field(
        False, description="True where a baseline is served as itself; left out where a model is."
    )


class TakenLines(BaseModel):
    """What became of lines of a feed that came as a request."""

    model_config = ConfigDict(frozen=True, extra="allow")

    accepted: int = Field(description="Lines that are in the feed now.")
    refused: int = Field(description="Lines that break the contract; they are not in the feed.")
    reasons: list[tuple[int, str]] = Field(
        description="Of the first refused lines, number, from 0, and reason."
    )


class ServiceStatus(BaseModel):
    """What is served now."""

    model_config = ConfigDict(frozen=True, extra="allow")

    bundle_id: str
    kind: str = "model"
    towers: str
    search: str = "embedded"
    live_items: int
    ready: bool = True


class Refusal(BaseModel):
    """Why a request was not answered."""

    model_config = ConfigDict(frozen=True)

    error: str

"""What may be asked: every field typed and bounded, so that a bad request is refused in words."""

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from refit.columns import Range
from refit.contract import EventType
from refit.errors import UsageError

MAX_K = 500
MAX_HISTORY = 1000
MAX_EXCLUDE = 10_000
MAX_NAMES = 64
MAX_VALUES = 1000
MAX_FAULTS = 5
YEARS = range(1970, 2200)


class RequestError(UsageError):
    """A request that cannot be understood; the message says why, for the one who sent it."""


def _as_whole(value: Any) -> Any:
    """Numbers of a protobuf Struct are all floats; a whole one is the int that was meant."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _as_utc(value: Any) -> Any:
    """ISO 8601 text; a time without a zone is UTC."""
    if not isinstance(value, str):
        raise ValueError("a time is ISO 8601 text")
    moment = datetime.fromisoformat(value)
    # At the edges of the calendar a change of zone overflows.
    if moment.year not in YEARS:
        raise ValueError(f"the year must lie in {YEARS.start}-{YEARS.stop - 1}")
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


# With its length bounded, pydantic also refuses text that is not valid Unicode.
Text = Annotated[str, Field(max_length=1024)]
Id = Annotated[str, Field(min_length=1, max_length=256)]
Name = Annotated[str, Field(min_length=1, max_length=128)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Time = Annotated[datetime, BeforeValidator(_as_utc)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class PastEvent(_Part):
    """One thing the user did."""

    item_id: Id
    event_type: Annotated[EventType, Field(strict=False)]
    event_time: Time


class Request(_Part):
    """One question for recommendations.

    Attributes:
        user_id: Who asks; brings history, purchases and own listings with it.
        history: What the user did lately, in any order; given, it replaces the stored history.
        context: Values known when asking, by the feature spec's context columns.
        k: How many items to answer.
        exclude: Items that must not come back.
        hidden: Items that the user has hidden lately; beside those that are known already.
        require: Allowed values, or a range, by item attribute.
        request_id: Name of this request; made up when missing.
        time: Now, when the server allows replay.
    """

    user_id: Id | None = None
    history: Annotated[list[PastEvent], Field(max_length=MAX_HISTORY)] | None = None
    context: Annotated[dict[Name, Text | Number | None], Field(max_length=MAX_NAMES)] = {}
    k: Annotated[int, Field(ge=1, le=MAX_K), BeforeValidator(_as_whole)] = 10
    exclude: Annotated[list[Id], Field(max_length=MAX_EXCLUDE)] = []
    hidden: Annotated[list[Id], Field(max_length=MAX_EXCLUDE)] = []
    require: Annotated[
        dict[Name, Annotated[list[Text | Number], Field(max_length=MAX_VALUES)] | Range],
        Field(max_length=MAX_NAMES),
    ] = {}
    request_id: Id | None = None
    time: Time | None = None


def parse_request(body: Any) -> Request:
    """Read a request from parsed JSON.

    Raises:
        RequestError: It is malformed, too large or wrongly typed; the first faults are listed.
    """
    if not isinstance(body, dict):
        raise RequestError(f"a request is a JSON object, got {type(body).__name__}")
    try:
        return Request.model_validate(body)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        lines = [f"{_path(fault['loc'])}: {_message(fault)}" for fault in faults[:MAX_FAULTS]]
        more = len(faults) - len(lines)
        raise RequestError("; ".join(lines) + (f"; and {more} more" if more else "")) from None


def _message(fault: Any) -> str:
    if fault["type"] == "extra_forbidden":
        return f"unknown name; known names: {', '.join(Request.model_fields)}"
    return str(fault["msg"])


def _path(location: tuple[Any, ...]) -> str:
    text = ".".join(str(part)[:64] for part in location)
    return text.encode(errors="replace").decode() or "request"

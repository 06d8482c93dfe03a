"""The request: every field is typed and bounded, so that an invalid one is refused clearly."""

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
MAX_BATCH = 100
MAX_CURSOR = 1 << 18
MAX_FAULTS = 5
YEARS = range(1970, 2200)


class RequestError(UsageError):
    """An invalid request; the message has the reason, for the client."""


def _as_whole(value: Any) -> Any:
    """Convert a whole float to int, since all numbers of a protobuf Struct are floats."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _as_utc(value: Any) -> Any:
    """Parse ISO 8601 text; a time without a zone is UTC."""
    if not isinstance(value, str):
        raise ValueError("a time is ISO 8601 text")
    time = datetime.fromisoformat(value)
    # At the limits of the calendar a conversion to UTC overflows.
    if time.year not in YEARS:
        raise ValueError(f"the year must be in {YEARS.start}-{YEARS.stop - 1}")
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


# With its length bounded, pydantic also refuses text that is not valid Unicode.
Text = Annotated[str, Field(max_length=1024)]
Id = Annotated[str, Field(min_length=1, max_length=256)]
Name = Annotated[str, Field(min_length=1, max_length=128)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Time = Annotated[datetime, BeforeValidator(_as_utc)]
K = Annotated[int, Field(ge=1, le=MAX_K), BeforeValidator(_as_whole)]
Items = Annotated[list[Id], Field(max_length=MAX_EXCLUDE)]
Context = Annotated[dict[Name, Text | Number | None], Field(max_length=MAX_NAMES)]
Required = Annotated[
    dict[Name, Annotated[list[Text | Number], Field(max_length=MAX_VALUES)] | Range],
    Field(max_length=MAX_NAMES),
]
Cursor = Annotated[str, Field(max_length=MAX_CURSOR)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class PastEvent(_Part):
    """One past event of the user."""

    item_id: Id
    event_type: Annotated[EventType, Field(strict=False)]
    event_time: Time


class Request(_Part):
    """A request for recommendations.

    Attributes:
        user_id: The user, whose stored history, purchases, hides and own listings are used.
        history: Recent events of the user, in any order; if given, replaces the stored history. The
            towers see those from before the running visit, unless the features were built with
            ``history_within_visit``.
        context: Values of the context columns of the feature spec.
        k: Number of items to return.
        exclude: Items that must not be returned.
        hidden: Items that the user has hidden recently, in addition to those in the bundle.
        require: Allowed values, or a range, by item attribute.
        request_id: Id of this request; generated if missing.
        time: The time that counts as now, if the server allows replay.
        personalised: False: the answer is what is popular overall, whoever asks and in whatever
            context. The eligibility rules apply all the same.
        explain: Add to each item why it was found.
        cursor: Continue a list: "" begins one, and each answer has the cursor of the next page.
    """

    user_id: Id | None = None
    history: Annotated[list[PastEvent], Field(max_length=MAX_HISTORY)] | None = None
    context: Context = {}
    k: K = 10
    exclude: Items = []
    hidden: Items = []
    require: Required = {}
    request_id: Id | None = None
    time: Time | None = None
    personalised: bool = True
    explain: bool = False
    cursor: Cursor | None = None


class SimilarRequest(_Part):
    """A request for items similar to one item, whoever asks.

    Attributes:
        item_id: The item; it may be sold.
        k: Number of items to return.
        exclude: Items that must not be returned.
        require: Allowed values, or a range, by item attribute.
        context: Context columns that an eligibility rule reads; the ranking is the same in any.
        request_id: Id of this request; generated if missing.
        time: The time that counts as now, if the server allows replay.
        cursor: Continue a list: "" begins one, and each answer has the cursor of the next page.
    """

    item_id: Id
    k: K = 10
    exclude: Items = []
    require: Required = {}
    context: Context = {}
    request_id: Id | None = None
    time: Time | None = None
    cursor: Cursor | None = None

    def as_request(self) -> Request:
        """The request of nobody that asks for the same, without the item itself."""
        values = {name: getattr(self, name) for name in SimilarRequest.model_fields}
        item_id = values.pop("item_id")
        return Request.model_construct(**values | {"exclude": [*self.exclude, item_id]})


class FeedLines(_Part):
    """Lines of a feed.

    Attributes:
        lines: Each as it stands in the feed; see ``serving.feeds.stock`` and ``activity``.
    """

    lines: list[dict[str, Any]]


class BatchRequest(_Part):
    """Several requests, which are answered together.

    Attributes:
        requests: Each a request of its own.
    """

    requests: Annotated[list[Request], Field(min_length=1, max_length=MAX_BATCH)]


def is_batch(body: Any) -> bool:
    """Whether a body is meant as a batch."""
    return isinstance(body, dict) and "requests" in body


def is_about_item(body: Any) -> bool:
    """Whether a body asks for items similar to one."""
    return isinstance(body, dict) and "item_id" in body


def parse_request(body: Any) -> Request:
    """Read a request from parsed JSON.

    Raises:
        RequestError: It is malformed, too large or wrongly typed; the first faults are listed.
    """
    return _parse(Request, body)


def parse_lines(body: Any) -> FeedLines:
    """Read lines of a feed from parsed JSON.

    Raises:
        RequestError: As ``parse_request``.
    """
    return _parse(FeedLines, body)


def parse_similar(body: Any) -> SimilarRequest:
    """Read a request for similar items from parsed JSON.

    Raises:
        RequestError: It is malformed, too large or wrongly typed; the first faults are listed.
    """
    return _parse(SimilarRequest, body)


def parse_batch(body: Any) -> list[Request]:
    """Read the requests of a batch from parsed JSON.

    Raises:
        RequestError: One is malformed, too large or wrongly typed; the first faults are listed.
    """
    return _parse(BatchRequest, body).requests


def _parse[P: _Part](kind: type[P], body: Any) -> P:
    if not isinstance(body, dict):
        raise RequestError(f"a request is a JSON object, got {type(body).__name__}")
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        lines = [f"{_path(fault['loc'])}: {_message(kind, fault)}" for fault in faults[:MAX_FAULTS]]
        more = len(faults) - len(lines)
        raise RequestError("; ".join(lines) + (f"; and {more} more" if more else "")) from None


def _message(kind: type[_Part], fault: Any) -> str:
    if fault["type"] == "extra_forbidden":
        inside = Request if kind is BatchRequest and len(fault["loc"]) > 1 else kind
        return f"unknown name; known names: {', '.join(inside.model_fields)}"
    return str(fault["msg"])


def _path(location: tuple[Any, ...]) -> str:
    text = ".".join(str(part)[:64] for part in location)
    return text.encode(errors="replace").decode() or "request"

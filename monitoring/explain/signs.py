"""Signs: what an incident shows, each yes, no or unknown. What is unknown is never evidence."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from monitoring.choices import PREFIX as CHOICE
from monitoring.explain.context import ExplainContext
from monitoring.explain.moves import FEED, Moves
from monitoring.subjects import EVENT_INPUTS
from refit.contract import EVENTS

ITEM_SHARES = ("input:items.*/value_shares",)
NEW_VALUES = ("input:items.*/new_values",)
VECTORS = ("input:items.*/vector_norm", "input:items.*/centroid_shift")
PRICES = ("input:items.price/quantile_shares",)
MODEL_RATES = ("live:click-lift/*", "live:purchase-lift/*")
PLAIN_RATES = ("live:click-rate/*", "live:purchase-rate/*")
_SURE_CHOICE, _NO_CHOICE = 1e-4, 1e-2
_CLEAR_CHANGE, _NO_CHANGE = 0.15, 0.08
_CLEAR_SCORE, _NO_SCORE = 3.5, 1.5
_LEVEL_DAYS = 8
_JUST_CHANGED = timedelta(days=2)
_OLDER = 1.2
_MOST_GONE = 0.6


@dataclass(frozen=True)
class Observed:
    """What signs are looked for in."""

    moves: Moves
    context: ExplainContext

    def change_of(self, name: str) -> float | None:
        """Relative change of a volume over the days of the incident; None if unknown.

        0 where it is too small or within chance; NaN is never returned.
        """
        own = [v for v in self.context.volumes if v.name == name]
        if not own:
            return None
        logs = [np.log(max(v.rows, 0.5) / max(v.expected, 0.5)) for v in own]
        mean = float(np.mean(logs))
        spread = float(np.mean([v.spread for v in own]))
        score = abs(mean) / (spread * np.sqrt(1 / len(own) + 1 / _LEVEL_DAYS))
        change = float(np.expm1(mean))
        if score >= _CLEAR_SCORE and abs(change) >= _CLEAR_CHANGE:
            return change
        if score <= _NO_SCORE or abs(change) <= _NO_CHANGE:
            return 0.0
        return None

    def grew(self, name: str) -> bool | None:
        """Whether there are more rows than expected."""
        change = self.change_of(name)
        return None if change is None else change > 0

    def fell(self, name: str) -> bool | None:
        """Whether there are fewer rows than expected."""
        change = self.change_of(name)
        return None if change is None else change < 0


@dataclass(frozen=True)
class CauseSign:
    """Something that an incident shows or does not show.

    Attributes:
        name: As in the table of ``likelihoods``.
        find: Whether it is there; None where that is not known.
        there: What is seen, for the person on call.
        absent: What is not seen.
    """

    name: str
    find: Callable[[Observed], bool | None]
    there: str
    absent: str


def _choice(brands: bool) -> Callable[[Observed], bool | None]:
    """Whether other brands, or other vectors, are chosen than before."""

    def is_named(name: str) -> bool:
        return name.startswith(CHOICE + "brand") == brands

    def find(seen: Observed) -> bool | None:
        if any(seen.moves.has_moved(n) for n in seen.moves.find(f"{CHOICE}*") if is_named(n)):
            return True
        for result in seen.context.choices:
            if is_named(result.subject) and result.p_value is not None:
                if result.p_value <= _SURE_CHOICE:
                    return True
                return False if result.p_value >= _NO_CHOICE else None
        return None

    return find


def _is_index_old(seen: Observed) -> bool | None:
    age = seen.context.index_age_days
    limits = (seen.context.usual_index_age_days, seen.context.longest_index_age_days)
    known = [limit for limit in limits if limit is not None]
    if age is None or not known:
        return None
    usual = seen.context.usual_index_age_days
    if usual is not None:
        return age > max(_OLDER * usual, usual + 1.0)
    return age > known[0]


def _is_champion_new(seen: Observed) -> bool | None:
    since = seen.context.champion_since
    if since is None:
        return None
    return bool(seen.moves.before) and seen.moves.began - since <= _JUST_CHANGED


def _one_value(seen: Observed) -> bool | None:
    return _explains(seen, lambda each: bool(each))


def _one_mix(seen: Observed) -> bool | None:
    return _explains(seen, lambda each: not each)


def _explains(seen: Observed, wanted: Callable[[str], bool]) -> bool | None:
    found = [w for w in seen.context.without if wanted(w.value) and len(w.measured) >= 2]
    if not found:
        return None
    return any(len(w.gone) >= _MOST_GONE * len(w.measured) for w in found)


def _most(*patterns: str) -> Callable[[Observed], bool | None]:
    return lambda seen: seen.moves.most_moved(*patterns)


def _asks_otherwise(seen: Observed) -> bool | None:
    """Whether a column of the events beyond the contract, a context, has other values."""
    contract = {f"{EVENT_INPUTS}{column.name}/value_shares" for column in EVENTS}
    contexts = set(seen.moves.find(f"{EVENT_INPUTS}*/value_shares")) - contract
    return seen.moves.most_moved(*sorted(contexts))


def _has_fault(seen: Observed) -> bool | None:
    return seen.moves.most_moved(FEED + "*")


def _has_fewer_events(seen: Observed) -> bool | None:
    events, answers = seen.fell("events"), seen.fell("answers")
    return events and not answers if events is not None and answers is not None else None


def _one_column(seen: Observed) -> bool | None:
    """Whether the results of one column of the items moved, and of no other.

    Prices move by themselves in every market.
    """
    names = seen.moves.find("input:items.*")
    columns = {name.split("/")[0] for name in names if seen.moves.has_moved(name)}
    if not columns:
        return None
    return len(columns) == 1 and columns != {"input:items.price"}


def _queries_alone(seen: Observed) -> bool | None:
    queries = seen.moves.most_moved("query-embedding/*")
    inputs = (seen.moves.most_moved("input:*"), _has_fault(seen))
    if queries is False or any(inputs):
        return False
    return None if queries is None or None in inputs else True


SIGNS = (
    CauseSign(
        "named fault",
        _has_fault,
        "a feed shows a fault that no change of the market shows",
        "no feed shows the sign of a named fault",
    ),
    CauseSign(
        "new values",
        _most(*NEW_VALUES),
        "new listings have values that were never seen",
        "new listings have no values that were never seen",
    ),
    CauseSign(
        "listed shares",
        _most(*ITEM_SHARES),
        "the shares of known values among new listings changed",
        "the shares of values among new listings are as before",
    ),
    CauseSign(
        "prices",
        _most(*PRICES),
        "the prices of new listings changed",
        "the prices of new listings are as before",
    ),
    CauseSign(
        "missing values",
        _most("input:items.*/null_share"),
        "more values of new listings are missing",
        "no more values of new listings are missing than before",
    ),
    CauseSign(
        "one column",
        _one_column,
        "a single column of new listings moved, and it is not the price",
        "not just one column of new listings moved, or it is the price",
    ),
    CauseSign(
        "picture vectors",
        _most(*VECTORS),
        "the picture vectors of new listings changed",
        "the picture vectors of new listings are as before",
    ),
    CauseSign(
        "asked for",
        _asks_otherwise,
        "people ask for other things",
        "people ask for what they asked for before",
    ),
    CauseSign(
        "queries",
        _most("query-embedding/*"),
        "query embeddings moved",
        "query embeddings are as before",
    ),
    CauseSign(
        "queries alone",
        _queries_alone,
        "query embeddings moved, and nothing that queries are made of did",
        "query embeddings did not move by themselves",
    ),
    CauseSign(
        "scores",
        _most("scores/*"),
        "the model's scores changed beyond what the age of the index explains",
        "the model's scores are as before",
    ),
    CauseSign(
        "recommended mix",
        _most("mix:*"),
        "other things are recommended",
        "the mix of what is recommended is as before",
    ),
    CauseSign(
        "more listings",
        lambda seen: seen.grew("listings"),
        "there are more new listings than on the days before",
        "there are no more new listings than on the days before",
    ),
    CauseSign(
        "fewer listings",
        lambda seen: seen.fell("listings"),
        "there are fewer new listings than on the days before",
        "there are as many new listings as before",
    ),
    CauseSign(
        "fewer events",
        _has_fewer_events,
        "there are fewer events than on the days before, but as many answers",
        "there are as many events as before",
    ),
    CauseSign(
        "model fell",
        _most(*MODEL_RATES),
        "people do less with the answers, and not less without them",
        "people do as much with the answers, relative to those who do not get them",
    ),
    CauseSign(
        "purchases fell",
        lambda seen: seen.fell("purchases per view"),
        "people who browse by themselves buy less of what they view",
        "people who browse by themselves buy as much of what they view",
    ),
    CauseSign(
        "liked vectors",
        _choice(brands=False),
        "among what people look at they like other pictures than before",
        "among what people look at they like the same pictures as before",
    ),
    CauseSign(
        "liked brands",
        _choice(brands=True),
        "among what people look at they like other brands than before",
        "among what people look at they like the same brands as before",
    ),
    CauseSign(
        "old index",
        _is_index_old,
        "the index is older than it ever was before",
        "the index is no older than usual",
    ),
    CauseSign(
        "new champion",
        _is_champion_new,
        "the model changed when it began",
        "the model has not changed",
    ),
    CauseSign(
        "worse than before",
        _most("promotion:*"),
        "people do less with the answers than with those of the model before",
        "people do as much with the answers as with those of the model before",
    ),
    CauseSign(
        "one value",
        _one_value,
        "without the rows of one value most of the drift is gone",
        "no single value explains the drift",
    ),
    CauseSign(
        "one mix",
        _one_mix,
        "with the categories' shares as before most of the drift is gone",
        "the drift remains with the categories' shares as before",
    ),
)
"""All signs, in the order of the table."""


def find_signs(seen: Observed) -> dict[str, bool | None]:
    """Each sign by name: there, not there, or not known."""
    return {sign.name: sign.find(seen) for sign in SIGNS}

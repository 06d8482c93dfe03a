"""Subjects: what is measured of the reference tables, and by which drift metrics."""

import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from monitoring.frame import Frame, count_values, find_missing, find_vector_length, is_number
from monitoring.settings import MeasureSettings
from refit.contract import EVENTS, ITEMS, Column
from refit.errors import DataValidationError, UsageError

SubjectKind = Literal[
    "embedding", "score", "mix", "concentration", "number", "category", "vector", "text"
]
EVENT_INPUTS = "input:events."
IDENTIFIERS = frozenset({"user_id", "item_id", "seller_id", "session_id", "request_id"})
"""Columns that are not measured: new identifiers every day are normal for a marketplace."""


@dataclass(frozen=True)
class Subject:
    """One thing that is measured.

    Attributes:
        name: Such as ``scores``, ``mix:brand`` or ``input:items.price``.
        table: ``answers``, ``listings``, ``items`` or ``events``.
        column: A column of that table.
        kind: By which the settings choose its drift metrics.
    """

    name: str
    table: str
    column: str
    kind: SubjectKind


def list_subjects(
    frames: Mapping[str, Frame], context_columns: Sequence[str], settings: MeasureSettings
) -> list[Subject]:
    """Every subject that the reference tables have rows for."""
    subjects = [
        Subject("query-embedding", "answers", "query_embedding", "embedding"),
        Subject("listing-embedding", "listings", "embedding", "embedding"),
        Subject("scores", "answers", "score", "score"),
    ]
    for column in settings.mix_columns:
        if column in frames["answers"].names:
            kind: SubjectKind = "mix"
            if column in settings.concentration_columns:
                kind = "concentration"
            subjects.append(Subject(f"mix:{column}", "answers", column, kind))
    for table, contract, further in (("items", ITEMS, ()), ("events", EVENTS, context_columns)):
        subjects += [
            Subject(f"input:{table}.{column}", table, column, found)
            for column in dict.fromkeys([*_measured(contract), *further])
            if (found := _find_kind(frames[table], column, settings))
        ]
    return subjects


def check_patterns(settings: MeasureSettings) -> None:
    """Check, before there is any data, that the extra metrics can find a subject.

    Which columns the events have beyond the contract is known only from the data, so a pattern that
    may match one of them, such as ``input:events.*`` or ``input:*.colour``, is not checked here.

    Raises:
        UsageError: A pattern matches no subject that there can be.
    """
    possible = [
        *("query-embedding", "listing-embedding", "scores"),
        *(f"mix:{column}" for column in settings.mix_columns),
        *(f"input:items.{column}" for column in _measured(ITEMS)),
        *(f"input:events.{column}" for column in _measured(EVENTS)),
    ]
    for extra in settings.extra_metrics:
        for pattern in extra.subjects:
            if _may_match_events(pattern) or fnmatch.filter(possible, pattern):
                continue
            close = get_close_matches(pattern, possible, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise UsageError(
                f"monitoring.measure.extra_metrics: {pattern!r} of {extra.metric} matches no "
                f"subject: {hint}there can be: {', '.join(possible)}, and {EVENT_INPUTS}COLUMN"
            )


def choose_metrics(
    subjects: Sequence[Subject], settings: MeasureSettings
) -> Iterator[tuple[Subject, str]]:
    """Each subject with the name of each drift metric that measures it.

    Raises:
        DataValidationError: No subject matches the patterns of an extra metric.
    """
    for extra in settings.extra_metrics:
        if not any(extra.measures(subject.name) for subject in subjects):
            raise DataValidationError(
                f"extra_metrics: no subject of {extra.metric} matches "
                f"{', '.join(extra.subjects)}; there are: {', '.join(s.name for s in subjects)}"
            )
    for subject in subjects:
        by_kind: tuple[str, ...] = getattr(settings.metrics, subject.kind)
        extras = [e.metric for e in settings.extra_metrics if e.measures(subject.name)]
        for metric in dict.fromkeys([*by_kind, *extras]):
            yield subject, metric


def _may_match_events(pattern: str) -> bool:
    start = re.split(r"[*?[]", pattern, maxsplit=1)[0]
    return start.startswith(EVENT_INPUTS) or (start != pattern and EVENT_INPUTS.startswith(start))


def _measured(contract: Iterable[Column]) -> list[str]:
    return [c.name for c in contract if c.kind != "time" and c.name not in IDENTIFIERS]


def _find_kind(frame: Frame, column: str, settings: MeasureSettings) -> SubjectKind | None:
    """The kind of an input column; None where it is not there or holds no value."""
    if column not in frame.names:
        return None
    cells = frame.column(column)
    length = find_vector_length(cells)
    if find_missing(cells, length).all():
        return None
    if length:
        return "vector"
    if is_number(cells):
        return "number"
    return "category" if len(count_values(cells)) <= settings.largest_vocabulary else "text"

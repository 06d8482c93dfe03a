"""Cron expressions as Kubeflow Pipelines reads them: six fields, seconds first."""

import re

from refit.errors import UsageError

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
FIELDS: tuple[tuple[str, int, int, tuple[str, ...]], ...] = (
    ("second", 0, 59, ()),
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of month", 1, 31, ()),
    ("month", 1, 12, MONTHS),
    ("day of week", 0, 6, DAYS),
)
EXAMPLE = '"0 0 3 * * *" is every night at three'


def check_cron(text: str) -> str:
    """Check a cron expression and return it with single spaces.

    Raises:
        UsageError: It does not have six fields, or one of them is invalid.
    """
    parts = text.split()
    if len(parts) == 5:
        raise UsageError(
            f"cron {text!r} has five fields; six are needed, seconds first: did you mean "
            f'"0 {" ".join(parts)}"?'
        )
    if len(parts) != len(FIELDS):
        names = ", ".join(name for name, *_ in FIELDS)
        raise UsageError(f"cron {text!r} must have six fields ({names}): {EXAMPLE}")
    for part, (name, low, high, words) in zip(parts, FIELDS, strict=True):
        for piece in part.split(","):
            _check_piece(piece, name, low, high, words)
    return " ".join(parts)


def _check_piece(piece: str, name: str, low: int, high: int, words: tuple[str, ...]) -> None:
    """Check one piece of a field: ``*``, ``5`` or ``1-5``, with or without ``/step``."""

    def fail(why: str) -> UsageError:
        return UsageError(f"cron, {name}: {piece!r} {why}; {EXAMPLE}")

    span, slash, step = piece.partition("/")
    if slash and not (step.isdecimal() and int(step) > 0):
        raise fail("has a step that is not a positive number")
    if span == "*" or (span == "?" and name.startswith("day")):
        return
    numbers = []
    for end in span.split("-"):
        if end.lower() in words:
            numbers.append(words.index(end.lower()) + low)
        elif re.fullmatch(r"\d+", end):
            numbers.append(int(end))
        else:
            known = f", or {words[0]} to {words[-1]}" if words else ""
            raise fail(f"is not *, {low} to {high}{known}, a-b or */n")
    if not all(low <= number <= high for number in numbers):
        raise fail(f"is not within {low} to {high}")
    if len(numbers) > 2 or numbers != sorted(numbers):
        raise fail("is not a range from low to high")

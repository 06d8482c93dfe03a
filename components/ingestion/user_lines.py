"""Text files with a line for each user, ``user item item ...``, as public tables use them."""

from collections.abc import Iterator
from pathlib import Path

from refit.errors import DataValidationError


def read_user_lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Each user with their items, in the order of the file.

    Raises:
        DataValidationError: A line has no item, or a user two lines.
    """
    seen = set()
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            fields = line.split()
            if not fields:
                continue
            user, *items = fields
            if not items or user in seen:
                why = "a second line of the same user" if items else "a user without an item"
                raise DataValidationError(f"line {number} of {path} is {why}: {line[:60]!r}")
            seen.add(user)
            yield user, items

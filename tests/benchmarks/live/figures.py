"""The table of the live benchmark: each figure beside its goal."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    Attributes:
        part: What was done.
        what: What was measured.
        n: Of how many.
        value: What was found.
        goal: What it should be; empty where there is no goal.
        met: Whether it is; a part that could not run has not met its goal.
    """

    part: str
    what: str
    n: int
    value: str
    goal: str = ""
    met: bool = True


def count(part: str, what: str, n: int, found: int) -> Figure:
    """A count that has to be 0."""
    return Figure(part, what, n, f"{found:,}", "0", met=n > 0 and found == 0)


def at_most(part: str, what: str, n: int, found: float, most: float, unit: str = "s") -> Figure:
    """A number that has a bound."""
    return Figure(
        part, what, n, f"{found:.3g} {unit}", f"<= {most:g} {unit}", n > 0 and found <= most
    )


def not_shown(part: str, why: str) -> Figure:
    """A part that could not run here."""
    return Figure(part, "not shown", 0, why, "shown", met=False)


def format_table(figures: Sequence[Figure]) -> str:
    """All figures as a table."""
    rows = [("part", "figure", "n", "found", "goal", "")]
    rows += [
        (one.part, one.what, f"{one.n:,}", one.value, one.goal, "" if one.met else "MISSED")
        for one in figures
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = []
    for part, what, n, value, goal, missed in rows:
        cells = [part.ljust(widths[0]), what.ljust(widths[1]), n.rjust(widths[2])]
        cells += [value.rjust(widths[3]), goal.rjust(widths[4]), missed]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)

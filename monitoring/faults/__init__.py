"""Named faults of the feeds: each is one module of ``signs``, or an extension of a package.

Drift says that something changed; a fault says that a feed is broken, and how. Each fault has a
sign of its own that no change of the market shows: all categories move at once, values are replaced
by others with the same shares, rows come twice. A module holds:

===========  ==============================================================================
``UNIT``     what its value means, for readers of the review page
``RUNBOOK``  an ``Advice``: what the fault means and what to do about it
``TABLES``   the feeds that can have it: ``items``, ``events`` or both
``find``     ``(feed)`` -> the signs that it looked for, also those that it did not find; a sign
             that cannot be looked for here (no such column) is one of ``leave_unchecked``, with the
             reason; one that should be but cannot (too few rows) has no value, and a reason
===========  ==============================================================================

The name of a fault is the name of its module or entry point.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from monitoring.drift_metrics import Advice
from refit.extensions import ExtensionKind

if TYPE_CHECKING:
    from monitoring.faults.feed import Feed

FAULTS = ExtensionKind(
    "fault of a feed",
    "refit.faults",
    "monitoring.faults.signs",
    ("UNIT", "RUNBOOK", "TABLES", "find"),
)
PREFIX = "feed:"
"""Of the subjects of all faults; drift of any of them is a broken feed."""


class Sign(NamedTuple):
    """What a fault looked for in one column, or in a whole table.

    Attributes:
        column: The column; empty for the table.
        value: The strength of the sign; None where it could not be measured.
        threshold: A larger value is the fault.
        detail: One sentence for the person on call, where the fault is there.
        p_value: Probability of at least this value by chance; None where chance plays no part.
        n_reference, n_current: Rows or listings that were compared.
        why: Why it could not be measured.
        table: The feed that is broken, where it is not the one that shows the sign.
        is_looked_for: False where the data at hand cannot show the sign; ``why`` has the reason.
    """

    column: str
    value: float | None = None
    threshold: float | None = None
    detail: str = ""
    p_value: float | None = None
    n_reference: int = 0
    n_current: int = 0
    why: str = ""
    table: str = ""
    is_looked_for: bool = True

    @property
    def is_found(self) -> bool:
        """Whether the fault is there."""
        return self.value is not None and self.threshold is not None and self.value > self.threshold


def leave_unchecked(why: str, column: str = "", table: str = "") -> Sign:
    """A sign that the data at hand cannot show: it is neither there nor absent.

    Args:
        why: What is not there, and what is not checked for it.
        column: The column that is not checked; empty for the table.
        table: The feed that is not checked, where it is not the one that is looked at.
    """
    return Sign(column, why=why, table=table, is_looked_for=False)


def choose_clearest(signs: Sequence[Sign]) -> Sign:
    """The first sign that is found, or else the one nearest to it."""
    found = [sign for sign in signs if sign.is_found]
    return found[0] if found else max(signs, key=lambda s: (s.value or 0.0) / (s.threshold or 1.0))


@dataclass(frozen=True)
class NamedFault:
    """A fault of feeds; see the table above."""

    name: str
    unit: str
    advice: Advice
    tables: tuple[str, ...]
    find: "Callable[[Feed], Iterable[Sign]]"


def load_fault(name: str) -> NamedFault:
    """Load a fault by name.

    Raises:
        UsageError: There is none of this name, or it cannot be imported.
    """
    found = FAULTS.load(name)
    return NamedFault(
        name, str(found.UNIT), Advice(*found.RUNBOOK), tuple(found.TABLES), found.find
    )

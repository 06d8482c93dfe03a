"""The causes, one module each: how often each sign shows with it, and which results follow.

=============  ================================================================================
``CAUSE``      the ``Cause``
``MEANING``    what it means, as a clause
``SHOWS``      by sign how often it shows: ``impossible``, ``never``, ``rarely``, ``sometimes``,
               ``often`` or ``always``; a sign that is not named shows rarely
``FOLLOWS``    patterns of the results that follow from the cause
``ACTION``     the action that helps most
``ADVICE``     what to do, as a sentence for the person on call
=============  ================================================================================

The words were chosen from how simulated incidents show each sign and from what a cause can do at
all; ``python -m tests.benchmarks.drift.causes --signs`` prints both beside each other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module

from refit.alert import Action
from refit.incident import Cause

HOW_OFTEN = {
    "impossible": 0.001,
    "never": 0.01,
    "rarely": 0.12,
    "sometimes": 0.4,
    "often": 0.75,
    "always": 0.95,
}
UNNAMED = "rarely"


@dataclass(frozen=True)
class KnownCause:
    """A cause with what its module says."""

    cause: Cause
    meaning: str
    shows: Mapping[str, str]
    follows: tuple[str, ...]
    action: Action
    advice: str

    def chance(self, sign: str) -> float:
        """How often the sign shows with this cause."""
        return HOW_OFTEN[self.shows.get(sign, UNNAMED)]


def _load(name: str) -> KnownCause:
    found = import_module(f"{__name__}.{name}")
    return KnownCause(
        found.CAUSE,
        found.MEANING,
        found.SHOWS,
        tuple(found.FOLLOWS),
        found.ACTION,
        found.ADVICE,
    )


CAUSES = tuple(
    _load(name)
    for name in (
        "upstream_fault",
        "new_supply",
        "taste",
        "season",
        "index_age",
        "model",
        "market",
    )
)
"""All causes but unknown."""

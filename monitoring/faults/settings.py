"""Settings of the checks for broken feeds."""

from fnmatch import fnmatchcase

from pydantic import Field

from refit.settings import Settings

ANSWERED_DAYS = 7.0
"""Events of so many days before a window are compared with the answers that they follow from."""


class FaultSettings(Settings):
    """How the feeds of items and events are checked for named faults.

    Attributes:
        left_out: Shell patterns over ``subject/fault``, such as ``feed:items.brand/missing``, of
            what is not checked.
        rate: A sign counts only where chance explains it less often than this.
        minimum_rows: With fewer rows in a window a feed cannot be checked.
        window_rows: Rows of a window whose values are compared, at most; rows are counted over all.
        reference_rows: Rows of the reference period that are kept of each table, at most.
        known_listings: Listings that are kept to be compared one by one, at most.
        minimum_pairs: With fewer of them found again, they are not compared.
        largest_vocabulary: Columns with more values are text and not categories.
        replay_days: A window is compared with so many days before it, to find a replay.
    """

    left_out: tuple[str, ...] = ()
    rate: float = Field(default=1e-6, gt=0, lt=0.01)
    minimum_rows: int = Field(default=20, ge=5)
    window_rows: int = Field(default=50_000, ge=100)
    reference_rows: int = Field(default=20_000, ge=100)
    known_listings: int = Field(default=4000, ge=100)
    minimum_pairs: int = Field(default=50, ge=10)
    largest_vocabulary: int = Field(default=300, ge=2)
    replay_days: int = Field(default=14, ge=1)

    def leaves_out(self, name: str) -> bool:
        """Whether a pattern matches ``subject/fault``."""
        return any(fnmatchcase(name, pattern) for pattern in self.left_out)

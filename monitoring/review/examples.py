"""What a review page shows of the rows behind an alert."""

from refit.drift import Window
from refit.settings import Settings


class ValueShare(Settings):
    """A value's share before and in the window."""

    column: str
    value: str
    before: float
    now: float


class AlertExamples(Settings):
    """What a person may look at to see what drift means.

    Attributes:
        queries: Answers whose query lies where the reference had few and the window has many.
        listings: The same of the live stock.
        shares: Values whose share changed most, the largest change first.
    """

    window: Window
    queries: tuple[dict[str, str], ...] = ()
    listings: tuple[dict[str, str], ...] = ()
    shares: tuple[ValueShare, ...] = ()

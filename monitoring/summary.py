"""The WindowSummary: what later windows need to know of one that was measured."""

from refit.drift import Window
from refit.settings import Settings


class WindowSummary(Settings):
    """What later windows need to know of a window that was measured.

    Attributes:
        subject, statistic: The drift metric.
        window: The period.
        mean: Mean features in the units in which distances are taken.
        n: How many independent rows it is worth.
        age: Mean age of the index that answered, days.
        drifted: Whether the window drifted; then later windows are not compared with it.
    """

    subject: str
    statistic: str
    window: Window
    mean: tuple[float, ...]
    n: float
    age: float = 0.0
    drifted: bool = False

    @property
    def name(self) -> str:
        """``subject/statistic``, as results are named."""
        return f"{self.subject}/{self.statistic}"

"""What a review page shows of the rows behind an alert."""

from monitoring.drift_metrics import Advice
from refit.drift import Window
from refit.settings import Settings


class ValueShare(Settings):
    """A value's share in the reference and in the window."""

    column: str
    value: str
    before: float
    now: float


class MetricEvidence(Settings):
    """What a drift metric contributes to the page, kept with the alert.

    The page is written again when the alert changes, perhaps where the metric is not installed.

    Attributes:
        unit: What the metric's value means.
        meaning, action: The runbook's entry.
        picture: The metric's own picture as SVG; empty where it draws none.
        caption: What the picture shows.
    """

    unit: str
    meaning: str
    action: str
    picture: str = ""
    caption: str = ""

    @property
    def advice(self) -> Advice:
        """The runbook's entry."""
        return Advice(self.meaning, self.action)


class AlertEvidence(Settings):
    """The rows that show a person what drifted.

    Attributes:
        window: The window that they are from.
        queries: Answers whose query is where the reference has few and the window has many.
        listings: The same of the live stock.
        shares: Values whose share changed most, the largest change first.
        metrics: By ``subject/statistic``, what the drift metrics contribute.
    """

    window: Window
    queries: tuple[dict[str, str], ...] = ()
    listings: tuple[dict[str, str], ...] = ()
    shares: tuple[ValueShare, ...] = ()
    metrics: dict[str, MetricEvidence] = {}

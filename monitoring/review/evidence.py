"""What a review page shows of the rows behind an alert; kept as ``<alert_id>.json``."""

from monitoring.drift_metrics import Advice
from refit.drift import Window
from refit.settings import Settings


class ValueShare(Settings):
    """A value's share in the reference and in the window.

    Attributes:
        column: The column and where it is, such as ``brand in items``.
        value: The value.
        before, now: Its shares.
        source: The column of the items alone; empty where it is none of the items.
    """

    column: str
    value: str
    before: float
    now: float
    source: str = ""


class ValueListings(Settings):
    """Listings of a value whose share grew.

    Attributes:
        column, value: A column of the items, and the value.
        item_ids: The newest listings with it, the newest first.
    """

    column: str
    value: str
    item_ids: tuple[str, ...]


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


class EmbeddingMap(Settings):
    """Vectors of the reference and of the window in a plane, with what is new marked.

    Attributes:
        title: What the vectors are of, such as ``listings``.
        picture: The map as SVG.
        caption: What it shows, in words.
        marked: How many vectors of the window lie where the reference has none.
        rows: Some of them, nearest to their middle first, as columns by name.
    """

    title: str
    picture: str
    caption: str
    marked: int
    rows: tuple[dict[str, str], ...] = ()


class PanelQuery(Settings):
    """What one query of a fixed panel was answered before and in the window.

    Attributes:
        query: The query, for a person.
        before, after: Ids of the items, best first.
    """

    query: str
    before: tuple[str, ...]
    after: tuple[str, ...]


class AlertEvidence(Settings):
    """The rows that show a person what drifted.

    Attributes:
        window: The window that they are from.
        queries: Answers whose query is where the reference has few and the window has many.
        listings: The same of the live stock.
        shares: Values whose share changed most, the largest change first.
        metrics: By ``subject/statistic``, what the drift metrics contribute.
        maps: Maps of embeddings.
        panel: Answers to a fixed panel of queries.
        examples: Listings of the values whose shares grew most.
        items: Columns by name of the items of ``panel`` and ``examples``, by id.
    """

    window: Window
    queries: tuple[dict[str, str], ...] = ()
    listings: tuple[dict[str, str], ...] = ()
    shares: tuple[ValueShare, ...] = ()
    metrics: dict[str, MetricEvidence] = {}
    maps: tuple[EmbeddingMap, ...] = ()
    panel: tuple[PanelQuery, ...] = ()
    examples: tuple[ValueListings, ...] = ()
    items: dict[str, dict[str, str]] = {}

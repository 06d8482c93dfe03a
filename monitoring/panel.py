"""The panel: a fixed set of queries, and what the champion answers them before and now.

Only items that are in both indexes are ranked, so that what was sold or listed in between changes
nothing: what changes is how the champion sees the same items. Both lists come from the champion's
own vectors.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from monitoring import tables
from monitoring.frame import Array, combine, read_vectors, require_vector_length
from monitoring.reference import Reference
from monitoring.review.evidence import PanelQuery
from monitoring.settings import MeasureSettings
from monitoring.windows import MonitoredData
from refit.drift import DriftResult, DriftState, Window

SUBJECT, STATISTIC = "panel", "change"
QUERIES = 200


@dataclass(frozen=True)
class PanelLists:
    """Answers to the panel.

    Attributes:
        contexts: [Q] the requests' contexts, as text.
        before, after: [Q, depth] rows of ``items``, best first.
        items: [N] ids of the items that are in both indexes.
    """

    contexts: list[str]
    before: Array
    after: Array
    items: pa.Array

    @property
    def change(self) -> float:
        """The mean share of a list that is not in the other one."""
        kept = [len(np.intersect1d(b, a)) for b, a in zip(self.before, self.after, strict=True)]
        return 1 - float(np.mean(kept)) / self.before.shape[1]


def rank_panel(
    settings: MeasureSettings, reference: Reference, data: MonitoredData
) -> PanelLists | str:
    """The lists of the panel, or why there are none."""
    if data.index is None:
        return "no index of the current stock was given"
    towers, _, stock, vectors = tables.read_listings(data.index)
    if towers != reference.manifest.embedding_version:
        return f"the index was built with towers {towers}: vectors cannot be compared"
    answers, listings = reference.frames["answers"], reference.frames["listings"]
    length = require_vector_length(listings, "embedding")
    there, positions = read_vectors(listings.column("embedding"), length)
    known = listings.column("item_id").take(pa.array(positions))
    row = pc.fill_null(pc.index_in(known, value_set=combine(stock["item_id"])), -1)
    row = row.to_numpy(zero_copy_only=False)
    both = np.flatnonzero(row >= 0)
    if len(both) < settings.minimum_rows:
        return f"{len(both)} items are in both indexes, {settings.minimum_rows} are needed"
    queries, asked = read_vectors(answers.column("query_embedding"), length)
    queries, asked = queries[:QUERIES], asked[:QUERIES]
    depth = min(settings.depth, len(both))
    return PanelLists(
        contexts=answers.column("context").take(pa.array(asked)).to_pylist(),
        before=_rank(queries, there[both], depth),
        after=_rank(queries, np.asarray(vectors[row[both]]), depth),
        items=known.take(pa.array(both)),
    )


def measure_panel(
    settings: MeasureSettings, reference: Reference, data: MonitoredData, window: Window
) -> DriftResult:
    """How much of the panel's lists changed over items that both indexes hold."""
    found = rank_panel(settings, reference, data)
    value = None if isinstance(found, str) else found.change
    state = DriftState.INSUFFICIENT_DATA
    if value is not None:
        state = DriftState.DRIFT if value > settings.panel_change else DriftState.OK
    return DriftResult(
        subject=SUBJECT,
        statistic=STATISTIC,
        value=value,
        threshold=None if value is None else settings.panel_change,
        n_reference=0 if isinstance(found, str) else len(found.items),
        n_current=0 if isinstance(found, str) else len(found.before),
        window=window,
        state=state,
        embedding_version=reference.manifest.embedding_version,
        why=found if isinstance(found, str) else "",
        detail="" if value is None else f"{value:.1%} of the lists over items of both indexes",
    )


def show_panel(found: PanelLists, most: int = 5) -> list[PanelQuery]:
    """The queries whose lists changed most."""
    kept = [len(np.intersect1d(b, a)) for b, a in zip(found.before, found.after, strict=True)]
    ids = found.items.to_pylist()
    return [
        PanelQuery(
            query=found.contexts[row],
            before=tuple(ids[i] for i in found.before[row]),
            after=tuple(ids[i] for i in found.after[row]),
        )
        for row in np.argsort(kept, kind="stable")[:most]
    ]


def _rank(queries: Array, vectors: Array, depth: int) -> Array:
    """[Q, depth] rows of the best vectors, best first."""
    ranked: Array = np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :depth]
    return ranked

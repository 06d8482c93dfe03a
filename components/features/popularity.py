"""Decayed counts of every item, carried from one snapshot to the next."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from components.features.tables import DAY_US

NOTHING = np.float32(1e-6)
"""Less than this is forgotten: it says nothing, and denormal floats are slow to work with."""


class DecayedCounts:
    """Weight of each item's events, halved every half-life.

    Kept as float32 [items, half-lives, columns]. Column 0 counts all events, then comes one for
    each counted value of each context column.
    """

    def __init__(self, items: int, half_lives_days: Sequence[float], widths: Sequence[int]) -> None:
        self._half_lives_us = np.array(half_lives_days) * DAY_US
        self._offsets = 1 + np.cumsum([0, *widths])[:-1]
        self._counts = np.zeros((items, len(half_lives_days), 1 + sum(widths)), np.float32)

    def age(self, elapsed_us: int) -> None:
        """Let time pass for what was counted so far."""
        decay = 0.5 ** (elapsed_us / self._half_lives_us)
        self._counts *= decay.astype(np.float32)[None, :, None]
        self._counts[self._counts < NOTHING] = 0

    def add(
        self,
        item_index: NDArray[np.int32],
        weight: NDArray[np.float32],
        codes: Sequence[NDArray[np.int32]],
        age_us: NDArray[np.int64],
    ) -> None:
        """Count events of ``age_us``; code -1 is a value that has no column."""
        _, half_lives, width = self._counts.shape
        flat = self._counts.reshape(-1)
        for h, half_life_us in enumerate(self._half_lives_us):
            decayed = (weight * 0.5 ** (age_us / half_life_us)).astype(np.float32)
            base = (item_index.astype(np.int64) * half_lives + h) * width
            np.add.at(flat, base, decayed)
            for offset, code in zip(self._offsets, codes, strict=True):
                there = code >= 0
                np.add.at(flat, base[there] + offset + code[there], decayed[there])

    def of(self, item_index: NDArray[np.int32]) -> NDArray[np.float32]:
        """[N, P] counts of items, laid out as ``FeaturesManifest.popularity_size`` says."""
        _, half_lives, width = self._counts.shape
        return self._counts[item_index].reshape(len(item_index), half_lives * width)


def popularity_at(
    times_us: Sequence[int], events: Iterator[pa.RecordBatch], counts: DecayedCounts
) -> Iterator[DecayedCounts]:
    """Yield the counts as they stand at each time, of events strictly before it.

    Args:
        times_us: Ascending.
        events: Columns ``at_us`` (ascending), ``item_index``, ``weight``, then the codes.
        counts: Empty counts; the same object is yielded every time.
    """
    pending: pa.RecordBatch | None = None
    now_us = times_us[0]
    for time_us in times_us:
        counts.age(time_us - now_us)
        now_us = time_us
        while (batch := pending or next(events, None)) is not None:
            at_us = batch.column("at_us").to_numpy()
            before = int(np.searchsorted(at_us, now_us))
            if before:
                item_index, weight, *codes = (
                    column[:before].to_numpy() for column in batch.columns[1:]
                )
                counts.add(item_index, weight, codes, now_us - at_us[:before])
            pending = batch.slice(before) if before < batch.num_rows else None
            if pending is not None:
                break
        yield counts

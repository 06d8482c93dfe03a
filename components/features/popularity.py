"""Exponentially decayed counts of every item, updated from one snapshot to the next."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from components.features.tables import DAY_US

NEGLIGIBLE = np.float32(1e-6)
"""A smaller count is set to zero; it has no effect, and denormal floats are slow."""


class DecayedCounts:
    """The weights of each item's events, halved every half-life.

    The counts are float32 [items, half-lives, columns]. Column 0 counts all events; the others
    count one value of a context column each.

    Args:
        items: Number of items.
        half_lives_days: Half-lives.
        widths: The number of counted values of each context column.
    """

    def __init__(self, items: int, half_lives_days: Sequence[float], widths: Sequence[int]) -> None:
        self._half_lives_us = np.array(half_lives_days) * DAY_US
        self._offsets = 1 + np.cumsum([0, *widths])[:-1]
        self._counts = np.zeros((items, len(half_lives_days), 1 + sum(widths)), np.float32)

    def age(self, elapsed_us: int) -> None:
        """Decay all counts by the time that has elapsed."""
        decay = 0.5 ** (elapsed_us / self._half_lives_us)
        self._counts *= decay.astype(np.float32)[None, :, None]
        self._counts[self._counts < NEGLIGIBLE] = 0

    def add(
        self,
        item_index: NDArray[np.int32],
        weight: NDArray[np.float32],
        codes: Sequence[NDArray[np.int32]],
        age_us: NDArray[np.int64],
    ) -> None:
        """Add N events.

        Args:
            item_index: [N] item numbers.
            weight: [N] weights.
            codes: [N] values of each context column, as codes; -1 is not counted.
            age_us: [N] ages in microseconds.
        """
        _, half_lives, width = self._counts.shape
        flat = self._counts.reshape(-1)
        for h, half_life_us in enumerate(self._half_lives_us):
            decayed = (weight * 0.5 ** (age_us / half_life_us)).astype(np.float32)
            base = (item_index.astype(np.int64) * half_lives + h) * width
            np.add.at(flat, base, decayed)
            for offset, code in zip(self._offsets, codes, strict=True):
                counted = code >= 0
                np.add.at(flat, base[counted] + offset + code[counted], decayed[counted])

    def of(self, item_index: NDArray[np.int32]) -> NDArray[np.float32]:
        """[N, P] counts of items [N]; P is ``FeaturesManifest.popularity_size``."""
        _, half_lives, width = self._counts.shape
        return self._counts[item_index].reshape(len(item_index), half_lives * width)


def popularity_at(
    times_us: Sequence[int], events: Iterator[pa.RecordBatch], counts: DecayedCounts
) -> Iterator[DecayedCounts]:
    """Yield the counts at each time, of events strictly before it.

    Args:
        times_us: Times in ascending order, in microseconds since 1970.
        events: Batches with the columns ``at_us`` (ascending), ``item_index``, ``weight``, and one
            code for each context column.
        counts: Empty counts; the same object is yielded for each time.
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

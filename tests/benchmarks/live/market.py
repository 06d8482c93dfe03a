"""The market that the live benchmark serves: real bundles but for their towers, made at random."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa

from refit.bundle import Bundle
from tests.serving import tiny

AGE = timedelta(hours=3)
"""Of the index: what is newer than it may have happened in the hours before now."""


def make_bundles(folder: Path, n_live: int = 2000) -> tuple[Bundle, Bundle]:
    """Two bundles of different towers and prices."""
    tiny.N_LIVE, tiny.AS_OF = n_live, datetime.now(UTC) - AGE
    first, second = (
        tiny.make_bundle(
            folder / f"parts-{seed}", tiny.make_model(folder / f"model-{seed}", seed), seed
        )
        for seed in (0, 1)
    )
    return first, second


def make_groups(folder: Path, n_live: int, size: int) -> Bundle:
    """A bundle in which ``size`` listings share a brand."""
    make_items: Callable[[int], pa.Table] = tiny.make_items
    tiny.N_LIVE, tiny.AS_OF = n_live, datetime.now(UTC) - timedelta(hours=1)

    def with_groups(seed: int) -> pa.Table:
        items = make_items(seed)
        brands = [f"probe-{row // size}" for row in range(items.num_rows)]
        place = items.column_names.index("brand")
        return items.set_column(place, "brand", pa.array(brands))

    tiny.make_items = with_groups
    try:
        return tiny.make_bundle(folder / "parts", tiny.make_model(folder / "model", 0))
    finally:
        tiny.make_items = make_items

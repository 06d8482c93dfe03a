"""Writing the batch past of a simulated marketplace as files, before there is any model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from refit.dataset import EVENTS_FILE, ITEMS_FILE, USERS_FILE
from refit.files import write_atomically
from simulation.marketplace import Marketplace


def write_history(settings: Mapping[str, Any], out: Path) -> Marketplace:
    """Write events.parquet, items.parquet and users.parquet of a simulated past.

    Args:
        settings: Plain values of ``SimulationSettings``; ``preset`` allowed.
        out: Folder to write into; made when missing.

    Returns:
        The marketplace, ready to live further days.
    """
    market = Marketplace(settings)
    write_tables(market, out)
    return market


def write_tables(market: Marketplace, out: Path) -> None:
    """Write the three tables as the shop knows them at the start of ``market.day``."""
    tables = {
        EVENTS_FILE: market.events_table(),
        ITEMS_FILE: market.items_table(),
        USERS_FILE: market.users_table(),
    }
    for name, table in tables.items():
        with write_atomically(out / name) as staging:
            pq.write_table(table, staging)

"""Write the history of a simulated marketplace, before there is a model, as files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from refit.dataset import EVENTS_FILE, ITEMS_FILE, USERS_FILE
from refit.files import write_atomically
from simulation.marketplace import Marketplace


def write_history(settings: Mapping[str, Any], out: Path) -> Marketplace:
    """Simulate a history, and write it as events.parquet, items.parquet and users.parquet.

    Args:
        settings: Values of ``SimulationSettings``, and optionally ``preset``.
        out: Folder to write to; created if it does not exist.

    Returns:
        The marketplace at the end of the history; more days can be simulated.

    Raises:
        UsageError: A setting is unknown or invalid.
    """
    market = Marketplace(settings)
    write_tables(market, out)
    return market


def write_tables(market: Marketplace, out: Path) -> None:
    """Write the three tables as they are known at the start of ``market.day``."""
    tables = {
        EVENTS_FILE: market.events_table(),
        ITEMS_FILE: market.items_table(),
        USERS_FILE: market.users_table(),
    }
    for name, table in tables.items():
        with write_atomically(out / name) as staging:
            pq.write_table(table, staging)

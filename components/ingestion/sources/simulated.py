"""The simulated second-hand marketplace.

Origin: ``path`` is a folder that ``refit simulate`` wrote. Without one, a history is simulated by
the settings in ``simulated``; the fingerprint then covers the simulation's code instead of its
files.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import ibis

from components.ingestion.reading import read_parts
from components.ingestion.settings import IngestSettings
from components.ingestion.source import RawTables
from components.ingestion.sources import files
from refit.dataset import EVENTS_FILE, ITEMS_FILE, USERS_FILE

TERMS = "Simulated by Refit: no real person, listing or sale is in it."
NAIVE_TIMES = files.NAIVE_TIMES
IS_SIMULATED = True


def find_files(settings: IngestSettings) -> Sequence[Path]:
    """Return the tables under ``path``, or the simulation's modules."""
    if settings.path:
        return files.find_files(settings)
    spec = find_spec("simulation")
    folders = spec.submodule_search_locations if spec else None
    return sorted(path for folder in folders or () for path in Path(folder).glob("*.py"))


def read(con: ibis.BaseBackend, settings: IngestSettings, scratch: Path) -> RawTables:
    """Read simulated tables; simulate them first when there are none."""
    if settings.path:
        return files.read(con, settings, scratch)
    from simulation.history import write_history

    folder = scratch / "simulated"
    write_history(settings.simulated, folder)
    names = {"events": EVENTS_FILE, "items": ITEMS_FILE, "users": USERS_FILE}
    return files.offer_all_columns(
        {table: read_parts(con, [folder / name]) for table, name in names.items()}
    )

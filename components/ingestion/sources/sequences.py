"""Sequences without times: each user's items in their order, as public tables are made of them.

Origin: such as Amazon Beauty of ``RUCAIBox/CIKM2020-S3Rec`` on GitHub (``data/Beauty.txt`` and
``data/Beauty_item2attributes.json``; 5-core reviews of McAuley et al., SIGIR 2015). ``path`` is a
folder; ``options`` name its files:

- ``sequences``: a text file with a line for each user, ``user item item ...``, oldest first;
- ``attributes``: a JSON object with a list of attributes for each item, the words of its
  column ``attributes``.

Columns: each item of a line is a purchase. **The times are made up** from the places in the line:
the last item of every user is bought at midnight of one day, the one before it a day earlier.
With ``validation_days: 1`` and ``test_days: 1`` the split by time is then leave-one-out: test has
each user's last item, validation the one before it, train the rest. All items are listed from the
first day on. Nothing that depends on the time of an event or on the age of an item means anything
here, nor does popularity at a moment: set ``training.popularity`` to false, and
``features.spec.snapshot_every_days`` to more days than there are.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import ibis
import pyarrow as pa

from components.ingestion.reading import find_all_files, write_table
from components.ingestion.settings import IngestSettings
from components.ingestion.source import RawTables, read_options
from components.ingestion.user_lines import read_user_lines
from refit.errors import DataValidationError
from refit.settings import Settings

TERMS = "The files' own terms. Their times are made up from the order of each user's items."
ORIGIN = "whoever shares the set, into the folder that ingestion.path names"
NAIVE_TIMES = "UTC"
IS_SIMULATED = False

LAST_DAY = datetime(2000, 1, 1, tzinfo=UTC)
"""The made-up time of every user's last event."""
DAY = timedelta(days=1)


class Options(Settings):
    """Options of the source.

    Attributes:
        sequences: The file of sequences, in ``path``.
        attributes: The file of attributes, in ``path``. Empty: the items have none.
    """

    sequences: str
    attributes: str = ""


def find_files(settings: IngestSettings) -> Sequence[Path]:
    """Return the files that the options name."""
    options = read_options(settings, Options)
    names = [name for name in (options.sequences, options.attributes) if name]
    return find_all_files(settings, names, ORIGIN)


def read(con: ibis.BaseBackend, settings: IngestSettings, scratch: Path) -> RawTables:
    """Read each place of a sequence as a purchase, and the items with their attributes."""
    sequences, *attributes = find_files(settings)
    users: list[str] = []
    items: list[str] = []
    days_before: list[int] = []
    for user, bought in read_user_lines(sequences):
        users += [user] * len(bought)
        items += bought
        days_before += range(len(bought) - 1, -1, -1)
    if not users:
        raise DataValidationError(f"{sequences} is empty: it needs lines of a user and their items")
    words = _read_attributes(attributes[0]) if attributes else {}
    time = pa.timestamp("us", "UTC")
    events = {
        "user_id": users,
        "item_id": items,
        "event_type": ["purchase"] * len(users),
        "event_time": pa.array([LAST_DAY - n * DAY for n in days_before], time),
    }
    known = sorted({*items, *words})
    listings = {
        "item_id": known,
        "listed_at": pa.array([LAST_DAY - max(days_before) * DAY] * len(known), time),
        "attributes": pa.array([words.get(item) for item in known], pa.string()),
    }
    return RawTables(
        events=write_table(con, pa.table(events), scratch / "events.parquet"),
        items=write_table(con, pa.table(listings), scratch / "items.parquet"),
        item_columns=("attributes",) if attributes else (),
    )


def _read_attributes(path: Path) -> dict[str, str]:
    """By item, its attributes as one text.

    Raises:
        DataValidationError: The file is not a JSON object of lists.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {item: " ".join(map(str, values)) for item, values in found.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise DataValidationError(
            f"{path} must be a JSON object with a list of attributes for each item: {error}"
        ) from None

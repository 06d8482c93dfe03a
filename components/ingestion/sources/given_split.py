"""A given split without times: of each user the items to train on and the items to test on.

Origin: such as the Gowalla check-ins of ``gusye1234/LightGCN-PyTorch`` on GitHub
(``data/gowalla/train.txt`` and ``test.txt``; He et al., SIGIR 2020), and the other sets that
tables of collaborative filtering share. ``path`` is a folder; ``options`` name its files, each with
a line for each user, ``user item item ...``, in any order:

- ``train``: the items to train on. Of each user a part of them, drawn at random, is held out for
  validation: ``held_out`` is the share, ``seed`` the seed of the draw. Nothing of ``test`` is used
  for that.
- ``test``: the items to test on.

Columns: each item of a line is a purchase. **The times are made up.** All test items of everybody
are bought at midnight of one day, those held out for validation a day earlier, and the rest before
that, one a day, in an order that is drawn at random. With ``validation_days: 1`` and
``test_days: 1`` the split by time is then the given one. All items are listed from the first day
on. A user has several test items at one time: with ``evaluation.relevant: together`` they are one
query, as published tables have it. Nothing that depends on the time of an event, on the order of a
history or on the age of an item means anything here; see the source ``sequences`` for the settings
that follow.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import ibis
import numpy as np
import pyarrow as pa
from pydantic import Field, NonNegativeInt

from components.ingestion.reading import find_all_files, write_table
from components.ingestion.settings import IngestSettings
from components.ingestion.source import RawTables, read_options
from components.ingestion.user_lines import read_user_lines
from refit.errors import DataValidationError
from refit.settings import Settings

TERMS = "The files' own terms. Their times are made up from which file an item stands in."
ORIGIN = "whoever shares the set, into the folder that ingestion.path names"
NAIVE_TIMES = "UTC"
IS_SIMULATED = False

TEST_DAY = datetime(2000, 1, 1, tzinfo=UTC)
"""The made-up time of every test event."""
DAY = timedelta(days=1)
FIRST_TRAIN = 2
"""Days from a user's latest training event to the test; validation is a day before it."""


class Options(Settings):
    """Options of the source.

    Attributes:
        train, test: The files of the split, in ``path``.
        held_out: Share of each user's training items that is validated on, rounded; one item at
            least stays in training.
        seed: Of the draw of these items, and of the order of the others.
    """

    train: str
    test: str
    held_out: float = Field(default=0.1, gt=0, lt=1)
    seed: NonNegativeInt = 0


def find_files(settings: IngestSettings) -> Sequence[Path]:
    """Return the two files that the options name."""
    options = read_options(settings, Options)
    return find_all_files(settings, (options.train, options.test), ORIGIN)


def read(con: ibis.BaseBackend, settings: IngestSettings, scratch: Path) -> RawTables:
    """Read each item of a line as a purchase, and list all items from the first day on."""
    options = read_options(settings, Options)
    train, test = (_read_items(path) for path in find_files(settings))
    _check_apart(train, test)
    random = np.random.default_rng(options.seed)
    users: list[str] = []
    items: list[str] = []
    days_before: list[int] = []

    def add(user: str, bought: Iterable[str], days: Sequence[int]) -> None:
        users.extend([user] * len(days))
        items.extend(bought)
        days_before.extend(days)

    for user, bought in train.items():
        drawn = [bought[i] for i in random.permutation(len(bought))]
        n_held = min(round(options.held_out * len(bought)), len(bought) - 1)
        add(user, drawn[:n_held], [1] * n_held)
        n_kept = len(bought) - n_held
        add(user, drawn[n_held:], range(FIRST_TRAIN, FIRST_TRAIN + n_kept))
    for user, bought in test.items():
        add(user, bought, [0] * len(bought))
    time = pa.timestamp("us", "UTC")
    events = {
        "user_id": users,
        "item_id": items,
        "event_type": ["purchase"] * len(users),
        "event_time": pa.array([TEST_DAY - n * DAY for n in days_before], time),
    }
    known = sorted(set(items))
    first = TEST_DAY - max(days_before) * DAY
    listings = {"item_id": known, "listed_at": pa.array([first] * len(known), time)}
    return RawTables(
        events=write_table(con, pa.table(events), scratch / "events.parquet"),
        items=write_table(con, pa.table(listings), scratch / "items.parquet"),
    )


def _read_items(path: Path) -> dict[str, list[str]]:
    """The items of each user.

    Raises:
        DataValidationError: The file is empty, or a user has an item twice.
    """
    found = dict(read_user_lines(path))
    if not found:
        raise DataValidationError(f"{path} is empty: it needs lines of a user and their items")
    for user, items in found.items():
        if len(set(items)) < len(items):
            raise DataValidationError(f"{path} has an item of user {user!r} twice; remove one")
    return found


def _check_apart(train: dict[str, list[str]], test: dict[str, list[str]]) -> None:
    """Check that nobody is tested on an item that is trained on.

    Raises:
        DataValidationError: Somebody is.
    """
    for user, items in test.items():
        if both := sorted(set(items) & set(train.get(user, ()))):
            raise DataValidationError(
                f"item {both[0]!r} of user {user!r} is in both files; a split has it in one"
            )

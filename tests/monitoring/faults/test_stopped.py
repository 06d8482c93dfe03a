"""Which values have stopped, where rows come in visits and the reference is a sample of them."""

import types

import numpy as np
import pyarrow as pa
import pytest

from monitoring.faults.known import KnownFeed
from monitoring.faults.settings import FaultSettings
from monitoring.faults.signs import stopped
from monitoring.frame import Frame

DAYS, VISITS, EVENTS = 20, 1500, 8
SHARES = np.array([0.3, 0.25, 0.2, 0.1, 0.1, 0.04, 0.004, 0.003, 0.002, 0.001])
NAMES = np.array([f"size {i}" for i in range(len(SHARES))])


def visit(random, shares=SHARES, days=DAYS):
    """Rows of some days, several of one size for each visit."""
    sizes = random.choice(len(shares), days * VISITS, p=shares / shares.sum())
    day = np.repeat(np.arange(days), VISITS)
    return Frame(pa.table({"size": NAMES[np.repeat(sizes, EVENTS)]}), np.repeat(day, EVENTS) + 0.5)


def make_feed(random, window):
    every = visit(random)
    sample = np.sort(random.choice(len(every), len(every) // 9, replace=False))
    rows = Frame(every.table.take(pa.array(sample)), every.day[sample])
    counts = np.full((DAYS, 1), VISITS * EVENTS)
    known = KnownFeed("events", rows, counts, np.arange(DAYS), 300, rows.table.schema)
    return types.SimpleNamespace(
        known=known, rows=window, settings=FaultSettings(), columns=lambda *kinds: ["size"]
    )


def test_a_rare_value_that_nobody_looked_for_today_has_not_stopped():
    for seed in range(30):
        random = np.random.default_rng(seed)
        rare = np.where(np.arange(len(SHARES)) > 5, 0.0, SHARES)
        (sign,) = stopped.find(make_feed(random, visit(random, rare, 1)))
        assert not sign.is_found, (seed, sign.detail)


@pytest.mark.parametrize("gone", [0, 3])
def test_a_frequent_value_without_rows_has_stopped(gone):
    random = np.random.default_rng(gone)
    shares = np.where(np.arange(len(SHARES)) == gone, 0.0, SHARES)
    (sign,) = stopped.find(make_feed(random, visit(random, shares, 1)))
    assert sign.is_found
    assert sign.p_value < 1e-6
    assert f"no rows with size 'size {gone}'" in sign.detail

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.deployment.canary import Proportion
from components.deployment.quality import LiveQuality, count_misses, design_effect
from components.deployment.settings import RolloutSettings
from refit.errors import ServiceUnreachable
from refit.log_keeping import compact
from refit.log_parts import LogParts
from refit.prediction import PREDICTION_SCHEMA

START = datetime(2026, 3, 1, 23, 0, tzinfo=UTC)
UNTIL = START + timedelta(hours=2)


def answer(request_id: str, bundle_id: str, minutes: float) -> dict:
    return {
        "request_id": request_id,
        "bundle_id": bundle_id,
        "embedding_version": "t",
        "time": START + timedelta(minutes=minutes),
        "context": "{}",
        "item_ids": [],
        "scores": [],
    }


def event(request_id: str | None, kind: str, minutes: float) -> dict:
    return {
        "request_id": request_id,
        "event_type": kind,
        "event_time": START + timedelta(minutes=minutes),
        "user_id": "u",
    }


@pytest.fixture
def log(tmp_path):
    rows = [
        answer("before", "old", -1),
        *(answer(f"old-{n}", "old", n) for n in range(90)),  # past midnight: two partitions
        *(answer(f"new-{n}", "new", n) for n in range(10)),
        answer("new-0", "new", 1),  # the same answer logged again
        answer("too-recent", "new", 121),
        answer("unrelated", "other", 5),
    ]
    for day in ("2026-03-01", "2026-03-02"):
        of_day = [row for row in rows if f"{row['time']:%Y-%m-%d}" == day]
        (tmp_path / "log" / f"date={day}").mkdir(parents=True)
        table = pa.Table.from_pylist(of_day, schema=PREDICTION_SCHEMA)
        pq.write_table(table, tmp_path / "log" / f"date={day}" / "a.parquet")
    return tmp_path / "log"


@pytest.fixture
def events(tmp_path):
    rows = [
        event("old-3", "view", 4),
        event("old-3", "purchase", 9),
        event("old-4", "cart", 200),
        event("new-1", "view", 2),
        event("new-2", "impression", 2),
        event(None, "view", 2),
        event("before", "view", 2),
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "events.parquet")
    return tmp_path / "events.parquet"


def counted(quality: LiveQuality) -> dict[str, tuple[float, float]]:
    return {name: (round(p.bad, 6), round(p.total, 6)) for name, p in quality.misses.items()}


def count(log, events, since=START, until=UNTIL, bundles=("old", "new")):
    return count_misses(RolloutSettings(), str(log), str(events), bundles, since, until)


def test_answers_without_an_outcome_are_counted(log, events):
    found = count(log, events)
    assert (found["old"].users, found["new"].users) == (90, 10)
    assert counted(found["old"]) == {"clicks": (88, 90), "purchases": (89, 90)}
    # Where all answers are alike, each person counts as one.
    assert counted(found["new"]) == {"clicks": (9, 10), "purchases": (10, 10)}


def test_a_log_and_events_can_be_at_a_url(log, events):
    assert counted(count(f"file://{log}", f"file://{events}")["new"])["clicks"] == (9, 10)


@pytest.mark.parametrize("until", [START, START - timedelta(hours=1)])
def test_before_any_answer_is_old_enough_the_quality_is_unknown(log, events, until):
    assert count(log, events, until=until) == {"old": LiveQuality(), "new": LiveQuality()}


def test_the_quality_of_a_bundle_without_answers_is_unknown(log, events):
    assert count(log, events, bundles=("old", "none"))["none"] == LiveQuality()


def test_without_a_log_or_events_the_quality_is_unknown(tmp_path, log, events):
    for one, other in ((tmp_path / "nothing", events), (log, tmp_path / "nothing"), (log, "")):
        assert count(one, other) == {"old": LiveQuality(), "new": LiveQuality()}


def test_an_unreadable_file_is_an_error(tmp_path, log):
    (tmp_path / "torn.parquet").write_text("torn")
    with pytest.raises(ServiceUnreachable, match=r"torn\.parquet cannot be read"):
        count(log, tmp_path / "torn.parquet")


def test_answers_to_one_person_count_as_one_where_they_are_all_alike(tmp_path, events):
    rows = [
        answer(f"{who}-{n}", "old", n) | {"user_id": who}
        for who in ("ann", "bob")
        for n in range(5)
    ]
    (tmp_path / "log" / "date=2026-03-01").mkdir(parents=True)
    table = pa.Table.from_pylist(rows, schema=PREDICTION_SCHEMA)
    pq.write_table(table, tmp_path / "log" / "date=2026-03-01" / "a.parquet")
    found = count(tmp_path / "log", events)["old"]
    assert found.users == 2
    assert found.misses["clicks"] == Proportion(bad=2, total=2)


def test_the_design_effect_by_hand():
    """Of 4 people with 2 answers each, two miss both: 4 of 8. Residuals are 1, 1, -1, -1.

    The variance is 4/3 * 4 / 64 = 1/12, that of 8 independent answers 1/4 / 7 = 1/28.
    """
    alike = design_effect(np.array([2.0, 2.0, 0.0, 0.0]), np.array([2, 2, 2, 2]))
    assert alike == pytest.approx(28 / 12)
    mixed = design_effect(np.array([1.0, 1.0, 1.0, 1.0]), np.array([2, 2, 2, 2]))
    assert mixed == 1.0


def test_few_people_who_answer_much_do_not_shrink_the_interval():
    """The rate differs from person to person; 95% intervals that ignore this miss it often."""
    rng, missed = np.random.default_rng(0), {"by answer": 0, "by person": 0}
    for _ in range(300):
        sizes = rng.integers(1, 40, size=200)
        bad = rng.binomial(sizes, rng.beta(2.0, 8.0, size=200)).astype(float)
        p, n = bad.sum() / sizes.sum(), sizes.sum()
        for name, effect in (("by answer", 1.0), ("by person", design_effect(bad, sizes))):
            half = 1.96 * np.sqrt(p * (1 - p) * effect / n)
            missed[name] += not p - half <= 0.2 <= p + half
    assert missed["by answer"] / 300 > 0.2
    assert missed["by person"] / 300 < 0.09


def test_a_list_in_pages_counts_once(log, events):
    pages = [{**answer(f"new-{n}-page-2", "new", n), "positions": [10]} for n in range(10)]
    table = pa.Table.from_pylist(pages, schema=PREDICTION_SCHEMA)
    pq.write_table(table, log / "date=2026-03-01" / "pages.parquet")
    assert counted(count(log, events)["new"]) == {"clicks": (9, 10), "purchases": (10, 10)}


def test_merged_parts_count_once_and_logs_of_earlier_versions_count(log, events):
    first = log / "date=2026-03-01" / "a.parquet"
    pq.write_table(pq.read_table(first).drop_columns(["positions", "sources"]), first)
    late = pa.Table.from_pylist([answer("old-0", "old", 0)], schema=PREDICTION_SCHEMA)
    pq.write_table(late, log / "date=2026-03-01" / "b.parquet")
    before = count(log, events)
    compact(LogParts.at(log), UNTIL + timedelta(days=2))
    assert count(log, events) == before

"""What the cause depends on is read from real data: volumes, choices, and drift without a value."""

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from monitoring.choices import Choices, measure_choices
from monitoring.explain import collect_context, explain
from monitoring.explain.volumes import count_volumes
from monitoring.measure import measure
from monitoring.reference import Reference
from monitoring.settings import MeasureSettings
from monitoring.windows import MonitoredData, daily_windows
from refit.drift import DriftState, Window
from refit.incident import Cause
from refit.prediction import PREDICTION_SCHEMA
from tests.monitoring.conftest import QUALITY, SETTINGS
from tests.monitoring.explain.cases import START
from tests.monitoring.marketplace import Market

STAMP = pa.timestamp("us", tz="UTC")


@pytest.fixture
def shopped(tmp_path):
    """Items of two categories and two styles, and two weeks in which people like one style."""

    def write(likes=0.8, last=0.8, answers_named=1.0):
        random = np.random.default_rng(0)
        n = 400
        style = random.integers(0, 2, n)
        vectors = np.stack([style, 1 - style], axis=1) + 0.1 * random.normal(size=(n, 2))
        items = {
            "item_id": [f"i{i}" for i in range(n)],
            "seller_id": [f"s{i % 50}" for i in range(n)],
            "category_1": [("coats", "bags")[i % 2] for i in range(n)],
            "brand": [f"b{i % 3}" for i in range(n)],
            "listed_at": pa.array([START + timedelta(hours=i % 336) for i in range(n)], STAMP),
            "image_embedding": vectors.tolist(),
        }
        rows, answers = [], []
        for day in range(14):
            taste = last if day == 13 else likes
            for i in range(300):
                item, at = int(random.integers(n)), START + timedelta(days=day, hours=i / 15)
                liked = random.random() < (taste if style[item] else 1 - taste)
                rows.append((f"u{i}", f"i{item}", "like" if liked else "view", at, None))
                rows.append((f"u{i}", f"i{random.integers(n)}", "view", at, None))
            for i in range(60):
                at = START + timedelta(days=day, hours=i / 4)
                answers.append((f"r{day}-{i}", f"u{i}", at, [f"i{i}"]))
                named = day < 13 or random.random() < answers_named
                name = answers[-1][0] if named else None
                rows.append((f"u{i}", f"i{i}", "view", at + timedelta(minutes=1), name))
        columns = zip(*rows, strict=True)
        names = ("user_id", "item_id", "event_type", "event_time", "request_id")
        events = dict(zip(names, columns, strict=True))
        events["event_time"] = pa.array(events["event_time"], STAMP)
        pq.write_table(pa.table(events), tmp_path / "events.parquet")
        pq.write_table(pa.table(items), tmp_path / "items.parquet")
        write_log(tmp_path / "log.parquet", answers)
        return MonitoredData(
            tmp_path / "log.parquet", tmp_path / "events.parquet", tmp_path / "items.parquet"
        )

    return write


def write_log(path, answers):
    same = {
        "bundle_id": "b1",
        "embedding_version": "t1",
        "context": "{}",
        "query_embedding": [0.0],
        "scores": [0.0],
        "latency_ms": 1.0,
    }
    rows = [
        {**same, "request_id": request, "user_id": user, "time": time, "item_ids": items}
        for request, user, time, items in answers
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=PREDICTION_SCHEMA), path)


LAST = Window(start=START + timedelta(days=13), end=START + timedelta(days=14))


@pytest.mark.parametrize(("last", "state"), [(0.8, DriftState.OK), (0.2, DriftState.DRIFT)])
def test_what_people_like_among_what_they_see(shopped, last, state):
    found = {r.subject: r for r in choose(shopped(last=last), LAST)}
    assert set(found) == {"choice:image_embedding", "choice:brand"}
    assert found["choice:image_embedding"].state is state
    assert found["choice:brand"].state is DriftState.OK


def test_axes_that_hardly_vary_are_left_out(shopped):
    data, random = shopped(last=0.2), np.random.default_rng(3)
    items = pq.read_table(data.items)
    narrow = np.array(items["image_embedding"].to_pylist())
    wide = np.hstack([narrow, 0.05 * random.normal(size=(len(narrow), 60))])
    place = items.column_names.index("image_embedding")
    items = items.set_column(place, "image_embedding", pa.array(wide.tolist()))
    pq.write_table(items, data.items)
    choices = Choices.read(SETTINGS, data, LAST.start, LAST.end)
    (images,) = (column for column in choices.columns if column.name == "image_embedding")
    blocks = 2
    assert images.rows.shape[1] == blocks * 1  # style is one axis: the other is its opposite
    assert choose(data, LAST)[0].state is DriftState.DRIFT


def choose(data, period):
    return Choices.read(SETTINGS, data, period.start, period.end).compare(period, "t1")


def test_choices_need_earlier_days(shopped):
    assert choose(shopped(), Window(start=START + timedelta(days=2), end=LAST.end)) == []


def test_choices_of_several_windows_are_compared_together(shopped):
    pooled = MeasureSettings(choice_windows=2)
    windows = daily_windows(LAST.end, 2)
    results, summaries = measure_choices(pooled, shopped(last=0.2), windows, "t1")
    assert {(r.window, r.pooled_windows) for r in results} == {(w, 2) for w in windows}
    images = [r for r in results if r.subject == "choice:image_embedding"]
    assert [r.state for r in images] == [DriftState.OK, DriftState.DRIFT]
    assert [s.drifted for s in summaries if s.subject == images[0].subject] == [False, True]


def test_windows_that_drifted_are_not_what_is_expected_of_choices(shopped):
    data, two = shopped(last=0.2), MeasureSettings(choice_windows=2)
    _, summaries = measure_choices(two, data, [LAST], "t1")
    choices = Choices.read(SETTINGS, data, LAST.end, LAST.end + timedelta(days=1))
    days = {len(set(c.day.tolist())) for c in choices.columns}
    assert days == {14}
    drifted = {(s.subject, s.window.start) for s in summaries if s.drifted}
    assert drifted == {("choice:image_embedding", LAST.start)}


def test_volumes_are_counted_by_day(shopped):
    volumes = {v.name: v for v in count_volumes(SETTINGS, shopped(answers_named=0.5), LAST)}
    assert volumes["answers"].ratio == pytest.approx(1.0)
    assert volumes["outcomes"].ratio == pytest.approx(0.5, abs=0.2)


def test_a_day_on_which_a_shop_is_closed_tells_nothing(tmp_path):
    """Neither that events name no answer, nor that a part of them is missing."""
    days = [day for day in range(28) if day % 7 != 6]  # the newest window is such a day
    times = [START + timedelta(days=day, hours=i) for day in days for i in range(20)]
    asked = [(f"r{i}", f"u{i}", time, ["i0"]) for i, time in enumerate(times)]
    write_log(tmp_path / "log.parquet", asked)
    events = {
        "user_id": [user for _, user, _, _ in asked],
        "item_id": ["i0"] * len(times),
        "event_type": ["purchase"] * len(times),
        "event_time": pa.array(times, STAMP),
        "request_id": [request for request, _, _, _ in asked],
    }
    pq.write_table(pa.table(events), tmp_path / "events.parquet")
    data = MonitoredData(tmp_path / "log.parquet", tmp_path / "events.parquet")

    def count(since, until):
        period = Window(start=START + timedelta(days=since), end=START + timedelta(days=until))
        return {
            (v.name, (v.start - START).days): v.ratio
            for v in count_volumes(MeasureSettings(), data, period)
        }

    assert count(27, 28) == {}
    assert count(26, 28) == pytest.approx(
        dict.fromkeys([(name, 26) for name in ("answers", "events", "outcomes")], 1.0)
    )


def test_without_events_or_items_nothing_is_counted_of_them(shopped):
    data = MonitoredData(shopped().log)
    assert {v.name for v in count_volumes(SETTINGS, data, LAST)} == {"answers"}
    assert choose(data, LAST) == []


def test_a_new_category_is_named_with_what_follows_from_it(marketplace):
    marketplace.run(Market(), 6)
    calm = MonitoredData(
        marketplace.log, marketplace.events, marketplace.items, marketplace.index_now
    )
    reference = Reference.read(marketplace.reference)
    before = measure(SETTINGS, reference, calm, daily_windows(marketplace.end, 6), quality=QUALITY)
    marketplace.run(Market().change(new_category=0.4, seed=5), 2)
    data = MonitoredData(
        marketplace.log, marketplace.events, marketplace.items, marketplace.index_now
    )
    since = measure(
        SETTINGS,
        reference,
        data,
        daily_windows(marketplace.end, 2),
        history=before.summaries,
        quality=QUALITY,
    )
    results = [*before.results, *since.results]
    history = [*before.summaries, *since.summaries]
    context = collect_context(MeasureSettings(), reference, data, results, history)
    hats = next(w for w in context.without if w.value == "hats")
    assert hats.is_new
    assert hats.now == pytest.approx(0.4, abs=0.1)
    assert len(hats.gone) >= len(hats.measured) / 2
    # The second run writes the tables anew, which the feeds' checks rightly call a fault.
    story = explain([r for r in results if not r.subject.startswith("feed:")], None, context)
    assert story.cause in (Cause.NEW_SUPPLY, Cause.UNKNOWN)
    named = [sentence for sentence in story.ruled_out if sentence.startswith("new supply")]
    assert named in ([], ["new supply: not ruled out"])

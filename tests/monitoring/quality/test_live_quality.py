import re
from datetime import timedelta

import numpy as np
import pyarrow.parquet as pq
import pytest

from monitoring.closings import Closing
from monitoring.live_quality import measure_live_quality
from monitoring.quality.settings import QualitySettings
from monitoring.settings import MeasureSettings
from refit.drift import DriftState
from refit.prediction import HOLDOUT, NOT_PERSONALISED, SIMILAR_ITEMS
from tests.monitoring.quality.feeds import (
    DAY,
    MONDAY,
    TOWERS,
    day_window,
    event,
    live,
    write,
    write_index,
)

DAYS = 14
LAST = [day_window(DAYS - 1)]


def measure(tmp_path, answers, events, windows=LAST, **changes):
    log, feed = write(tmp_path, answers, events)
    results = measure_live_quality(
        MeasureSettings(), log, feed, TOWERS, windows, quality=QualitySettings(**changes)
    )
    return {result.name: result for result in results if result.window == windows[-1]}


def fall(day, _):
    """Half as many views from day 11 on; day 12 matures in the window of day 13."""
    return 5 if day < 11 else 10


def test_a_rate_is_that_of_the_answers_that_matured(tmp_path):
    results = measure(tmp_path, *live(DAYS))
    click = results["live:click-rate/drop"]
    assert (click.state, click.n_current, click.level) == (DriftState.OK, 300, 0.2)
    assert click.interval[0] < 0.2 < click.interval[1]
    assert click.value == pytest.approx(0, abs=1e-6)
    assert "answers of 2024-01-12 18:00 to 2024-01-13 18:00" in click.detail
    assert results["live:purchase-rate/drop"].state is DriftState.INSUFFICIENT_DATA


def test_days_of_a_planned_closing_are_in_no_baseline(tmp_path):
    """Few people come to a closed shop, and other ones than before and after."""
    first = 8
    closing = Closing(first=day_window(first).start.date(), last=day_window(10).start.date())
    answers, events = live(DAYS, lambda day, _: 4 if first <= day <= 10 else 5)
    log, feed = write(tmp_path, answers, events)
    found = {}
    for closings in ((), (closing,)):
        settings = MeasureSettings(closings=closings)
        windows = [day_window(11), day_window(DAYS - 1)]
        found[closings] = [
            r
            for r in measure_live_quality(
                settings, log, feed, TOWERS, windows, quality=QualitySettings()
            )
            if r.name == "live:click-rate/drop"
        ]
    after, later = found[closing,]
    assert after.state is DriftState.INSUFFICIENT_DATA
    assert after.why == "planned closing on 2024-01-09 to 2024-01-11"
    assert (later.state, later.level) == (DriftState.OK, 0.2)
    assert later.value == pytest.approx(0, abs=1e-6)
    counts = [re.search(r"from (\d+) earlier", each[-1].detail)[1] for each in found.values()]
    assert counts == ["10", "6"], "the closed days, and the day whose outcomes come in them"


@pytest.mark.parametrize("late", [0, 3, 6])
def test_outcomes_that_come_later_are_no_fall(tmp_path, late):
    grows = live(DAYS, late=lambda day: late if day >= 11 else 0.5)
    assert measure(tmp_path, *grows)["live:click-rate/drop"].state is DriftState.OK
    arrives = live(DAYS, arrives=late)
    assert measure(tmp_path, *arrives)["live:click-rate/drop"].state is DriftState.OK


def test_how_far_people_read_on_changes_no_rate(tmp_path):
    """A list in pages is one answer: people who turn pages have not lost interest."""
    answers, events = live(DAYS)
    answers = [{**each, "positions": [0, 1]} for each in answers]
    pages = [
        {
            **each,
            "request_id": f"{each['request_id']}-{page}",
            "positions": [2 * page],
        }
        for each in answers
        if each["time"] >= MONDAY + 11 * DAY
        for page in (1, 2, 3)
    ]
    plain, paged = measure(tmp_path, answers, events), measure(tmp_path, answers + pages, events)
    for name in ("live:click-rate/drop", "live:fallback-share/share"):
        assert paged[name] == plain[name]
        assert paged[name].state is DriftState.OK


def test_that_they_come_later_is_a_result_of_its_own(tmp_path):
    grows = live(DAYS, late=lambda day: 6 if day >= 11 else 0.5)
    delay = measure(tmp_path, *grows)["live:outcome-delay/growth"]
    assert delay.state is DriftState.DRIFT
    assert delay.value == pytest.approx(5.5)
    assert "outcomes arrive later than before" in delay.detail
    assert measure(tmp_path, *live(DAYS))["live:outcome-delay/growth"].state is DriftState.OK


def test_a_fall_is_found_and_without_a_denominator_it_is_said_so(tmp_path):
    click = measure(tmp_path, *live(DAYS, fall, per_day=900))["live:click-rate/drop"]
    assert click.state is DriftState.DRIFT
    assert click.value == pytest.approx(0.1, abs=0.003)
    assert "cannot be told from one of the model" in click.detail


def test_new_towers_are_not_unmeasured_for_long(tmp_path):
    answers, events = live(4)
    swapped = MONDAY + timedelta(hours=20)
    answers = [a for a in answers if a["time"] >= swapped]
    found = []
    for day in range(4):
        until = MONDAY + (day + 1) * DAY
        there = [e for e in events if e["event_time"] < until]
        logged = [a for a in answers if a["time"] < until]
        results = measure(tmp_path, logged, there, [day_window(day)])
        click = results.get("live:click-rate/drop")
        found.append(click and click.state)
    assert found == [None, None, DriftState.INSUFFICIENT_DATA, DriftState.OK]
    assert "live:click-rate/drop" in measure(tmp_path, [], events, [day_window(1)])


def promote(answers, day):
    """Other towers answered before a day."""
    since = MONDAY + day * DAY
    return [a if a["time"] >= since else {**a, "embedding_version": "earlier"} for a in answers]


@pytest.mark.parametrize(("after", "state"), [(5, DriftState.OK), (10, DriftState.DRIFT)])
def test_new_towers_are_compared_with_the_ones_before(tmp_path, after, state):
    answers, events = live(DAYS, lambda day, _: 5 if day < 11 else after, per_day=900)
    results = measure(tmp_path, promote(answers, 11), events)
    click = results["promotion:click-rate/drop"]
    assert click.state is state
    assert click.embedding_version == TOWERS
    assert click.level == pytest.approx(1 / after, abs=0.01)
    assert "beside the towers before" in click.detail


def test_after_a_week_new_towers_stand_for_themselves(tmp_path):
    answers, events = live(DAYS)
    for day in (0, 2):
        results = measure(tmp_path, promote(answers, day), events)
        assert not [name for name in results if name.startswith("promotion:")]


def test_a_feed_that_stopped_is_no_fall(tmp_path):
    answers, events = live(DAYS)
    stopped = [e for e in events if e["event_time"] < MONDAY + 12 * DAY]
    click = measure(tmp_path, answers, stopped)["live:click-rate/drop"]
    assert click.state is DriftState.INSUFFICIENT_DATA
    assert "not mature" in click.why


def hold_out(answers, events, model_falls, holdout_falls):
    """Every second person in the holdout; from day 11 on some lose half of their views."""
    held = {a["request_id"] for a in answers if int(a["user_id"][1:]) % 2}
    for row in answers:
        row["fallback"] = HOLDOUT if row["request_id"] in held else None
    random = np.random.default_rng(0)
    kept = [
        e
        for e in events
        if not (holdout_falls if e["request_id"] in held else model_falls)
        or e["event_time"] < MONDAY + 11 * DAY
        or random.random() < 0.5
    ]
    return answers, kept


def test_a_market_that_fell_is_no_fall_of_the_model(tmp_path):
    everything = live(DAYS, per_day=3000, people=3000)
    results = measure(tmp_path, *hold_out(*everything, True, True))
    click = results["live:click-rate/drop"]
    assert click.state is DriftState.OK
    assert "the market fell, the model did not" in click.detail
    assert click.n_current == 1500
    assert results["live:market-click-rate/drop"].state is DriftState.DRIFT
    lift = results["live:click-lift/drop"]
    assert lift.state is DriftState.OK
    assert lift.interval[0] < lift.level < lift.interval[1]
    fallbacks = results["live:fallback-share/share"]
    assert (fallbacks.state, fallbacks.value) == (DriftState.OK, 0)

    results = measure(tmp_path, *hold_out(*live(DAYS, per_day=3000, people=3000), True, False))
    assert results["live:click-rate/drop"].state is DriftState.DRIFT
    assert "the model fell" in results["live:click-rate/drop"].detail
    assert results["live:market-click-rate/drop"].state is DriftState.OK
    assert results["live:click-lift/drop"].state is DriftState.DRIFT


def test_answers_without_the_model_on_purpose_are_no_fallbacks(tmp_path):
    answers, events = live(DAYS)
    for number, row in enumerate(answers):
        row["fallback"] = (None, NOT_PERSONALISED, SIMILAR_ITEMS)[number % 3]
    fallbacks = measure(tmp_path, answers, events)["live:fallback-share/share"]
    assert (fallbacks.state, fallbacks.value) == (DriftState.OK, 0)
    answers[-1]["fallback"] = "unknown_item"
    assert measure(tmp_path, answers, events)["live:fallback-share/share"].value > 0


def test_two_indexes_that_answer_side_by_side_are_told(tmp_path):
    answers, events = live(DAYS)
    half = len(answers) // 2
    for number, row in enumerate(answers):
        row["bundle_id"] = "old" if number < half else "new"
    share = measure(tmp_path, answers, events)["live:other-index-share/share"]
    assert (share.state, share.value) == (DriftState.OK, 0)
    for number, row in enumerate(answers):
        row["bundle_id"] = "old" if number < half or number % 5 == 0 else "new"
    share = measure(tmp_path, answers, events)["live:other-index-share/share"]
    assert share.state is DriftState.DRIFT
    assert share.value == pytest.approx(0.2, abs=0.02)
    assert "old answered on" in share.detail


@pytest.mark.parametrize("scores", [[0.9, float("nan")], [0.0, 0.0, 0.0], [float("inf"), 0.4]])
def test_answers_that_nothing_ranked_are_fallbacks(tmp_path, scores):
    answers, events = live(DAYS)
    for number, row in enumerate(answers):
        row["scores"] = scores if number % 4 == 0 else [0.9, 0.4]
    fallbacks = measure(tmp_path, answers, events)["live:fallback-share/share"]
    assert fallbacks.state is DriftState.DRIFT
    assert fallbacks.value == pytest.approx(0.25, abs=0.01)
    assert "the scores of 25.0% of the answers" in fallbacks.detail


def test_people_who_browse_are_a_weaker_denominator(tmp_path):
    answers, events = live(DAYS, fall, per_day=900)
    browsing = [
        event(MONDAY + day * DAY + timedelta(minutes=i), user=f"v{i}")
        for day in range(DAYS)
        for i in range(900)
    ]
    results = measure(tmp_path, answers, events + browsing)
    assert results["live:click-rate/drop"].state is DriftState.DRIFT
    assert "the organic rate fell by 0%" in results["live:click-rate/drop"].detail
    assert results["live:market-click-rate/drop"].detail.startswith("organic rate")


def test_revenue_is_the_sum_of_capped_prices(tmp_path):
    answers, events = live(DAYS, every=2, per_day=1000, people=1000)
    for number, row in enumerate(events):
        row["event_type"], row["price"] = "purchase", 1e6 if number == 5 else 20.0
        row["item_id"] = f"i{number}"
    revenue = measure(tmp_path, answers, events)["live:revenue-rate/drop"]
    assert (revenue.state, revenue.level) == (DriftState.OK, 10)
    for row in events:
        row["price"] = None
    log, feed = write(tmp_path, answers, events)
    table = pq.read_table(feed)
    (result,) = (
        r
        for r in measure_live_quality(MeasureSettings(), log, feed, TOWERS, LAST)
        if r.subject == "live:revenue-rate"
    )
    assert "have no price" in result.why
    pq.write_table(table.drop_columns(["price"]), feed)
    names = {r.subject for r in measure_live_quality(MeasureSettings(), log, feed, TOWERS, LAST)}
    assert "live:revenue-rate" not in names


def test_explored_answers_have_rates_of_shown_items(tmp_path):
    answers, events = live(DAYS)
    for row in answers:
        row["item_ids"], row["propensities"] = ["i", "j"], [0.5, 0.25]
    log, feed = write(tmp_path, answers, events)
    found = measure_live_quality(MeasureSettings(), log, feed, TOWERS, LAST)
    click = next(r for r in found if r.subject == "live:ips-click-rate")
    # Of each five answers one leads to a view of the first item: weight 2 of 2 + 4.
    assert (click.state, click.level) == (DriftState.OK, pytest.approx(0.2 * 2 / 6))
    assert "by slot from the first: 20.00%, 0.00%; 540 effective items" in click.detail


def test_organic_choices_are_ranked_where_there_are_enough(tmp_path):
    index = write_index(tmp_path / "index", ["i", "j"], [[1, 0], [0, 1]])
    answers, events = live(DAYS)
    for row in answers:
        row["query_embedding"], row["item_ids"] = [1.0, 0.0], ["x"]
    chosen = [
        event(row["time"] + timedelta(minutes=2), user=row["user_id"], item="ij"[n % 10 == 0])
        for n, row in enumerate(answers)
    ]
    log, feed = write(tmp_path, answers, events + chosen)
    quality = QualitySettings(concept_k=1)

    def concept(feed):
        found = measure_live_quality(
            MeasureSettings(), log, feed, TOWERS, LAST, quality=quality, index=index
        )
        return [r for r in found if r.subject == "live:concept"]

    (result,) = concept(feed)
    assert (result.state, result.level) == (DriftState.OK, pytest.approx(0.9))
    assert "mean reciprocal rank 0.950" in result.detail
    _, few = write(tmp_path, answers, events + chosen[:20])
    assert concept(few) == []


def test_events_without_request_ids_cannot_be_joined(tmp_path):
    log, feed = write(tmp_path, *live(2))
    pq.write_table(pq.read_table(feed).drop_columns(["request_id"]), feed)
    for result in measure_live_quality(MeasureSettings(), log, feed, TOWERS, [day_window(1)])[:2]:
        assert result.state is DriftState.INSUFFICIENT_DATA
        assert "no column request_id" in result.why

"""Nothing is measured in a planned closing, and nothing compared with it; others are faults."""

from dataclasses import replace
from datetime import date, timedelta

import pytest

from monitoring.closings import Closing, describe_closed, open_spans
from monitoring.monitor import monitor
from monitoring.settings import MonitorSettings
from monitoring.store import SqlStore
from monitoring.windows import daily_windows
from refit.alert import Action
from refit.drift import Window
from refit.errors import DataValidationError, UsageError
from tests.monitoring.marketplace import Market
from tests.monitoring.test_monitor import MONITOR, inputs

CLOSED_DAYS = 3


def read(**closing):
    return MonitorSettings.parse({"measure": {"closings": [closing]}}).measure.closings


def test_a_closing_is_written_in_days_and_a_mistake_is_an_error():
    (closing,) = read(first="2026-12-24", last="2026-12-27", reason="Christmas")
    assert str(closing) == "2026-12-24 to 2026-12-27 (Christmas)"
    assert (closing.end - closing.start).days == 4
    assert str(Closing(first=date(2026, 1, 1), last=date(2026, 1, 1))) == "2026-01-01"
    with pytest.raises(UsageError, match="needs first <= last"):
        read(first="2026-12-27", last="2026-12-24")
    with pytest.raises(UsageError, match="did you mean 'first'"):
        read(frist="2026-12-24", last="2026-12-24")
    with pytest.raises(UsageError, match="expected a date"):
        read(first="24.12.2026", last="2026-12-27")


def closed(*days):
    """Closings from day to day, counted from 1970."""
    start = date(1970, 1, 1)
    return [
        Closing(first=start + timedelta(days=a), last=start + timedelta(days=b)) for a, b in days
    ]


@pytest.mark.parametrize(
    ("closings", "spans"),
    [
        ([], [(27.5, 30.5)]),
        ([(10, 12)], [(27.5, 30.5)]),
        ([(28, 29)], [(25.5, 28), (30, 30.5)]),
        ([(20, 25), (28, 29)], [(19.5, 20), (26, 28), (30, 30.5)]),
        ([(20, 29), (22, 24)], [(17.5, 20), (30, 30.5)]),
        ([(24, 29), (20, 26)], [(17.5, 20), (30, 30.5)]),
        ([(29, 40)], [(26, 29)]),
    ],
)
def test_the_days_before_leave_closings_out(closings, spans):
    assert open_spans(closed(*closings), 30.5, 3.0) == spans


def test_a_window_that_a_closing_touches_is_not_measured():
    (closing,) = closed((3, 4))
    week = Window(start=closing.start - timedelta(days=3), end=closing.start + timedelta(days=4))
    assert describe_closed([closing], [week]) == (
        "planned closing on 1970-01-04 to 1970-01-05: 1 of 1 windows are not measured"
    )
    before = Window(start=week.start, end=closing.start)
    assert describe_closed([closing], [before]) == ""


@pytest.fixture
def reopened(marketplace):
    """Open for four days, closed for three, open for two."""
    marketplace.run(Market(), 4)
    begin = marketplace.end
    marketplace.now += CLOSED_DAYS
    last = marketplace.end - timedelta(days=1)
    marketplace.run(Market(), 2)
    closing = Closing(first=begin.date(), last=last.date(), reason="summer holiday")
    return marketplace, closing


def run(marketplace, closings, end, windows):
    measure = MONITOR.measure.model_copy(update={"closings": tuple(closings)})
    settings = MONITOR.model_copy(update={"measure": measure})
    store, pages = SqlStore(marketplace.root / "store.sqlite"), marketplace.root / "pages"
    given = replace(inputs(marketplace), windows=daily_windows(end, windows))
    return store, monitor(settings, given, store, pages, end)


def test_a_closing_that_nobody_stated_is_a_feed_that_is_away(reopened):
    marketplace, closing = reopened
    _, outcome = run(marketplace, [], closing.end, 2)
    assert outcome.decision.action in (Action.QUARANTINE, Action.WAIT)
    assert {"feed:items/stale"} <= {r.name for r in outcome.alert.results}


def test_nothing_is_measured_in_a_planned_closing(reopened):
    marketplace, closing = reopened
    store, outcome = run(marketplace, [closing], closing.end, 2)
    assert outcome.is_closed
    assert outcome.results == ()
    assert outcome.decision.action is Action.NOTHING
    assert outcome.decision.reasons[-1].startswith("planned closing on 2024-03-15 to 2024-03-17")
    assert "(summer holiday): 2 of 2 windows are not measured" in outcome.decision.reasons[-1]
    assert store.alerts() == [] == store.quarantines()
    assert store.decisions()[-1] == outcome.decision
    assert (marketplace.root / "pages" / "index.html").exists()


def test_a_closed_shop_may_export_nothing(reopened):
    marketplace, closing = reopened
    given = replace(inputs(marketplace), windows=daily_windows(closing.end, 1))
    unreadable = {"events": DataValidationError("/feeds/outcomes holds no rows")}
    given = replace(given, data=replace(given.data, events=None, unreadable=unreadable))
    measure = MONITOR.measure.model_copy(update={"closings": (closing,)})
    settings = MONITOR.model_copy(update={"measure": measure})
    store = SqlStore(marketplace.root / "store.sqlite")
    outcome = monitor(settings, given, store, marketplace.root / "pages", closing.end)
    assert (outcome.decision.action, store.alerts()) == (Action.NOTHING, [])


def test_what_comes_after_a_closing_is_compared_with_the_days_before(reopened):
    marketplace, closing = reopened
    run(marketplace, [closing], closing.start, 4)
    store, outcome = run(marketplace, [closing], marketplace.end, 2 + CLOSED_DAYS)
    assert {r.window.start for r in outcome.results} == {
        closing.end,
        closing.end + timedelta(days=1),
    }
    assert outcome.decision.action is Action.NOTHING
    assert any("3 of 5 windows are not measured" in each for each in outcome.decision.reasons)
    assert not any(r.subject.startswith("feed:") and r.state == "drift" for r in outcome.results)
    summaries = store.summaries("towers-1")
    assert not any(closing.touches(s.window.start, s.window.end) for s in summaries)


def test_a_closing_that_is_stated_afterwards_takes_its_days_out(reopened):
    marketplace, closing = reopened
    store, undeclared = run(marketplace, [], closing.end, CLOSED_DAYS)
    assert undeclared.alert is not None
    _, declared = run(marketplace, [closing], marketplace.end, 1)
    assert declared.decision.action is Action.NOTHING
    assert declared.incident is None
    assert len(store.alerts()) == 1, "a person closes the one that was raised"

"""Requests are carried out once, whatever dies in between."""

import pytest

from monitoring.orders import (
    Means,
    Order,
    ask,
    assess,
    carry_out_order,
    carry_out_orders,
    describe_effect,
    refuse,
)
from monitoring.refits import UnderWay
from monitoring.settings import MonitorSettings
from monitoring.store import OrderState, RefitState, SqlStore, UnknownId, WrongState
from refit.errors import GateRefused, ServiceUnreachable, UsageError
from refit.registry import Registry
from tests.monitoring.alerts import LONG_AGO, NOW, alert

SETTINGS = MonitorSettings(lease_seconds=0.2)


@pytest.fixture
def registry(tmp_path, make_bundle):
    """A registry with two champions, one after the other."""
    made = Registry(tmp_path / "registry")
    for towers in ("t1", "t2"):
        made.promote(made.add(make_bundle(embedding_version=towers)), "ana", "better")
    return made


@pytest.fixture
def store(tmp_path):
    made = SqlStore(tmp_path / "alerts.sqlite")
    made.add_alert(alert())
    return made


@pytest.fixture
def carry_out(store, tmp_path):
    return lambda means: carry_out_orders(SETTINGS, store, tmp_path / "pages", means)


def test_a_roll_back_goes_one_champion_back_even_if_it_is_carried_out_twice(
    store, registry, carry_out
):
    first, second = (change.bundle_id for change in registry.history())
    means = Means(registry=registry)
    ask(store, means, Order.ROLL_BACK, "a1", "ana", "worse")
    claimed = store.claim_order(-1)  # whoever carries it out dies before it says so
    registry.rollback("ana", f"worse (request {claimed.request_id})")
    (done,) = carry_out(means)
    assert (done.state, done.outcome, done.attempt) == (OrderState.DONE, f"champion: {first}", 2)
    assert [change.action for change in registry.history()] == ["promote", "promote", "rollback"]
    (entry,) = store.entries("a1")
    assert (entry.did, entry.subject, entry.reason) == ("roll back", second, "worse")


def test_a_roll_back_is_carried_out(store, registry, carry_out):
    first, second = (change.bundle_id for change in registry.history())
    means = Means(registry=registry)
    now = assess(store, means)
    assert f"Makes {first} champion again" in describe_effect(Order.ROLL_BACK, alert(), now)
    ask(store, means, Order.ROLL_BACK, "a1", "ana", "worse")
    assert [done.outcome for done in carry_out(means)] == [f"champion: {first}"]
    assert registry.champion().by == "ana"
    assert [block.bundle_id for block in registry.blocks()] == [second]
    assert "no earlier champion" in refuse(Order.ROLL_BACK, means, assess(store, means))


def test_a_roll_back_of_a_champion_that_is_no_longer_one_does_nothing(
    store, registry, carry_out, make_bundle
):
    second = registry.champion_id()
    means = Means(registry=registry)
    ask(store, means, Order.ROLL_BACK, "a1", "ana", "worse")
    third = registry.promote(
        registry.add(make_bundle(embedding_version="t3")), "bo", "best"
    ).bundle_id
    (failed,) = carry_out(means)
    assert failed.state is OrderState.FAILED
    assert failed.outcome == f"the champion is {third} now, no longer {second}"
    assert registry.champion_id() == third


def test_a_refit_that_an_earlier_attempt_claimed_is_not_started_again(store, carry_out, tmp_path):
    started = []

    def launch(refit, alert):
        started.append(refit.key)
        raise KeyboardInterrupt  # the process dies

    means = Means(launch=launch)
    ask(store, means, Order.REFIT, "a1", "ana", "new stock")
    with pytest.raises(KeyboardInterrupt):
        carry_out_order(SETTINGS, store, tmp_path, means, store.claim_order(-1))
    (done,) = carry_out(means)
    assert (done.state, done.outcome) == (OrderState.DONE, "refit running")
    assert started == [done.request_id]


@pytest.mark.parametrize(
    ("raised", "state", "outcome"),
    [
        (None, RefitState.SUCCEEDED, "refit succeeded: b2"),
        (GateRefused("not better"), RefitState.REFUSED, "refit refused: not better"),
        (UnderWay("run r1 is running"), RefitState.RUNNING, "refit running: run r1 is running"),
        (RuntimeError("no memory"), RefitState.FAILED, "refit failed: RuntimeError: no memory"),
    ],
)
def test_what_comes_of_a_refit_is_kept(store, carry_out, raised, state, outcome):
    def launch(refit, alert):
        if raised:
            raise raised
        return "b2"

    means = Means(launch=launch)
    ask(store, means, Order.REFIT, "a1", "ana", "new stock")
    (done,) = carry_out(means)
    failed = state is RefitState.FAILED
    assert done.state is (OrderState.FAILED if failed else OrderState.DONE)
    assert done.outcome == outcome
    assert [refit.state for refit in store.refits()] == [state]


def test_a_persons_refit_waits_for_no_cooldown_but_for_the_one_under_way(store, carry_out):
    means = Means(launch=lambda refit, alert: "b2")
    first = store.claim_refit("a1", alert(), NOW, LONG_AGO, 60)
    with pytest.raises(WrongState, match="Refit a1 is under way"):
        ask(store, means, Order.REFIT, "a1", "ana", "now")
    store.set_refit(first, RefitState.SUCCEEDED, "b1")
    ask(store, means, Order.REFIT, "a1", "ana", "now")
    (done,) = carry_out(means)
    assert done.outcome == "refit succeeded: b2"


def test_what_does_not_answer_is_tried_again_and_then_given_up(store, carry_out):
    calls = []

    def refresh(request):
        calls.append(request.attempt)
        raise ServiceUnreachable("away")

    means = Means(refresh=refresh)
    ask(store, means, Order.REFRESH, "a1", "ana", "stale")
    for _ in range(5):
        carry_out(means)
        for request in store.orders():
            if request.state is OrderState.RUNNING:
                store.renew_order(request, -1)
    assert calls == [1, 2, 3, 4, 5]
    (given_up,) = store.orders()
    assert (given_up.state, given_up.outcome) == (OrderState.FAILED, "away")


def test_without_a_name_or_a_reason_nothing_is_asked_for(store):
    means = Means(launch=lambda refit, alert: "b2")
    for by, reason in (("", "why"), ("ana", " ")):
        with pytest.raises(UsageError, match="name who asks"):
            ask(store, means, Order.REFIT, "a1", by, reason)
    with pytest.raises(UnknownId):
        ask(store, means, Order.REFIT, "x", "ana", "why")
    assert store.orders() == store.entries() == []


def test_a_registry_that_cannot_be_read_prevents_a_roll_back_alone(store, s3):
    away = Registry("s3://nowhere/registry")
    means = Means(registry=away, launch=lambda refit, alert: "b2")
    now = assess(store, means)
    assert "The registry cannot be read" in refuse(Order.ROLL_BACK, means, now)
    assert refuse(Order.REFIT, means, now) == ""


def test_two_people_ask_at_once_and_one_is_told(store):
    means = Means(launch=lambda refit, alert: "b2")
    ask(store, means, Order.REFIT, "a1", "ana", "why")
    with pytest.raises(WrongState, match="ana has asked for it already"):
        ask(store, means, Order.REFIT, "a1", "bo", "why")
    assert [entry.by for entry in store.entries()] == ["ana"]

"""What a person may have done about an alert: start or stop a refit, roll back, refresh the index.

A request is kept in the alert store and carried out once, by whichever process takes it on: the
review application, here as on a cluster. What it starts is named after the request, so that a
second attempt finds what the first one did.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from monitoring.alerts import ON_CALL, make_entry
from monitoring.patience import try_within
from monitoring.refits import Launch, carry_out, holding_claim, stop
from monitoring.settings import MonitorSettings
from monitoring.store import (
    ORDERS_UNDER_WAY,
    UNDER_WAY,
    AlertStore,
    ClaimLost,
    Order,
    OrderRequest,
    OrderState,
    Refit,
    RefitState,
    WrongState,
)
from refit.alert import Alert
from refit.errors import RefitError, ServiceUnreachable, UsageError
from refit.progress import log_message
from refit.registry import Promotion, Registry

LEASE_SECONDS = 60.0
MOST_ATTEMPTS = 5
ANY_TIME = datetime.max.replace(tzinfo=UTC)
"""A person's refit waits for no cooldown."""
Refresh = Callable[[OrderRequest], str]
"""Starts the refresh of the index that a request names, once; returns what came of it."""


@dataclass(frozen=True)
class Means:
    """What an installation can carry out; None is what it cannot.

    Attributes:
        launch: Starts a refit.
        refresh: Starts the refresh of the index that a request names, once, and returns what came
            of it, or which run does it.
        cancel: Ends the run of a refit that another machine runs.
        check: Raises ServiceUnreachable while runs of other machines cannot be asked about.
        registry: Where bundles are, for a roll back.
        missing: Why an order cannot be carried out here, and what to do about it.
    """

    launch: Launch | None = None
    refresh: Refresh | None = None
    cancel: Callable[[Refit], None] | None = None
    check: Callable[[], None] | None = None
    registry: Registry | None = None
    missing: dict[Order, str] = field(default_factory=dict)

    def can(self, order: Order) -> bool:
        """Whether there is something to carry the order out with."""
        needs = {Order.REFIT: self.launch, Order.REFRESH: self.refresh}
        return order is Order.STOP or needs.get(order, self.registry) is not None


@dataclass(frozen=True)
class Situation:
    """What decides which orders are possible.

    Attributes:
        refit: The refit under way.
        champion: The champion's promotion.
        waiting: Requests under way.
        problem: Why the registry could not be read.
    """

    refit: Refit | None = None
    champion: Promotion | None = None
    waiting: tuple[OrderRequest, ...] = ()
    problem: str = ""


def assess(store: AlertStore, means: Means) -> Situation:
    """Read the situation from the store and the registry."""
    champion, problem = _read_champion(means.registry) if means.registry else (None, "")
    return Situation(
        refit=next((each for each in store.refits() if each.state in UNDER_WAY), None),
        champion=champion,
        waiting=tuple(each for each in store.orders() if each.state in ORDERS_UNDER_WAY),
        problem=problem,
    )


def _read_champion(registry: Registry) -> tuple[Promotion | None, str]:
    """The champion's promotion, or why it could not be read while a person waits."""
    return try_within(registry.champion, "read the champion")


def refuse(order: Order, means: Means, now: Situation) -> str:
    """Why an order is not possible now; empty when it is."""
    asked = [each for each in now.waiting if each.order is order]
    if asked:
        return f"{asked[0].by} has asked for it already, and that is under way."
    if not means.can(order):
        return means.missing.get(order, "This installation cannot do it.")
    if order is Order.REFIT and now.refit is not None:
        return f"Refit {now.refit.key} is under way."
    if order is Order.STOP and now.refit is None:
        return "No refit is under way."
    if order is Order.ROLL_BACK:
        if now.problem:
            return f"The registry cannot be read: {now.problem}"
        if now.champion is None or now.champion.previous is None:
            return "There is no earlier champion to roll back to."
    return ""


def ask(
    store: AlertStore,
    means: Means,
    order: Order,
    alert_id: str,
    by: str,
    reason: str,
    *,
    role: str = ON_CALL,
) -> OrderRequest:
    """Keep a request, with its entry in the audit trail; ``carry_out_orders`` carries it out.

    Raises:
        UsageError: ``by`` or ``reason`` is empty.
        UnknownId: There is no such alert.
        WrongState: It is not possible now; the message says why.
    """
    if not by.strip() or not reason.strip():
        raise UsageError(f"name who asks to {order}, and say why")
    alert, now = store.alert(alert_id), assess(store, means)
    if why_not := refuse(order, means, now):
        raise WrongState(f"cannot {order} now: {why_not}")
    subject = ""
    if order is Order.ROLL_BACK and now.champion is not None:
        subject = now.champion.bundle_id
    if order is Order.STOP and now.refit is not None:
        subject = now.refit.key
    at = datetime.now(UTC)
    request = OrderRequest(
        request_id=f"{alert.alert_id}-{uuid.uuid4().hex[:8]}",
        order=order,
        alert_id=alert.alert_id,
        subject=subject,
        by=by.strip(),
        reason=reason.strip(),
        at=at,
    )
    entry = make_entry(order, subject or alert_id, by, reason, role, at, alert_id)
    store.add_order(request, entry)
    return request


def carry_out_orders(
    settings: MonitorSettings, store: AlertStore, pages: Path, means: Means
) -> list[OrderRequest]:
    """Carry out every request that no process carries out; returns them with their states now.

    A request whose process died is taken on again once its lease has ended.
    """
    done = []
    while (request := store.claim_order(LEASE_SECONDS)) is not None:
        done.append(carry_out_order(settings, store, pages, means, request))
    return done


def carry_out_order(
    settings: MonitorSettings, store: AlertStore, pages: Path, means: Means, request: OrderRequest
) -> OrderRequest:
    """Carry out a request that was claimed; what fails is kept with the reason."""
    try:
        if request.attempt > MOST_ATTEMPTS:
            raise RefitError(f"given up: {MOST_ATTEMPTS} attempts were abandoned")
        with holding_claim(
            lambda: store.renew_order(request, LEASE_SECONDS),
            f"request {request.request_id}",
            LEASE_SECONDS,
        ):
            outcome = _CARRY_OUT[request.order](settings, store, pages, means, request)
        state = OrderState.DONE
    except ServiceUnreachable as error:
        if request.attempt < MOST_ATTEMPTS:
            log_message(f"request {request.request_id} is tried again: {error}")
            return request  # its lease ends, and then it is taken on again
        state, outcome = OrderState.FAILED, str(error)
    except Exception as error:
        state, outcome = OrderState.FAILED, str(error) or type(error).__name__
    log_message(f"request {request.request_id}: {request.order}: {state}: {outcome}")
    try:
        return store.set_order(request, state, outcome)
    except ClaimLost as lost:
        log_message(f"request {request.request_id}: {lost}")
        return request


def _start_refit(
    settings: MonitorSettings, store: AlertStore, pages: Path, means: Means, request: OrderRequest
) -> str:
    if means.launch is None:
        raise RefitError(means.missing.get(Order.REFIT, "this installation cannot start a refit"))
    earlier = [each for each in store.refits() if each.key == request.request_id]
    if earlier:  # whoever took this request on before has claimed it; the monitor resumes it
        return f"refit {earlier[0].state}: {earlier[0].outcome}".removesuffix(": ")
    refit = store.claim_refit(
        request.request_id,
        store.alert(request.alert_id),
        at=request.at,
        not_since=ANY_TIME,
        lease_seconds=settings.lease_seconds,
    )
    if refit is None:
        raise WrongState("another refit has begun meanwhile")
    refit = carry_out(settings, store, pages, refit, means.launch)
    outcome = f"refit {refit.state}: {refit.outcome}".removesuffix(": ")
    if refit.state is RefitState.FAILED:
        raise RefitError(outcome)
    return outcome


def _stop_refit(
    settings: MonitorSettings, store: AlertStore, pages: Path, means: Means, request: OrderRequest
) -> str:
    refit = next((each for each in store.refits() if each.key == request.subject), None)
    if refit is None:
        raise WrongState(f"there is no refit {request.subject}")
    if refit.state in UNDER_WAY:
        if means.cancel is not None:
            means.cancel(refit)
        stop(store, refit.key, request.by, request.reason)
    return f"refit {refit.key} was stopped"


def _roll_back(
    settings: MonitorSettings, store: AlertStore, pages: Path, means: Means, request: OrderRequest
) -> str:
    if means.registry is None:
        raise RefitError(means.missing.get(Order.ROLL_BACK, "no registry is known here"))
    mark = f"(request {request.request_id})"
    made = [change for change in means.registry.history() if mark in change.reason]
    if not made:
        champion = means.registry.champion_id()
        if champion != request.subject:
            raise WrongState(
                f"the champion is {champion or 'none'} now, no longer {request.subject}"
            )
        made = [means.registry.rollback(request.by, f"{request.reason} {mark}")]
    return f"champion: {made[-1].bundle_id}"


def _refresh(
    settings: MonitorSettings, store: AlertStore, pages: Path, means: Means, request: OrderRequest
) -> str:
    if means.refresh is None:
        raise RefitError(means.missing.get(Order.REFRESH, "the index cannot be refreshed here"))
    return means.refresh(request)


_CARRY_OUT = {
    Order.REFIT: _start_refit,
    Order.STOP: _stop_refit,
    Order.ROLL_BACK: _roll_back,
    Order.REFRESH: _refresh,
}


def describe_effect(order: Order, alert: Alert, now: Situation) -> str:
    """What will happen, in a sentence for the person who is about to ask for it."""
    if order is Order.REFIT:
        return "Trains a new model on the data of now. It goes live only if its gate passes it."
    if order is Order.STOP:
        key = now.refit.key if now.refit else "under way"
        return f"Ends the refit {key}. The champion keeps serving."
    if order is Order.ROLL_BACK and now.champion is not None:
        return (
            f"Makes {now.champion.previous} champion again in the place of "
            f"{now.champion.bundle_id}, whose model is blocked until a person lifts the block."
        )
    if order is Order.REFRESH:
        return (
            "Embeds the listings that are live now with the champion's towers; nothing is trained."
        )
    return ""

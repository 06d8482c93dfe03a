"""Carry out refits that were claimed, including those that a dead process abandoned."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from monitoring.alerts import refresh_pages
from monitoring.settings import MonitorSettings
from monitoring.store import UNDER_WAY, AlertStore, ClaimLost, Refit, RefitState
from refit.alert import Alert, AlertStatus
from refit.errors import GateRefused, ServiceUnreachable
from refit.progress import log_message

Launch = Callable[[Refit, Alert], str]
"""Starts the refit and waits for it; returns the new bundle's id.

Raises GateRefused when the gate refused the new model, UnderWay to stop waiting, and
ServiceUnreachable when a service it needs does not answer. After the latter two, and after a
crash, a later run of the monitor calls it again with the same ``refit.key``: it must find the run
that the first attempt started, not start a second one.
"""


class UnderWay(Exception):  # noqa: N818 - a state, not an error
    """The refit continues in another process; the message names it."""


def resume_refits(
    settings: MonitorSettings, store: AlertStore, pages: Path, launch: Launch
) -> list[Refit]:
    """Finish refits that a dead process abandoned.

    Returns:
        The refits that were taken over, each with its state now.
    """
    resumed = []
    while (refit := store.take_over_refit(settings.lease_seconds)) is not None:
        log_message(f"monitor: refit {refit.key} was abandoned; attempt {refit.attempt}")
        if refit.attempt > settings.maximum_attempts:
            why = f"given up: {settings.maximum_attempts} attempts were abandoned"
            refit = store.set_refit(refit, RefitState.FAILED, why)
            _update_alert(store, refit)
        else:
            refit = carry_out(settings, store, pages, refit, launch)
        resumed.append(refit)
        if refit.state in UNDER_WAY:  # the next run of the monitor follows it, not this one
            break
    return resumed


def carry_out(
    settings: MonitorSettings, store: AlertStore, pages: Path, refit: Refit, launch: Launch
) -> Refit:
    """Launch a claimed refit and keep its outcome; returns the refit with its state now."""
    alert = store.alert(refit.alert_id)
    refit = store.set_refit(refit, RefitState.RUNNING)
    _update_alert(store, refit)
    refresh_pages(store, pages, alert.alert_id)
    with holding_claim(
        lambda: store.renew_refit(refit, settings.lease_seconds),
        f"refit {refit.key}",
        settings.lease_seconds,
    ):
        try:
            state, outcome = RefitState.SUCCEEDED, launch(refit, alert)
        except UnderWay as elsewhere:
            # It was handed over, not abandoned: such an attempt does not count.
            refit = refit.model_copy(update={"attempt": refit.attempt - 1})
            state, outcome = RefitState.RUNNING, str(elsewhere)
        except ServiceUnreachable as error:
            state, outcome = RefitState.RUNNING, f"to be retried: {error}"
        except GateRefused as refusal:
            state, outcome = RefitState.REFUSED, str(refusal)
        except Exception as error:
            state, outcome = RefitState.FAILED, f"{type(error).__name__}: {error}"
    try:
        refit = store.set_refit(refit, state, outcome)
    except ClaimLost:  # a person stopped it, or another process has taken it over
        refit = next(each for each in store.refits() if each.key == refit.key)
    else:
        _update_alert(store, refit)
    refresh_pages(store, pages, alert.alert_id)
    log_message(f"monitor: refit {refit.key} {refit.state}: {refit.outcome}")
    return refit


def stop(store: AlertStore, key: str, by: str, reason: str) -> Refit:
    """End a refit under way; the process that runs it finds its claim lost, and ends the run.

    Raises:
        WrongState: No refit of this key is under way.
    """
    refit = store.stop_refit(key, f"by {by}: {reason}")
    _update_alert(store, refit)
    return refit


def _update_alert(store: AlertStore, refit: Refit) -> None:
    store.update_alert(
        refit.alert_id,
        tuple(AlertStatus),
        refit_run=refit.key,
        outcome=f"refit {refit.state}" + (f": {refit.outcome}" if refit.outcome else ""),
    )


def is_ours(store: AlertStore, refit: Refit) -> bool:
    """Whether a refit is under way and still the claim's; a store that is away says yes."""
    try:
        found = next((each for each in store.refits() if each.key == refit.key), None)
    except ServiceUnreachable:
        return True
    return found is not None and found.state in UNDER_WAY and found.owner == refit.owner


@contextmanager
def holding_claim(renew: Callable[[], None], what: str, lease_seconds: float) -> Iterator[None]:
    """Renew a claim in the background while the block runs."""
    done = threading.Event()

    def keep() -> None:
        while not done.wait(lease_seconds / 3):
            try:
                renew()
            except ClaimLost as lost:
                log_message(f"monitor: {lost}")
                return
            except ServiceUnreachable as error:  # try again, the claim may still be ours
                log_message(f"monitor: {what}: {error}")

    thread = threading.Thread(target=keep, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()

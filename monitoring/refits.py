"""Carrying out refits that were claimed, also those that a dead process left behind."""

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

Raises GateRefused when the new model was not good enough, UnderWay to wait no longer, and
ServiceUnreachable when what it needs is away: a later run of the monitor then looks again. After
either, and after a crash, it is called again with the same ``refit.key``: it must find what the
first attempt left, not do it twice.
"""


class UnderWay(Exception):  # noqa: N818 - what is going on, not a fault
    """The refit goes on without us; the message says where."""


def resume_refits(
    settings: MonitorSettings, store: AlertStore, pages: Path, launch: Launch
) -> list[Refit]:
    """Finish refits that a dead process left behind."""
    done = []
    while (refit := store.take_up_refit(settings.lease_seconds)) is not None:
        log_message(f"monitor: refit {refit.key} was left behind; attempt {refit.attempt}")
        if refit.attempt > settings.maximum_attempts:
            why = f"given up: {settings.maximum_attempts} attempts were left behind"
            finished = store.set_refit(refit, RefitState.FAILED, why)
            _tell_alert(store, finished)
        else:
            finished = carry_out(settings, store, pages, refit, launch)
        done.append(finished)
        if finished.state in UNDER_WAY:  # the next run of the monitor looks at it, not this one
            break
    return done


def carry_out(
    settings: MonitorSettings, store: AlertStore, pages: Path, refit: Refit, launch: Launch
) -> Refit:
    """Launch a claimed refit and keep what came of it."""
    alert = store.alert(refit.alert_id)
    refit = store.set_refit(refit, RefitState.RUNNING)
    _tell_alert(store, refit)
    refresh_pages(store, pages, alert.alert_id)
    with _claim_held(store, refit, settings.lease_seconds):
        try:
            state, outcome = RefitState.SUCCEEDED, launch(refit, alert)
        except UnderWay as news:
            # Left in order, not left behind: such an attempt does not count.
            refit = refit.model_copy(update={"attempt": refit.attempt - 1})
            state, outcome = RefitState.RUNNING, str(news)
        except ServiceUnreachable as error:
            state, outcome = RefitState.RUNNING, f"to be tried again: {error}"
        except GateRefused as refusal:
            state, outcome = RefitState.REFUSED, str(refusal)
        except Exception as error:
            state, outcome = RefitState.FAILED, f"{type(error).__name__}: {error}"
    refit = store.set_refit(refit, state, outcome)
    _tell_alert(store, refit)
    refresh_pages(store, pages, alert.alert_id)
    log_message(f"monitor: refit {refit.key} {refit.state}: {refit.outcome}")
    return refit


def _tell_alert(store: AlertStore, refit: Refit) -> None:
    store.update_alert(
        refit.alert_id,
        tuple(AlertStatus),
        refit_run=refit.key,
        outcome=f"refit {refit.state}" + (f": {refit.outcome}" if refit.outcome else ""),
    )


@contextmanager
def _claim_held(store: AlertStore, refit: Refit, lease_seconds: float) -> Iterator[None]:
    """Renew a claim in the background while its work goes on."""
    done = threading.Event()

    def renew() -> None:
        while not done.wait(lease_seconds / 3):
            try:
                store.renew_refit(refit, lease_seconds)
            except ClaimLost as lost:
                log_message(f"monitor: {lost}")
                return
            except ServiceUnreachable as error:  # tried again while the claim may still be ours
                log_message(f"monitor: refit {refit.key}: {error}")

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()

"""What the review application does in the background: requests are carried out, messages sent."""

import queue
import threading
from collections.abc import Callable
from pathlib import Path

from monitoring.alerts import refresh_pages
from monitoring.notifications import Channel, send_notifications
from monitoring.orders import LEASE_SECONDS, Means, carry_out_order
from monitoring.refits import resume_refits
from monitoring.review.settings import NotifySettings
from monitoring.settings import MonitorSettings
from monitoring.store import UNDER_WAY, AlertStore
from refit.errors import RefitError
from refit.progress import log_message


class ReviewWorker:
    """Carries out requests and sends messages, until it is stopped.

    A request runs in a thread of its own, since a refit can take hours and must be stoppable. What
    is left over when the process ends is taken on again by the next one.

    Args:
        find_store: Opens the alert store; None where there is none yet.
        find_means: What requests are carried out with.
        pages: Folder of the static pages.
        channels: Where messages are sent to.
        notify: Which alerts are sent to people.
        base_url: The application's URL, for links in messages.
        poll_seconds: Between two rounds.
    """

    def __init__(
        self,
        find_store: Callable[[], AlertStore | None],
        find_means: Callable[[AlertStore], Means],
        pages: Path,
        channels: dict[str, Channel],
        notify: NotifySettings,
        base_url: str,
        poll_seconds: float,
    ) -> None:
        self._find_store, self._find_means, self._pages = find_store, find_means, pages
        self._channels, self._notify, self._base_url = channels, notify, base_url
        self._poll_seconds = poll_seconds
        self._wake, self._stopped = threading.Event(), threading.Event()
        self._changed: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._last_problem = ""
        self._thread = threading.Thread(target=self._work, name="review worker", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the round that is under way; requests that run are left to their threads."""
        self._stopped.set()
        self._wake.set()
        self._thread.join(timeout=5)

    def wake(self, alert_id: str) -> None:
        """Begin the next round now; the static page of an alert is written again."""
        if alert_id:
            self._changed.put(alert_id)
        self._wake.set()

    def do_round(self) -> None:
        """Take on the requests that are there, and send the messages that are due."""
        store = self._find_store()
        if store is None:
            return
        self._take_on(store)
        self._refresh_pages(store)
        send_notifications(store, self._channels, self._notify, self._base_url)
        if any(each.state in UNDER_WAY for each in store.refits()):
            self._follow_refits(store)

    def _follow_refits(self, store: AlertStore) -> None:
        """Record what came of refits that other machines run.

        A refit is given up after a few looks that failed, so that nobody looks while it cannot be.
        """
        means = self._find_means(store)
        if means.launch is not None and means.check is not None:
            means.check()
            resume_refits(MonitorSettings(), store, self._pages, means.launch)

    def _take_on(self, store: AlertStore) -> None:
        while not self._stopped.is_set():
            request = store.claim_order(LEASE_SECONDS)
            if request is None:
                return
            means = self._find_means(store)
            threading.Thread(
                target=carry_out_order,
                args=(MonitorSettings(), store, self._pages, means, request),
                name=f"request {request.request_id}",
                daemon=True,
            ).start()

    def _refresh_pages(self, store: AlertStore) -> None:
        """Not in a request: it takes a second to draw a page's pictures."""
        changed: set[str] = set()
        while not self._changed.empty():
            changed.add(self._changed.get())
        for alert_id in changed:
            refresh_pages(store, self._pages, alert_id)

    def _work(self) -> None:
        while not self._stopped.is_set():
            try:
                self.do_round()
                self._last_problem = ""
            except (RefitError, OSError) as error:  # the next round tries again
                self._tell(str(error))
            except Exception as error:
                self._tell(f"{type(error).__name__}: {error}")
            self._wake.wait(self._poll_seconds)
            self._wake.clear()

    def _tell(self, problem: str) -> None:
        """Log a problem once, not in every round."""
        if problem != self._last_problem:
            log_message(f"review: {problem}")
            self._last_problem = problem

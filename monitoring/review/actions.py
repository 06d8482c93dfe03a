"""What a person can do on an alert's page: each action, or why it is not possible now."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote

from monitoring import alerts as service
from monitoring.orders import Means, Situation, ask, describe_effect, refuse
from monitoring.review.sign_in import Reviewer
from monitoring.store import AlertStore, Order, UnknownId
from refit.alert import Alert
from refit.errors import UsageError
from refit.quarantine import EVER, Quarantine

ORDERS = {
    "refresh": Order.REFRESH,
    "refit": Order.REFIT,
    "stop": Order.STOP,
    "rollback": Order.ROLL_BACK,
}
"""By the action's name in its URL."""
_LABELS = {
    "acknowledge": "Acknowledge",
    "resolve": "Resolve",
    "mute": "Mute until",
    "refresh": "Refresh the index",
    "refit": "Start a refit",
    "stop": "Stop the refit",
    "rollback": "Roll back",
}
DONE = {
    "acknowledge": "Acknowledged.",
    "resolve": "Resolved.",
    "mute": "Muted.",
    "release": "Released.",
    "release-unpublished": "Released, but the registry could not be told; the monitor's next run "
    "tells it, and until then no training sees it.",
    **dict.fromkeys(ORDERS, "Asked for. This page shows what comes of it."),
}
"""What a page says after an action. Its URL has the action's name, so that no link has a text."""
HEAVY = ("stop", "rollback")
"""Actions that end or replace something."""


@dataclass(frozen=True)
class PageAction:
    """One action of a page.

    Attributes:
        name: In its URL.
        label: What its button says.
        url: Where its form goes.
        effect: What will happen.
        question: What the person is asked to write.
        refusal: Why it is not possible; empty when it is.
        takes_time: Whether it also takes a time.
        is_heavy: Whether it ends or replaces something.
        opened: Whether its form is open.
        typed: What the person had typed.
    """

    name: str
    label: str
    url: str
    effect: str = ""
    question: str = "Why?"
    refusal: str = ""
    takes_time: bool = False
    is_heavy: bool = False
    opened: bool = False
    typed: Mapping[str, str] = field(default_factory=lambda: {"reason": "", "until": ""})


def _list_releases(at: str, quarantines: Sequence[Quarantine], may_not: str) -> list[PageAction]:
    """All of them at once, where there are several, and each one."""
    links = {
        f"release-{each.quarantine_id}": (
            f"Release the quarantine of {_name_period(each)}",
            f"/quarantines/{quote(each.quarantine_id, safe='')}/release",
        )
        for each in quarantines
    }
    if len(quarantines) > 1:
        links = {
            "release": (f"Release all {len(quarantines)} quarantines", f"{at}/release")
        } | links
    effect, question = "Training learns from these rows again.", "Why is the data right now?"
    return [
        PageAction(name, label, link, effect, question, may_not)
        for name, (label, link) in links.items()
    ]


def _name_period(quarantine: Quarantine) -> str:
    if quarantine.start <= EVER:
        return quarantine.table
    return f"{quarantine.table} from {quarantine.start:%d %b %Y}"


def list_actions(
    alert: Alert, quarantines: list[Quarantine], means: Means, now: Situation, me: Reviewer
) -> list[PageAction]:
    """The actions of an alert's page, the lightest first."""
    at = f"/alerts/{quote(alert.alert_id, safe='')}"
    may_not = "" if me.role == service.ON_CALL else "Only the role on-call may do this."
    resolved = f"{alert.resolved_by} has resolved it." if alert.status == "resolved" else ""
    taken = (
        f"{alert.acknowledged_by} has acknowledged it." if alert.status == "acknowledged" else ""
    )
    actions = [
        PageAction(
            "acknowledge",
            _LABELS["acknowledge"],
            f"{at}/acknowledge",
            "Says that you look into it.",
            "What do you look at first?",
            may_not or resolved or taken,
        ),
        PageAction(
            "mute",
            _LABELS["mute"],
            f"{at}/mute",
            "No message is sent about it until then, unless it becomes worse.",
            "Why can it wait?",
            may_not or resolved,
            takes_time=True,
        ),
    ]
    actions += _list_releases(at, [each for each in quarantines if each.is_in_force], may_not)
    for name, order in ORDERS.items():
        actions.append(
            PageAction(
                name,
                _LABELS[name],
                f"{at}/{name}",
                describe_effect(order, alert, now),
                refusal=may_not or refuse(order, means, now),
                is_heavy=name in HEAVY,
            )
        )
    actions.append(
        PageAction(
            "resolve",
            _LABELS["resolve"],
            f"{at}/resolve",
            "Closes it for good. The next change of these results is a new alert.",
            "What was the cause, and what was done? The next person reads it.",
            may_not or resolved,
        )
    )
    return actions


def perform(
    name: str,
    store: AlertStore,
    means: Callable[[], Means],
    alert_id: str,
    me: Reviewer,
    typed: Mapping[str, str],
) -> None:
    """Do what a form asks for.

    Raises:
        UnknownId: There is no such action or alert.
        WrongState: It is not possible now.
        UsageError: The reason, or the time, is missing or cannot be read.
    """
    reason, role = typed.get("reason", ""), me.role
    if name == "acknowledge":
        service.acknowledge(store, alert_id, me.name, reason=reason, role=role)
    elif name == "resolve":
        service.resolve(store, alert_id, me.name, reason, role=role)
    elif name == "mute":
        until = parse_until(typed.get("until", ""))
        service.mute(store, alert_id, until, me.name, reason, role=role)
    elif name in ORDERS:
        ask(store, means(), ORDERS[name], alert_id, me.name, reason, role=role)
    else:
        raise UnknownId(f"there is no action {name!r}")


def parse_until(text: str) -> datetime:
    """A time of a form, in UTC.

    Raises:
        UsageError: It cannot be read.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"give a time such as 2024-05-01T09:00, not {text!r}") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)

"""Find alerts: filters, search, pages."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from urllib.parse import urlencode

from refit.alert import Alert


@dataclass(frozen=True)
class Wanted:
    """Which alerts are looked for; an empty text wants any.

    Attributes:
        q: Words that all occur in an alert's text.
        status, severity, cause, bundle: The alert's own.
        since: ISO date; alerts that were raised or escalated from then on.
        page: Which page of them, from 1.
    """

    q: str = ""
    status: str = ""
    severity: str = ""
    cause: str = ""
    bundle: str = ""
    since: str = ""
    page: int = 1

    @classmethod
    def read(cls, query: Mapping[str, str]) -> "Wanted":
        """From the parameters of a URL; what cannot be read wants any."""
        names = ("q", "status", "severity", "cause", "bundle")
        texts = {name: query.get(name, "").strip()[:200] for name in names}
        since, page = query.get("since", ""), query.get("page", "1")
        known = "" if _parse_day(since) is None else since
        return cls(
            **texts, since=known, page=max(int(page), 1) if page.isdigit() and len(page) < 9 else 1
        )

    def query(self, page: int) -> str:
        """The parameters of the URL of another page."""
        values = asdict(replace(self, page=page))
        return urlencode({name: value for name, value in values.items() if value})

    def accepts(self, alert: Alert) -> bool:
        """Whether an alert is looked for."""
        cause = alert.incident.cause if alert.incident else ""
        same = (
            (self.status, alert.status),
            (self.severity, alert.severity),
            (self.cause, cause),
            (self.bundle, alert.bundle_id),
        )
        if any(wanted and wanted != has for wanted, has in same):
            return False
        day = _parse_day(self.since)
        if day is not None and max(alert.created_at, alert.escalated_at or alert.created_at) < day:
            return False
        words = self.q.casefold().split()
        text = _text_of(alert) if words else ""
        return all(word in text for word in words)


@dataclass(frozen=True)
class FoundAlerts:
    """One page of the alerts that were found.

    Attributes:
        alerts: The alerts of the page, newest first.
        total: How many were found.
        page, last_page: Which page it is, and how many there are.
    """

    alerts: Sequence[Alert]
    total: int
    page: int
    last_page: int


def find_alerts(alerts: Sequence[Alert], wanted: Wanted, page_size: int) -> FoundAlerts:
    """The alerts that are looked for, in their order, one page of them."""
    found = [alert for alert in alerts if wanted.accepts(alert)]
    last = max(1, -(-len(found) // page_size))
    page = min(wanted.page, last)
    return FoundAlerts(found[(page - 1) * page_size : page * page_size], len(found), page, last)


def _text_of(alert: Alert) -> str:
    incident = alert.incident
    parts = [alert.alert_id, alert.bundle_id, alert.note, alert.outcome, alert.acknowledged_by]
    parts += [alert.resolved_by, *(result.name for result in alert.results)]
    parts += alert.decision.reasons
    if incident is not None:
        parts += [incident.summary, incident.cause, incident.fault, incident.feed]
        parts += [*incident.evidence, *incident.ruled_out]
    return "\n".join(parts).casefold()


def _parse_day(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError:
        return None

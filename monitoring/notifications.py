"""Tell people about alerts: a webhook, which chat tools understand, and e-mail.

A message is sent once for each alert, severity, escalation and channel. It is claimed in the alert
store before it is sent and marked afterwards; however many processes send, one has the claim. If a
process dies between the two, the message is sent again when its claim ends: a reader can tell by
its key, which is the same.
"""

import os
import smtplib
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage

from monitoring.alerts import SEVERITIES, UNRESOLVED
from monitoring.review.settings import MailSettings, NotifySettings
from monitoring.store import AlertStore, ClaimLost, Notification
from refit.alert import Alert
from refit.errors import ServiceUnreachable, UsageError
from refit.progress import log_message
from refit.webhook import post_message

WEBHOOK_VARIABLE = "REFIT_ALERT_WEBHOOK"
"""Environment variable with the webhook's URL, which is a secret."""
PASSWORD_VARIABLE = "REFIT_SMTP_PASSWORD"
"""Environment variable with the password of the mail server's user."""


@dataclass(frozen=True)
class AlertMessage:
    """One message.

    Attributes:
        key: What no two messages share.
        alert: What it is about.
        title: One line.
        text: All of it.
    """

    key: str
    alert: Alert
    title: str
    text: str


Channel = Callable[[AlertMessage], None]
"""Sends a message; raises ServiceUnreachable when it was not accepted."""


def find_channels(
    settings: NotifySettings, environment: Mapping[str, str] = os.environ
) -> dict[str, Channel]:
    """The channels that the settings and the environment name.

    Raises:
        UsageError: A mail user has no password, or it would be sent without TLS.
    """
    channels: dict[str, Channel] = {}
    if webhook := environment.get(WEBHOOK_VARIABLE, "").strip():
        channels["webhook"] = lambda message: _post(webhook, message)
    if (mail := settings.mail) is not None:
        password = environment.get(PASSWORD_VARIABLE, "")
        if mail.user and not password:
            raise UsageError(
                f"notify.mail.user is set: put its password into the variable {PASSWORD_VARIABLE}"
            )
        if mail.user and mail.security == "none":
            raise UsageError("notify.mail.security: a password is not sent without TLS")
        channels["email"] = lambda message: _mail(mail, password, message)
    return channels


def send_notifications(
    store: AlertStore,
    channels: Mapping[str, Channel],
    settings: NotifySettings,
    base_url: str = "",
    now: datetime | None = None,
) -> int:
    """Send what is due about unresolved alerts; returns how many messages were sent.

    Args:
        store: Where alerts and messages are.
        channels: Where to send to, see ``find_channels``.
        settings: Which alerts, and how often.
        base_url: URL of the review application, for the link; empty leaves it out.
        now: The time; None takes the clock's.
    """
    sent = 0
    for alert in reversed(store.alerts(statuses=UNRESOLVED)) if channels else ():
        if not _is_due(alert, settings, now or datetime.now(UTC)):
            continue
        for name, channel in channels.items():
            message = compose(alert, name, base_url)
            claim = store.claim_notification(
                message.key, alert.alert_id, name, settings.lease_seconds
            )
            sent += claim is not None and _send(store, claim, channel, message, settings)
    return sent


def _is_due(alert: Alert, settings: NotifySettings, now: datetime) -> bool:
    if alert.muted_until is not None and alert.muted_until > now:
        return False
    least = SEVERITIES.index(settings.minimum_severity)
    return SEVERITIES.index(alert.severity) >= least


def _send(
    store: AlertStore,
    claim: Notification,
    channel: Channel,
    message: AlertMessage,
    settings: NotifySettings,
) -> bool:
    error = ""
    try:
        channel(message)
    except ServiceUnreachable as unreachable:
        error = str(unreachable)
    wait = settings.first_wait_seconds * 2.0 ** min(claim.attempt - 1, 30)
    try:
        store.set_notification(
            claim,
            sent=not error,
            error=error,
            wait_seconds=min(wait, settings.longest_wait_seconds) if error else 0.0,
        )
    except ClaimLost as lost:
        log_message(f"alert {message.alert.alert_id}: {lost}")
    outcome = f"was not sent, attempt {claim.attempt}: {error}" if error else "was sent"
    log_message(f"alert {message.alert.alert_id}: the message to {claim.channel} {outcome}")
    return not error


def compose(alert: Alert, channel: str, base_url: str = "") -> AlertMessage:
    """The message about an alert as it is now."""
    since = alert.escalated_at or alert.created_at
    key = f"{alert.alert_id}:{alert.severity}:{since:%Y%m%dT%H%M%SZ}:{channel}"
    story = alert.incident.summary if alert.incident else alert.decision.reasons[-1]
    word = "escalated" if alert.escalated_at else "raised"
    title = " ".join(f"[{alert.severity}] Refit alert {word}: {story}".split())
    lines = [
        title,
        f"Alert {alert.alert_id}, bundle {alert.bundle_id}, {alert.status}.",
        f"Decision: {alert.decision.action}. {alert.decision.reasons[-1]}",
    ]
    if alert.incident is not None:
        lines.insert(1, f"Cause: {alert.incident.cause}. {' '.join(alert.incident.evidence[:2])}")
    if base_url:
        lines.append(f"{base_url.rstrip('/')}/alerts/{alert.alert_id}")
    return AlertMessage(key, alert, title, "\n".join(line.strip() for line in lines))


def _post(webhook: str, message: AlertMessage) -> None:
    alert = message.alert
    # Slack reads these three characters as markup, wherever they come from.
    text = message.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    post_message(
        webhook,
        text,
        key=message.key,
        alert_id=alert.alert_id,
        severity=alert.severity,
        status=alert.status,
    )


def _mail(mail: MailSettings, password: str, message: AlertMessage) -> None:
    letter = EmailMessage()
    letter["Subject"] = message.title[:200]
    letter["From"], letter["To"] = mail.sender, ", ".join(mail.recipients)
    letter["Message-ID"] = f"<{message.key.replace(':', '.')}@refit>"
    letter.set_content(message.text)
    context = ssl.create_default_context()
    try:
        with (
            smtplib.SMTP_SSL(mail.host, mail.port, timeout=20, context=context)
            if mail.security == "tls"
            else smtplib.SMTP(mail.host, mail.port, timeout=20)
        ) as server:
            if mail.security == "starttls":
                server.starttls(context=context)
            if mail.user:
                server.login(mail.user, password)
            server.send_message(letter)
    except (OSError, smtplib.SMTPException) as error:
        why = " ".join(str(error).split())
        raise ServiceUnreachable(
            f"the mail server {mail.host}:{mail.port} did not accept the message: {why}"
        ) from None

"""Messages about alerts: real servers receive them, once each."""

import email
import json
import socketserver
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from monitoring.alerts import escalate, mute, resolve
from monitoring.notifications import compose, find_channels, send_notifications
from monitoring.review.settings import MailSettings, NotifySettings
from monitoring.store import SqlStore
from refit.alert import Severity
from refit.errors import UsageError
from tests.monitoring.alerts import NOW, alert
from tests.monitoring.story import STORY

QUICK = NotifySettings(first_wait_seconds=0.001, longest_wait_seconds=0.001)


class Webhook(ThreadingHTTPServer):
    """Keeps what is posted; refuses while ``broken``."""

    def __init__(self):
        self.got, self.broken = [], False
        super().__init__(("127.0.0.1", 0), _Posted)
        self.url = f"http://127.0.0.1:{self.server_port}/services/hush"


class _Posted(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.got.append(body)
        self.send_response(500 if self.server.broken else 200)
        self.end_headers()

    def log_message(self, *args):
        pass


class MailServer(socketserver.ThreadingTCPServer):
    """Speaks as much SMTP as a letter needs, and keeps the letters."""

    allow_reuse_address = True

    def __init__(self):
        self.letters = []
        super().__init__(("127.0.0.1", 0), _Mailed)


class _Mailed(socketserver.StreamRequestHandler):
    def handle(self):
        self.say("220 ready")
        for line in self.rfile:
            verb = line.split()[0].upper()
            if verb == b"DATA":
                self.say("354 go on")
                lines = []
                while (text := self.rfile.readline()) != b".\r\n":
                    lines.append(text)
                self.server.letters.append(email.message_from_bytes(b"".join(lines)))
            self.say("221 bye" if verb == b"QUIT" else "250 fine")
            if verb == b"QUIT":
                return

    def say(self, text):
        self.wfile.write(f"{text}\r\n".encode())


def serving(server):
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def webhook():
    yield from serving(Webhook())


@pytest.fixture
def mail():
    yield from serving(MailServer())


@pytest.fixture
def store(tmp_path):
    return SqlStore(tmp_path / "alerts.sqlite")


@pytest.fixture
def send(store, webhook):
    channels = find_channels(QUICK, {"REFIT_ALERT_WEBHOOK": webhook.url})
    return lambda **options: send_notifications(
        store, channels, QUICK, "https://review.example/", **options
    )


def urgent(name="a1"):
    return alert(name).model_copy(update={"severity": Severity.PAGE, "incident": STORY})


def test_an_alert_is_told_once(store, send, webhook):
    store.add_alert(urgent())
    assert [send(), send(), send()] == [1, 0, 0]
    (told,) = webhook.got
    lines = told["text"].splitlines()
    assert lines[0] == f"[page] Refit alert raised: {STORY.summary}"
    assert lines[1].startswith("Cause: new supply. Of 1,204 listings")
    assert lines[-1] == "https://review.example/alerts/a1"
    assert (told["alert_id"], told["severity"], told["status"]) == ("a1", "page", "open")
    assert told["key"] == "a1:page:20240310T000000Z:webhook"


def test_what_a_chat_tool_takes_for_markup_is_escaped(store, send, webhook):
    markup = STORY.model_copy(update={"summary": "<!channel> & <https://evil|click>"})
    store.add_alert(urgent().model_copy(update={"incident": markup}))
    send()
    assert "&lt;!channel&gt; &amp; &lt;https://evil|click&gt;" in webhook.got[0]["text"]


def test_an_escalation_is_a_message_of_its_own(store, send, webhook):
    store.add_alert(alert())
    send()
    escalate(store, "a1", Severity.PAGE, NOW + timedelta(days=1), "live quality fell too")
    assert [send(), send()] == [1, 0]
    assert [each["severity"] for each in webhook.got] == ["warn", "page"]
    assert "escalated" in webhook.got[1]["text"]
    escalate(store, "a1", Severity.INFO, NOW + timedelta(days=2), "and more")
    send()
    assert webhook.got[2]["severity"] == "page"
    assert len({each["key"] for each in webhook.got}) == 3


def test_a_muted_alert_is_told_when_its_time_is_over_or_when_it_escalates(store, send, webhook):
    for name in ("a1", "a2"):
        store.add_alert(alert(name))
        mute(store, name, datetime.now(UTC) + timedelta(hours=1), "ana", "it can wait")
    assert send() == 0
    escalate(store, "a2", Severity.PAGE, NOW + timedelta(days=1), "worse")
    assert store.alert("a2").muted_until is None
    assert send() == 1
    assert send(now=datetime.now(UTC) + timedelta(hours=2)) == 1
    assert [each["alert_id"] for each in webhook.got] == ["a2", "a1"]


def test_nobody_is_told_of_what_is_resolved_or_less_urgent_than_wanted(store, send, webhook):
    store.add_alert(alert("a1"))
    resolve(store, "a1", "ana", "a season")
    store.add_alert(alert("a2").model_copy(update={"severity": Severity.INFO}))
    settings = QUICK.model_copy(update={"minimum_severity": Severity.WARN})
    channels = find_channels(settings, {"REFIT_ALERT_WEBHOOK": webhook.url})
    assert send_notifications(store, channels, settings) == 0
    assert webhook.got == []


def test_a_webhook_that_refuses_is_tried_again_and_its_url_is_not_repeated(
    store, send, webhook, caplog
):
    store.add_alert(alert())
    webhook.broken = True
    with caplog.at_level("INFO", "refit"):
        for _ in range(3):
            send()
    (kept,) = store.notifications()
    assert (kept.sent, kept.attempt) == (False, 3)
    assert kept.error == "the webhook at 127.0.0.1 was not reached: it answered 500"
    assert "hush" not in caplog.text + kept.error
    webhook.broken = False
    assert [send(), send()] == [1, 0]
    assert len({each["key"] for each in webhook.got}) == 1


def test_waits_become_longer_up_to_a_limit(store, webhook):
    store.add_alert(alert())
    webhook.broken = True
    settings = NotifySettings(first_wait_seconds=100, longest_wait_seconds=150)
    channels = find_channels(settings, {"REFIT_ALERT_WEBHOOK": webhook.url})
    for _ in range(3):
        send_notifications(store, channels, settings)
    assert len(webhook.got) == 1


def test_a_letter_arrives_and_one_channel_does_not_wait_for_the_other(store, webhook, mail):
    settings = QUICK.model_copy(
        update={
            "mail": MailSettings(
                host="127.0.0.1",
                port=mail.server_address[1],
                security="none",
                sender="refit@example.org",
                recipients=("ana@example.org", "bo@example.org"),
            )
        }
    )
    store.add_alert(urgent())
    webhook.broken = True
    channels = find_channels(settings, {"REFIT_ALERT_WEBHOOK": webhook.url})
    assert send_notifications(store, channels, settings, "https://review.example") == 1
    assert send_notifications(store, channels, settings) == 0
    (letter,) = mail.letters
    assert letter["Subject"].startswith("[page] Refit alert raised: A category never seen")
    assert letter["To"] == "ana@example.org, bo@example.org"
    assert letter["Message-ID"] == "<a1.page.20240310T000000Z.email@refit>"
    assert "https://review.example/alerts/a1" in letter.get_payload()


def test_a_mail_server_that_is_not_there_is_tried_again(store):
    settings = QUICK.model_copy(
        update={"mail": MailSettings(host="127.0.0.1", port=1, sender="a@b", recipients=("c@d",))}
    )
    store.add_alert(alert())
    assert send_notifications(store, find_channels(settings, {}), settings) == 0
    assert "127.0.0.1:1 did not accept the message" in store.notifications()[0].error


@pytest.mark.parametrize(
    ("changes", "environment", "words"),
    [
        ({"user": "refit"}, {}, "REFIT_SMTP_PASSWORD"),
        ({"user": "refit", "security": "none"}, {"REFIT_SMTP_PASSWORD": "hush"}, "without TLS"),
    ],
)
def test_a_password_is_asked_for_and_never_sent_in_plain_text(changes, environment, words):
    mail = MailSettings(**{"host": "m", "sender": "a@b", "recipients": ("c@d",)} | changes)
    with pytest.raises(UsageError, match=words) as refused:
        find_channels(NotifySettings(mail=mail), environment)
    assert "hush" not in str(refused.value)


def test_without_a_channel_nothing_is_claimed(store):
    store.add_alert(alert())
    assert find_channels(NotifySettings(), {}) == {}
    assert send_notifications(store, {}, NotifySettings()) == 0
    assert store.notifications() == []


def test_a_title_is_one_line():
    reasons = ("one\r\nBcc: x@y",)
    broken = alert().model_copy(
        update={"decision": alert().decision.model_copy(update={"reasons": reasons})}
    )
    assert compose(broken, "email").title == "[warn] Refit alert raised: one Bcc: x@y"


SENDER = """
import sys
from monitoring.notifications import find_channels, send_notifications
from monitoring.review.settings import NotifySettings
from monitoring.store import SqlStore
store, settings = SqlStore(sys.argv[1]), NotifySettings()
channels = find_channels(settings, {"REFIT_ALERT_WEBHOOK": sys.argv[2]})
sys.stdout.write("ready\\n"); sys.stdout.flush()
sys.stdin.readline()
sys.stdout.write(f"{sum(send_notifications(store, channels, settings) for _ in range(3))}\\n")
"""


def test_of_many_processes_each_message_is_sent_by_one(place, webhook):
    store = SqlStore(place)
    for i in range(6):
        store.add_alert(alert(f"a{i}"))
    senders = [
        subprocess.Popen(
            [sys.executable, "-c", SENDER, place, webhook.url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for sender in senders:
        assert sender.stdout.readline() == "ready\n"
    for sender in senders:
        sender.stdin.write("go\n")
        sender.stdin.flush()
    sent = [int(sender.communicate(timeout=60)[0]) for sender in senders]
    assert sum(sent) == 6
    assert sorted(each["alert_id"] for each in webhook.got) == [f"a{i}" for i in range(6)]


def test_a_sender_that_dies_is_followed_by_one_that_sends_after_the_lease(store, send, webhook):
    store.add_alert(alert())
    key = compose(alert(), "webhook").key
    store.claim_notification(key, "a1", "webhook", 600)
    assert send() == 0
    dead = store.claim_notification("other", "a1", "webhook", -1)
    assert store.claim_notification("other", "a1", "webhook", 60).attempt == dead.attempt + 1

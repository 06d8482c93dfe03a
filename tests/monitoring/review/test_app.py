"""The review application: every role, every action, and what it refuses."""

import re
import shutil
from datetime import UTC, datetime, timedelta

import pytest
from fastapi.testclient import TestClient

from monitoring.alerts import ON_CALL, VIEWER
from monitoring.orders import Means, carry_out_orders
from monitoring.review.app import ReviewPlace, make_app
from monitoring.review.settings import LinkSettings, ReviewSettings, SignInSettings
from monitoring.review.sign_in import AccessToken, Gatekeeper
from monitoring.settings import MonitorSettings
from monitoring.store import Order, RefitState, SqlStore
from refit.alert import AlertStatus, Severity
from refit.files import write_json
from refit.registry import Registry
from tests.monitoring.alerts import LONG_AGO, NOW, alert
from tests.monitoring.story import BUNDLE, MARKUP, tell_story

TOKENS = (AccessToken(ON_CALL, "ana", "a" * 24), AccessToken(VIEWER, "vic", "v" * 24))
ALERT = f"{BUNDLE}-20240310T0000"
WHY = {"reason": "a reason of mine"}
LATER = f"{datetime.now(UTC) + timedelta(days=1):%Y-%m-%dT%H:%M}"
ACTIONS = ("acknowledge", "resolve", "mute", "refit", "stop", "rollback", "refresh")


class Installation:
    """An application on a store, and what its means were asked to do."""

    def __init__(self, folder, place, **settings):
        self.pages = folder / "pages"
        self.place = place
        self.launched, self.refreshed = [], []
        self.means = Means(
            launch=self._launch,
            refresh=self._refresh,
            registry=Registry(folder / "registry"),
        )
        gatekeeper = Gatekeeper(SignInSettings(), TOKENS, "0.0.0.0")
        self.app = make_app(
            ReviewPlace(place, self.pages, lambda store: self.means),
            ReviewSettings(**settings),
            gatekeeper,
        )

    def _launch(self, refit, alert):
        self.launched.append((refit.key, alert.alert_id))
        return "b2"

    def _refresh(self, request):
        self.refreshed.append(request.request_id)
        return "champion: b3"

    def sign_in(self, token=TOKENS[0]):
        """A browser in which somebody has signed in."""
        browser = TestClient(self.app, follow_redirects=False)
        csrf = find_csrf(browser.get("/login").text)
        answer = browser.post("/login", data={"token": token.secret, "csrf": csrf})
        assert (answer.status_code, answer.headers["location"]) == (303, "/alerts")
        return browser

    def store(self):
        return SqlStore(self.place)

    def carry_out(self):
        return carry_out_orders(MonitorSettings(), self.store(), self.pages, self.means)


def find_csrf(page):
    return re.search(r'name="csrf" value="(\w+)"', page)[1]


def send(browser, action, where=f"/alerts/{ALERT}", page=None, **fields):
    """Send a form as the page has it."""
    csrf = find_csrf(browser.get(page or f"/alerts/{ALERT}").text)
    until = {"until": LATER} if action == "mute" else {}
    return browser.post(f"{where}/{action}", data=WHY | until | {"csrf": csrf} | fields)


@pytest.fixture(scope="session")
def told(tmp_path_factory):
    """A store and evidence, which tests copy."""
    folder = tmp_path_factory.mktemp("story")
    tell_story(folder / "alerts.sqlite", folder / "pages")
    return folder


@pytest.fixture
def installation(tmp_path, told):
    shutil.copytree(told, tmp_path, dirs_exist_ok=True)
    return Installation(tmp_path, str(tmp_path / "alerts.sqlite"))


@pytest.fixture
def browser(installation):
    return installation.sign_in()


def test_the_page_tells_the_story_in_its_order(browser):
    page = browser.get(f"/alerts/{ALERT}").text
    told = (
        "48% of new listings",
        "What happened</h2>",
        "Without them no result of listing-embedding drifts",
        "60 known listings were encoded again",
        "What happened since</h2>",
        "No later window has been measured yet",
        "Training leaves out rows of <strong>items</strong>",
        "Click rate: it fell. 15.10% of answers",
        "Where the vectors lie",
        "form a cluster where the reference has none",
        "Trekking jacket, size M",
        "Refit when live quality falls.",
        "The panel's lists, before and after",
        "(left)",
        "outdoor",
    )
    at = 0
    for words in told:
        at = page.find(words, at)
        assert at >= 0, words


def test_listings_behind_the_alert_have_titles_and_links_of_the_web_only(browser):
    page = browser.get(f"/alerts/{ALERT}").text
    examples = page.split("New listings with category_1 “outdoor”")[1].split("</ul>")[0]
    assert '<a href="https://shop.example/i4" rel="noreferrer">Trekking jacket' in examples
    assert examples.count("Trekking jacket") == 2
    assert "gone" in examples, "a listing that is no longer known has its id"
    panel = page.split("The panel's lists, before and after")[1]
    assert '<a href="https://shop.example/i2" rel="noreferrer">' in panel
    assert "javascript:" not in page


def test_pictures_are_drawn_when_they_are_asked_for(browser):
    page = browser.get(f"/alerts/{ALERT}").text
    pictures = re.findall(r'src="(/alerts/[^"]+/pictures/[^"]+)"', page)
    assert len(pictures) >= 4
    for url in pictures:
        answer = browser.get(url)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/svg+xml")
        assert answer.text.startswith("<svg")
        assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert browser.get(f"/alerts/{ALERT}/pictures/none").status_code == 404


def test_images_of_listings_come_only_from_the_place_that_the_settings_name(installation):
    links = LinkSettings(image="https://img.example/{item_id}.jpg", evidently="https://e.example")
    made = Installation(installation.pages.parent, installation.place, links=links)
    answer = made.sign_in().get(f"/alerts/{ALERT}")
    assert 'src="https://img.example/i555.jpg"' in answer.text
    policy = answer.headers["content-security-policy"]
    assert "img-src 'self' https://img.example;" in policy
    for part in ("default-src 'none'", "script-src 'self';", "frame-ancestors 'none'"):
        assert part in policy
    assert "unsafe" not in policy


def test_without_a_template_there_are_no_images_of_listings(browser):
    answer = browser.get(f"/alerts/{ALERT}")
    assert "img-src 'self';" in answer.headers["content-security-policy"]
    assert 'class="listings"' in answer.text
    assert answer.headers["cache-control"] == "no-store"


def test_what_sellers_write_is_never_markup(tmp_path):
    made = Installation(tmp_path, str(tmp_path / "alerts.sqlite"))
    store = tell_story(made.place, made.pages, MARKUP)
    store.update_alert(ALERT, tuple(AlertStatus), note=MARKUP, outcome=MARKUP)
    browser = made.sign_in()
    send(browser, "acknowledge", reason=MARKUP)
    for url in (
        f"/alerts/{ALERT}",
        f"/alerts?q={MARKUP}",
        "/audit",
        f"/alerts/{ALERT}?done={MARKUP}",
        f"/alerts?bundle={MARKUP}&status={MARKUP}&since={MARKUP}&page={MARKUP}",
    ):
        page = browser.get(url).text
        assert "<script>alert" not in page
        assert "onerror=" not in page.replace("onerror=&#34;", "")
    assert "&lt;script&gt;" in browser.get(f"/alerts/{ALERT}").text


def test_there_is_no_inline_script_or_style_and_nothing_from_elsewhere(browser):
    for url in ("/alerts", f"/alerts/{ALERT}", "/audit", "/quarantines", "/login"):
        page = browser.get(url).text
        assert not re.search(r"<script(?! src=\"/assets/)", page)
        assert "<style" not in page
        assert not re.search(r' (style|on\w+)="', page)
        followed = page.replace('<a href="https://shop.example/', "")  # by a person only
        assert not re.search(r'(src|href)="https?:', followed)
    for name in ("htmx-2.0.11.min.js", "app.css", "icon.svg", "htmx-LICENSE.md"):
        assert browser.get(f"/assets/{name}").status_code == 200
    assert browser.get("/assets/../app.py").status_code == 404


@pytest.mark.parametrize("url", ["/", "/alerts", f"/alerts/{ALERT}", "/audit", "/quarantines"])
def test_nobody_reads_without_signing_in(installation, url):
    stranger = TestClient(installation.app, follow_redirects=False)
    answer = stranger.get(url)
    assert answer.status_code == 401
    assert "Sign in" in answer.text
    assert "outdoor" not in answer.text


@pytest.mark.parametrize("action", ACTIONS)
def test_nobody_acts_without_signing_in(installation, action):
    stranger = TestClient(installation.app)
    csrf = find_csrf(stranger.get("/login").text)
    data = WHY | {"csrf": csrf, "until": LATER}
    assert stranger.post(f"/alerts/{ALERT}/{action}", data=data).status_code == 401
    assert installation.store().entries() == []


@pytest.mark.parametrize("action", ACTIONS)
def test_a_viewer_reads_and_does_not_act(installation, action):
    viewer = installation.sign_in(TOKENS[1])
    page = viewer.get(f"/alerts/{ALERT}").text
    assert "You may read" in page
    assert f'action="/alerts/{ALERT}/' not in page
    csrf = find_csrf(page)
    answer = viewer.post(f"/alerts/{ALERT}/{action}", data=WHY | {"csrf": csrf, "until": LATER})
    assert (answer.status_code, "Only the role on-call" in answer.text) == (403, True)
    release = viewer.post(f"/quarantines/{ALERT}-items/release", data=WHY | {"csrf": csrf})
    assert release.status_code == 403
    store = installation.store()
    assert (store.entries(), store.alert(ALERT).status, store.orders()) == ([], "open", [])


@pytest.mark.parametrize(
    "change",
    [
        {"csrf": None},
        {"csrf": "0" * 64},
        {"origin": "https://elsewhere.example"},
        {"origin": "null"},
        {"site": "cross-site"},
        {"cookie": None},
    ],
)
@pytest.mark.parametrize("action", ["acknowledge", "rollback"])
def test_a_form_from_elsewhere_does_nothing(installation, browser, action, change):
    data = WHY | {"csrf": change.get("csrf", find_csrf(browser.get(f"/alerts/{ALERT}").text))}
    headers = {"origin": change.get("origin", "http://testserver")}
    headers["sec-fetch-site"] = change.get("site", "same-origin")
    if "cookie" in change:
        del browser.cookies["refit_csrf"]
    data = {name: value for name, value in data.items() if value is not None}
    answer = browser.post(f"/alerts/{ALERT}/{action}", data=data, headers=headers)
    assert (answer.status_code, "nothing was done" in answer.text) == (403, True)
    assert installation.store().entries() == []


def test_the_form_of_another_person_does_nothing(installation, browser):
    """A page that was opened as a viewer, after somebody else has signed in in that browser."""
    viewer = installation.sign_in(TOKENS[1])
    stale = find_csrf(viewer.get(f"/alerts/{ALERT}").text)
    viewer.cookies.set("refit_session", browser.cookies["refit_session"])
    answer = viewer.post(f"/alerts/{ALERT}/resolve", data=WHY | {"csrf": stale})
    assert answer.status_code == 403


def test_a_session_ends_with_its_token_and_cannot_be_made(installation, browser):
    name, until, signature = browser.cookies["refit_session"].strip('"').split("|")
    for forged in (
        f"{name}|{int(until) + 9}|{signature}",
        f"vic|{until}|{signature}",
        f"{name}|1|{signature}",
        f"{name}|{until}|",
        "ana",
    ):
        stranger = TestClient(installation.app)
        stranger.cookies.set("refit_session", forged)
        assert stranger.get("/alerts").status_code == 401


def test_signing_in_and_out(installation):
    browser = TestClient(installation.app, follow_redirects=False)
    csrf = find_csrf(browser.get("/login").text)
    wrong = browser.post("/login", data={"token": "x" * 24, "csrf": csrf})
    assert (wrong.status_code, "no such token" in wrong.text) == (401, True)
    browser = installation.sign_in()
    assert "ana, on-call" in browser.get("/alerts").text
    for cookie in browser.cookies.jar:
        assert cookie.has_nonstandard_attr("HttpOnly")
        assert cookie.get_nonstandard_attr("SameSite") == "strict"
    csrf = find_csrf(browser.get("/alerts").text)
    assert browser.post("/logout", data={"csrf": csrf}).status_code == 303
    assert browser.get("/alerts").status_code == 401


def test_a_token_of_a_script_needs_no_cookie(installation):
    script = TestClient(installation.app, follow_redirects=False)
    script.headers["authorization"] = f"Bearer {TOKENS[0].secret}"
    answer = script.post(f"/alerts/{ALERT}/acknowledge", data=WHY)
    assert answer.status_code == 303
    script.headers["authorization"] = f"Bearer {TOKENS[1].secret}"
    assert script.post(f"/alerts/{ALERT}/resolve", data=WHY).status_code == 403
    script.headers["authorization"] = "Bearer nothing"
    assert script.get("/alerts").status_code == 401


def test_an_alert_is_acknowledged_muted_and_resolved(installation, browser):
    for action, did in (
        ("acknowledge", "acknowledge"),
        ("mute", f"mute until {LATER.replace('T', ' ')} UTC"),
        ("resolve", "resolve"),
    ):
        answer = send(browser, action)
        assert answer.status_code == 303, answer.text
        entry = installation.store().entries(ALERT)[0]
        assert (entry.did, entry.by, entry.role) == (did, "ana", "on-call")
        assert entry.reason == "a reason of mine"
    store = installation.store()
    closed = store.alert(ALERT)
    assert (closed.status, closed.note, closed.resolved_by) == ("resolved", WHY["reason"], "ana")
    assert len(store.entries(ALERT)) == 3
    page = browser.get("/audit").text
    assert "a reason of mine" in page
    assert "3 entries, each checked against the one before" in page
    installation.app.state.worker.do_round()
    assert "resolved by ana" in (installation.pages / f"{ALERT}.html").read_text()


@pytest.mark.parametrize(
    ("action", "words"),
    [
        ("acknowledge", "is resolved; this needs one that is open"),
        ("resolve", "is resolved; this needs one that is open or acknowledged"),
        ("mute", "is resolved; this needs one that is open or acknowledged"),
        ("stop", "cannot stop the refit now: No refit is under way."),
        ("rollback", "There is no earlier champion to roll back to."),
    ],
)
def test_what_is_not_possible_is_409_and_says_why(installation, browser, action, words):
    installation.store().update_alert(
        ALERT, (AlertStatus.OPEN,), status=AlertStatus.RESOLVED, resolved_by="bo"
    )
    csrf = find_csrf(browser.get(f"/alerts/{ALERT}").text)
    data = WHY | {"csrf": csrf, "until": LATER}
    answer = browser.post(f"/alerts/{ALERT}/{action}", data=data)
    assert (answer.status_code, words in answer.text) == (409, True)
    assert installation.store().entries() == []


@pytest.mark.parametrize(
    ("action", "fields", "words"),
    [
        ("acknowledge", {"reason": " "}, "say why"),
        ("resolve", {"reason": ""}, "note its cause"),
        ("refit", {"reason": ""}, "say why"),
        ("mute", {"until": "soon"}, "give a time"),
        ("mute", {"until": "2020-01-01T00:00"}, "a time in the future"),
    ],
)
def test_what_is_missing_is_400_and_what_was_typed_stays(
    installation, browser, action, fields, words
):
    answer = send(browser, action, **fields)
    assert (answer.status_code, words in answer.text) == (400, True)
    if "reason" not in fields:
        assert ">a reason of mine</textarea>" in answer.text
    assert 'class="action" open' in answer.text
    assert installation.store().entries() == []


def test_what_there_is_not_is_404(browser):
    assert browser.get("/alerts/none").status_code == 404
    assert browser.get("/nothing").status_code == 404
    assert send(browser, "explode").status_code == 404
    answer = send(browser, "release", "/quarantines/none")
    assert (answer.status_code, "no quarantine" in answer.text) == (404, True)


def test_a_form_that_is_too_large_is_413(browser):
    assert send(browser, "acknowledge", reason="x" * 70_000).status_code == 413


def test_a_quarantine_is_released_once(installation, browser):
    assert "Quarantines" in browser.get("/quarantines").text
    csrf = find_csrf(browser.get(f"/alerts/{ALERT}").text)
    url = f"/quarantines/{ALERT}-items/release"
    answer = browser.post(url, data=WHY | {"csrf": csrf})
    assert answer.headers["location"] == f"/alerts/{ALERT}?done=release"
    store = installation.store()
    assert store.quarantines() == []
    assert installation.means.registry.quarantines() == ()
    (entry,) = store.entries(ALERT)
    assert (entry.did, entry.subject) == ("release quarantine", f"{ALERT}-items")
    again = browser.post(url, data=WHY | {"csrf": csrf})
    assert (again.status_code, "was released by ana already" in again.text) == (409, True)
    assert len(installation.store().entries()) == 1


def test_all_quarantines_of_an_alert_are_released_together(installation, browser):
    """A fault of several days leaves one for each day."""
    store = installation.store()
    (first,) = store.quarantines()
    other = first.model_copy(update={"quarantine_id": "of-another-alert", "alert_id": ""})
    store.add_quarantine(first.model_copy(update={"quarantine_id": "second"}))
    store.add_quarantine(other)
    page = browser.get(f"/alerts/{ALERT}").text
    assert "Release all 2 quarantines" in page
    assert f"Release the quarantine of items from {first.start:%d %b %Y}" in page
    csrf = find_csrf(page)
    url = f"/alerts/{ALERT}/release"
    assert browser.post(url, data={"reason": " ", "csrf": csrf}).status_code == 400
    answer = browser.post(url, data=WHY | {"csrf": csrf})
    assert answer.headers["location"] == f"/alerts/{ALERT}?done=release"
    assert [each.quarantine_id for each in store.quarantines()] == ["of-another-alert"]
    assert {e.subject for e in store.entries(ALERT)} == {first.quarantine_id, "second"}
    again = browser.post(url, data=WHY | {"csrf": csrf})
    assert (again.status_code, "was released already" in again.text) == (409, True)


def test_a_release_stands_when_the_registry_cannot_be_written(installation, browser, tmp_path):
    (tmp_path / "registry").write_text("in the way of the folder")
    answer = send(browser, "release", f"/quarantines/{ALERT}-items")
    page = browser.get(answer.headers["location"]).text
    assert "Released, but the registry could not be told" in page
    assert "next run tells it" in page
    assert installation.store().quarantines() == []


def test_a_refit_is_asked_for_and_carried_out_once(installation, browser):
    assert send(browser, "refit").status_code == 303
    csrf = find_csrf(browser.get(f"/alerts/{ALERT}").text)
    again = browser.post(f"/alerts/{ALERT}/refit", data=WHY | {"csrf": csrf})
    assert (again.status_code, "ana has asked for it already" in again.text) == (409, True)
    assert [order.state for order in installation.store().orders()] == ["requested"]
    (done,) = installation.carry_out()
    assert (done.state, done.outcome) == ("done", "refit succeeded: b2")
    assert installation.launched == [(done.request_id, ALERT)]
    assert installation.carry_out() == []
    (refit,) = installation.store().refits()
    assert (refit.key, refit.state) == (done.request_id, "succeeded")
    page = browser.get(f"/alerts/{ALERT}").text
    assert "passed its gate: b2" in page
    assert "ana asked at" in page
    assert "passed its gate" in browser.get(f"/alerts/{ALERT}/progress").text


def test_the_index_is_refreshed(installation, browser):
    send(browser, "refresh")
    (done,) = installation.carry_out()
    assert (done.order, done.outcome) == (Order.REFRESH, "champion: b3")
    assert installation.refreshed == [done.request_id]


def test_a_refit_under_way_is_stopped(installation, browser):
    store = installation.store()
    refit = store.claim_refit("k1", store.alert(ALERT), NOW, LONG_AGO, 600)
    page = browser.get(f"/alerts/{ALERT}").text
    assert "Refit k1 is under way." in page
    assert "Ends the refit k1" in page
    assert 'hx-trigger="every 5s"' in page
    assert send(browser, "stop").status_code == 303
    (done,) = installation.carry_out()
    assert done.outcome == "refit k1 was stopped"
    (stopped,) = store.refits()
    assert (stopped.state, stopped.outcome) == (RefitState.STOPPED, "by ana: a reason of mine")
    assert store.alert(ALERT).outcome == "refit stopped: by ana: a reason of mine"
    assert refit.key == store.entries(ALERT)[0].subject


def test_what_an_installation_cannot_do_says_what_to_do(installation, browser):
    installation.means = Means(missing={Order.REFIT: "Give refit review a --config."})
    assert "Give refit review a --config." in browser.get(f"/alerts/{ALERT}").text
    csrf = find_csrf(browser.get(f"/alerts/{ALERT}").text)
    answer = browser.post(f"/alerts/{ALERT}/refit", data=WHY | {"csrf": csrf})
    assert answer.status_code == 409
    assert installation.store().orders() == []


def test_alerts_are_filtered_searched_and_paged(browser):
    first = browser.get("/alerts").text
    assert "31 of 31 alerts" in first
    assert "Page 1 of 2" in first
    assert first.count("<article") == 25
    assert browser.get("/alerts?page=2").text.count("<article") == 6
    for query, found in {
        "status=open": 1,
        "status=resolved": 30,
        "severity=page": 1,
        "severity=info": 0,
        "cause=new+supply": 1,
        "cause=season": 0,
        f"bundle={BUNDLE}": 1,
        "bundle=b1": 30,
        "since=2024-03-01": 1,
        "since=2024-02-28": 3,
        "since=never": 31,
        "q=OUTDOOR+listings": 1,
        "q=ana": 30,
        "q=old-07": 1,
        "q=query-embedding/mean_shift+outdoor": 1,
        "q=nowhere": 0,
        "page=99": 31,
        "page=-1": 31,
    }.items():
        assert f">{found} of 31 alerts" in browser.get(f"/alerts?{query}").text, query


def test_pages_keep_the_filter(browser):
    page = browser.get("/alerts?status=resolved&q=season").text
    assert 'href="/alerts?q=season&amp;status=resolved&amp;page=2"' in page
    assert "<option selected>resolved</option>" in page


def test_before_the_monitor_has_run_pages_say_so(tmp_path):
    made = Installation(tmp_path, str(tmp_path / "alerts.sqlite"))
    browser = made.sign_in()
    assert "no monitor has run yet" in browser.get("/alerts").text
    assert browser.get("/quarantines").status_code == browser.get("/audit").status_code == 200
    assert browser.get("/alerts/x").status_code == 404
    assert not (tmp_path / "alerts.sqlite").exists()


def test_a_store_that_cannot_be_used_is_503(tmp_path):
    place = tmp_path / "alerts.sqlite"
    place.write_text("nothing of ours, and longer than the head of a database" * 10)
    browser = Installation(tmp_path, str(place)).sign_in()
    answer = browser.get("/alerts")
    assert (answer.status_code, "not a database" in answer.text) == (503, True)
    assert browser.get("/healthz").text == "ok\n"


def test_evidence_of_another_version_is_left_out_and_said(installation, browser):
    write_json(installation.pages / f"{ALERT}.json", {"later": 1})
    page = browser.get(f"/alerts/{ALERT}").text
    assert "The evidence cannot be read" in page
    assert "48% of new listings" in page


def test_a_plain_alert_has_a_page(installation, browser):
    installation.store().add_alert(
        alert("plain").model_copy(update={"results": (), "severity": Severity.INFO})
    )
    page = browser.get("/alerts/plain").text
    assert "Nothing was measured" in page
    assert "No cause was looked for" in page

"""The review application in a real Chromium; left out where there is none."""

import socket
import threading
import time
from contextlib import contextmanager

import pytest
import uvicorn

from monitoring.alerts import ON_CALL
from monitoring.orders import Means
from monitoring.review.app import ReviewPlace, make_app
from monitoring.review.settings import ReviewSettings, SignInSettings
from monitoring.review.sign_in import AccessToken, Gatekeeper
from monitoring.store import SqlStore
from tests.chromium import find_chromium, opened_tab
from tests.monitoring.story import BUNDLE, MARKUP, tell_story

pytestmark = pytest.mark.skipif(not find_chromium(), reason="there is no Chromium here")
ALERT = f"{BUNDLE}-20240310T0000"
TOKEN = "t" * 24
PAGES = ("/alerts", f"/alerts/{ALERT}", "/audit", "/quarantines")
TOO_WIDE = "document.documentElement.scrollWidth > document.documentElement.clientWidth"


@contextmanager
def served(app):
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        opened.listen()
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{opened.getsockname()[1]}"
        server.should_exit = True
        thread.join(10)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The application, and the place of its store."""
    folder = tmp_path_factory.mktemp("site")
    place = str(folder / "alerts.sqlite")
    tell_story(place, folder / "pages", MARKUP)
    app = make_app(
        ReviewPlace(place, folder / "pages", lambda store: Means(launch=lambda refit, alert: "b2")),
        ReviewSettings(poll_seconds=0.2),
        Gatekeeper(SignInSettings(), (AccessToken(ON_CALL, "ana", TOKEN),), "127.0.0.1"),
    )
    with served(app) as url:
        yield url, place


@pytest.fixture(scope="module")
def browser():
    with opened_tab(find_chromium()) as tab:
        yield tab


@pytest.fixture
def tab(site, browser):
    """A tab in which ana has signed in, by typing her token."""
    url, _ = site
    browser.allow_scripts(True)
    browser.show_as(1280)
    browser.open(f"{url}/alerts")
    if browser.run("document.querySelector('#token') !== null"):
        browser.problems.clear()  # the page that asks for the token has the status 401
        browser.press(*TOKEN, "Enter")
        browser.wait("document.querySelector('h1').textContent === 'Alerts'")
    browser.problems.clear()
    return browser


@pytest.mark.parametrize("path", PAGES)
def test_a_page_fits_a_phone_and_breaks_no_rule_of_its_own(site, tab, path):
    url, _ = site
    tab.show_as(375)
    tab.open(url + path)
    for width in (375, 768, 1280):
        tab.show_as(width)
        assert not tab.run(TOO_WIDE), (path, width)
    assert tab.problems == []


def test_what_sellers_write_runs_nothing(site, tab):
    url, _ = site
    tab.open(f"{url}/alerts/{ALERT}")
    assert tab.run("document.querySelectorAll('main script, main [onerror]').length") == 0
    assert tab.run("document.body.textContent.includes('<script>alert(2)')")
    assert tab.problems == []


def test_pictures_are_there_and_follow_the_dark_mode(site, tab):
    url, _ = site
    tab.show_as(1280, dark=True)
    tab.open(f"{url}/alerts/{ALERT}")
    tab.run("document.querySelectorAll('img').forEach(i => { i.loading = 'eager' })")
    tab.wait("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert tab.run("document.images.length") >= 4
    assert tab.run("[...document.images].every(i => i.alt.length > 20)")
    dark = tab.run("getComputedStyle(document.body).backgroundColor")
    tab.show_as(1280)
    assert tab.run("getComputedStyle(document.body).backgroundColor") != dark


def test_on_paper_there_are_no_buttons_and_everything_is_told(site, tab):
    url, _ = site
    tab.show_as(900, media="print")
    tab.open(f"{url}/alerts/{ALERT}")
    hidden = "[...document.querySelectorAll('.act, .bar')].every(e => e.offsetHeight === 0)"
    assert tab.run(hidden)
    assert tab.run("document.querySelector('details p').offsetHeight") > 0


def test_everything_can_be_reached_and_done_by_keyboard(site, tab):
    url, place = site
    tab.open(f"{url}/alerts/{ALERT}")
    reached = "document.activeElement.textContent.trim()"
    for _ in range(60):
        tab.press("Tab")
        outlined = tab.run("getComputedStyle(document.activeElement).outlineStyle")
        assert outlined != "none", tab.run("document.activeElement.outerHTML")
        if tab.run(reached) == "Acknowledge":
            break
    tab.press("Enter", "Tab", *"mine", "Tab", "Enter")
    tab.wait("document.body.textContent.includes('acknowledged by ana')")
    assert SqlStore(place).entries(ALERT)[0].reason == "mine"


def test_the_list_is_filtered_as_one_types(site, tab):
    url, _ = site
    tab.open(f"{url}/alerts")
    tab.run("document.querySelector('#q').focus(); window.stayed = true")
    tab.press(*"old-07")
    tab.wait("document.querySelector('#found').textContent.trim().startsWith('1 of 31')")
    assert tab.run("window.stayed")
    tab.wait("location.search.includes('q=old-07')")
    assert tab.problems == []


def test_a_refit_that_was_asked_for_shows_its_end_without_a_reload(site, tab):
    url, place = site
    tab.open(f"{url}/alerts/{ALERT}")
    tab.run(
        "const form = document.querySelector('form[action$=\"/refit\"]');"
        "form.reason.value = 'new stock'; form.requestSubmit()"
    )
    tab.wait("document.querySelector('#progress').textContent.includes('passed its gate')", 15)
    assert [refit.outcome for refit in SqlStore(place).refits()] == ["b2"]
    assert tab.problems == []


def test_it_works_without_javascript(site, tab):
    url, place = site
    tab.allow_scripts(False)
    tab.open(f"{url}/alerts?q=old-07")
    assert tab.run("document.querySelector('#found').textContent.trim().startsWith('1 of 31')")
    tab.open(f"{url}/alerts/{ALERT}")
    summary = "[...document.querySelectorAll('summary')].find(s => s.textContent === 'Resolve')"
    tab.run(f"{summary}.focus()")
    tab.press("Enter", "Tab", *"done", "Tab", "Enter")
    until = time.monotonic() + 10
    while SqlStore(place).alert(ALERT).status != "resolved":
        assert time.monotonic() < until
        time.sleep(0.1)
    assert SqlStore(place).alert(ALERT).note == "done"

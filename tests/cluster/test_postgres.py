"""The alert store in PostgreSQL as a cluster has it: pods write, the review page reads."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from monitoring.database import Database
from monitoring.store import RefitState, SqlStore
from refit.errors import ServiceUnreachable
from tests.cluster.commands import wait_for
from tests.cluster.images import Images
from tests.cluster.kubernetes import Cluster
from tests.cluster.pods import run_pod
from tests.cluster.postgres import PASSWORD, AlertStore, install_alert_store
from tests.monitoring.alerts import DRIFT, QUERY, alert, series

pytestmark = pytest.mark.cluster

WRITE = """
import sys
from monitoring.store import SqlStore
from refit.alert import Alert

store, alert = SqlStore(sys.argv[1]), Alert.parse_json(sys.argv[2])
store.add_results(alert.results)
store.add_decision(alert.bundle_id, alert.decision)
store.add_alert(alert)
print(store.alert(alert.alert_id).model_dump_json())
"""
CLAIM = """
import sys
from datetime import timedelta
from monitoring.store import SqlStore
from refit.alert import Alert

store = SqlStore(sys.argv[1], patience_seconds=120)
alert = Alert.parse_json(sys.argv[2])
at = alert.created_at
refit = store.claim_refit(alert.alert_id, alert, at, at - timedelta(days=1), lease_seconds=600)
print(refit and refit.owner)
"""
WAITING = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
ONE_ALERT = 'refit_monitor_unresolved_alerts{about="drift"} 1.0'


@pytest.fixture(scope="module")
def installed(
    cluster: Cluster, images: Images, tmp_path_factory: pytest.TempPathFactory
) -> AlertStore:
    images.main()
    return install_alert_store(cluster, tmp_path_factory.mktemp("kustomization"))


@pytest.fixture
def store(installed: AlertStore, monkeypatch: pytest.MonkeyPatch) -> AlertStore:
    """An empty store, whose password this process has."""
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    installed.empty()
    return installed


def test_what_a_pod_writes_is_on_the_review_page(store: AlertStore, images: Images) -> None:
    assert "refit_monitor_store_readable 0.0" in store.metrics()  # no monitor ran yet
    writes = store.pod("writes", images.main(), WRITE, alert().model_dump_json())
    assert run_pod(store.cluster, writes).strip() == alert().model_dump_json()
    kept = SqlStore(store.url_here())
    assert kept.results("t1", 1) == series(QUERY, DRIFT)
    assert kept.decisions() == [alert().decision]
    assert kept.alerts() == [alert()]
    assert_the_page_shows_one_alert(store)


def test_of_two_pods_that_claim_at_once_one_gets_it(store: AlertStore, images: Images) -> None:
    claims = [
        store.pod(name, images.main(), CLAIM, alert().model_dump_json())
        for name in ("claims-one", "claims-other")
    ]
    with ThreadPoolExecutor() as side_by_side:
        with Database(store.url_here()).writing() as db:  # keeps both waiting
            asked = [side_by_side.submit(run_pod, store.cluster, pod) for pod in claims]
            wait_for("two pods that wait", lambda: db.scalar(WAITING) == 2, 90)
        said = [one.result().strip() for one in asked]
    (refit,) = SqlStore(store.url_here()).refits()
    assert refit.state is RefitState.REQUESTED
    assert sorted(said) == sorted(["None", refit.owner])


@pytest.mark.parametrize("given", ["", "quite-wrong"], ids=["none", "a wrong one"])
def test_without_the_password_nobody_gets_in(
    store: AlertStore, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    """Nor through a forwarded port, whose callers come from the server's own pod."""
    with store.forwarded() as forwarded:
        SqlStore(forwarded)
        monkeypatch.setenv("PGPASSWORD", given)
        for url in (store.url_here(), forwarded):
            with pytest.raises(ServiceUnreachable, match="password") as refused:
                SqlStore(url)
            assert "quite-wrong" not in str(refused.value)


def test_what_it_holds_outlives_a_crash(store: AlertStore) -> None:
    SqlStore(store.url_here()).add_alert(alert())
    store.crash()
    assert SqlStore(store.url_here()).alerts() == [alert()]


def test_what_it_holds_outlives_its_absence(store: AlertStore) -> None:
    kept = SqlStore(store.url_here(), patience_seconds=2)
    kept.add_alert(alert())
    store.take_away()
    try:
        with pytest.raises(ServiceUnreachable, match="cannot be used"):
            kept.alerts()
        said = store.metrics()
        assert "refit_monitor_store_readable 0.0" in said
        assert "refit_monitor_unresolved_alerts" not in said
    finally:
        store.bring_back()
    assert SqlStore(store.url_here()).alerts() == [alert()]
    assert_the_page_shows_one_alert(store)


def assert_the_page_shows_one_alert(store: AlertStore) -> None:
    shown = ("refit_monitor_store_readable 1.0", ONE_ALERT)
    # A service's name leads to its new pod some seconds after that has come.
    wait_for("the alert on the page", lambda: all(one in store.metrics() for one in shown), 30)

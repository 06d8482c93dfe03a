"""The alert store in PostgreSQL on a cluster: pods write, the review page reads."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from monitoring.store import RefitState, SqlStore
from refit.database import Database
from refit.errors import ServiceUnreachable
from tests.cluster.alert_store import PASSWORD, AlertStore, install_alert_store
from tests.machine.commands import wait_for
from tests.machine.images import Images
from tests.machine.kubernetes import Cluster
from tests.machine.pods import run_pod
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
ONE_ALERT = 'refit_monitor_unresolved_alerts{about="drift",severity="warn"} 1.0'


@pytest.fixture(scope="module")
def installed(
    cluster: Cluster, images: Images, tmp_path_factory: pytest.TempPathFactory
) -> AlertStore:
    images.main()
    return install_alert_store(cluster, tmp_path_factory.mktemp("kustomization"))


@pytest.fixture
def store(installed: AlertStore, monkeypatch: pytest.MonkeyPatch) -> AlertStore:
    """An empty store; this process has its password."""
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    installed.clear()
    return installed


def test_the_review_page_shows_what_a_pod_wrote(store: AlertStore, images: Images) -> None:
    assert "refit_monitor_store_readable 0.0" in store.metrics()  # no monitor has run yet
    writer = store.pod("writer", images.main(), WRITE, alert().model_dump_json())
    assert run_pod(store.cluster, writer).strip() == alert().model_dump_json()
    database = SqlStore(store.host_url())
    assert database.results("t1", 1) == series(QUERY, DRIFT)
    assert database.decisions() == [alert().decision]
    assert database.alerts() == [alert()]
    assert_the_page_shows_one_alert(store)


def test_if_two_pods_claim_a_refit_concurrently_one_succeeds(
    store: AlertStore, images: Images
) -> None:
    claims = [
        store.pod(name, images.main(), CLAIM, alert().model_dump_json())
        for name in ("claims-one", "claims-other")
    ]
    with ThreadPoolExecutor() as pool:
        with Database(store.host_url()).writing() as db:  # blocks both
            futures = [pool.submit(run_pod, store.cluster, pod) for pod in claims]
            wait_for("two blocked pods", lambda: db.scalar(WAITING) == 2, 90)
        owners = [future.result().strip() for future in futures]
    (refit,) = SqlStore(store.host_url()).refits()
    assert refit.state is RefitState.REQUESTED
    assert sorted(owners) == sorted(["None", refit.owner])


@pytest.mark.parametrize("password", ["", "quite-wrong"], ids=["none", "wrong"])
def test_without_the_password_access_is_denied(
    store: AlertStore, monkeypatch: pytest.MonkeyPatch, password: str
) -> None:
    """Also through a forwarded port, whose connections come from the server's own pod."""
    with store.forwarded() as forwarded:
        SqlStore(forwarded)
        monkeypatch.setenv("PGPASSWORD", password)
        for url in (store.host_url(), forwarded):
            with pytest.raises(ServiceUnreachable, match="password") as denied:
                SqlStore(url)
            assert "quite-wrong" not in str(denied.value)


def test_data_survives_a_crash(store: AlertStore) -> None:
    SqlStore(store.host_url()).add_alert(alert())
    store.crash()
    assert SqlStore(store.host_url()).alerts() == [alert()]


def test_data_survives_a_stop(store: AlertStore) -> None:
    database = SqlStore(store.host_url(), patience_seconds=2)
    database.add_alert(alert())
    store.stop()
    try:
        with pytest.raises(ServiceUnreachable, match="cannot be used"):
            database.alerts()
        metrics = store.metrics()
        assert "refit_monitor_store_readable 0.0" in metrics
        assert "refit_monitor_unresolved_alerts" not in metrics
    finally:
        store.start()
    assert SqlStore(store.host_url()).alerts() == [alert()]
    assert_the_page_shows_one_alert(store)


def assert_the_page_shows_one_alert(store: AlertStore) -> None:
    expected = ("refit_monitor_store_readable 1.0", ONE_ALERT)
    # A Service's name resolves to its new pod some seconds after the pod has started.
    wait_for("the alert on the page", lambda: all(one in store.metrics() for one in expected), 30)

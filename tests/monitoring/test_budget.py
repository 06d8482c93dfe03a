from datetime import timedelta

import numpy as np
import pytest
from scipy.integrate import quad

from monitoring.budget import collect_evidence, find_family, to_e_value, weigh_families
from monitoring.settings import MeasureSettings, PolicySettings
from refit.drift import DriftResult, DriftState, Window
from tests.monitoring.alerts import NOW

MEASURE, POLICY = MeasureSettings(), PolicySettings()


def result(name, day, p_value):
    subject, statistic = name.split("/")
    start = NOW + timedelta(days=int(day))
    return DriftResult(
        subject=subject,
        statistic=statistic,
        value=0.1,
        threshold=0.2,
        n_reference=1000,
        n_current=1000,
        window=Window(start=start, end=start + timedelta(days=1)),
        state=DriftState.OK,
        p_value=p_value,
    )


def test_e_values_have_mean_one_where_nothing_drifts():
    # The formula is the integral of k p^(k-1) over k, whose own integral over p is 1.
    assert to_e_value(0.1) == pytest.approx(quad(lambda k: k * 0.1 ** (k - 1), 0, 1)[0])
    assert quad(to_e_value, 1e-12, 1, limit=500)[0] <= 1
    assert to_e_value(1.0) == pytest.approx(0.5)
    assert to_e_value(0.0) == to_e_value(1e-12)


def test_false_alerts_keep_to_the_budget():
    random = np.random.default_rng(0)
    names = [f"input:items.c{i}/null_share" for i in range(6)] + ["scores/a", "mix:brand/b"]
    alerts, days = 0, 400
    policy = PolicySettings(alerts_per_month=3)
    found = []
    for day in range(days):
        found += [result(name, day, float(random.uniform())) for name in names]
        if collect_evidence(policy, MEASURE, found).is_enough:
            alerts += 1
            found = []
    assert alerts <= days / 10 * 1.5


def test_windows_that_share_rows_do_not_add_up():
    random = np.random.default_rng(0)
    alone = [result("scores/a", day, 1e-3) for day in range(3)]
    pooled = [r.model_copy(update={"pooled_windows": 3}) for r in alone]
    shared, apart = (collect_evidence(POLICY, MEASURE, r).total for r in (pooled, alone))
    assert shared < apart / 100
    calm = [
        result("choice:a/b", day, p).model_copy(update={"pooled_windows": 3})
        for day, p in enumerate(random.uniform(size=3000))
    ]
    grown = [collect_evidence(POLICY, MEASURE, calm[day : day + 30]).total for day in range(2970)]
    assert np.mean(grown) <= 30


def test_a_clear_change_is_enough_at_once_and_a_faint_one_when_it_lasts():
    calm = [result(name, 0, 0.5) for name in ("scores/a", "mix:brand/b", "query-embedding/c")]
    assert not collect_evidence(POLICY, MEASURE, calm).is_enough
    clear = collect_evidence(POLICY, MEASURE, [*calm, result("scores/a", 1, 1e-8)])
    assert clear.is_enough
    assert clear.leading == ("scores/a",)
    once = [*calm, result("scores/a", 1, 1e-3)]
    assert not collect_evidence(POLICY, MEASURE, once).is_enough
    lasting = [*once, result("scores/a", 2, 1e-3), result("scores/a", 3, 1e-3)]
    assert collect_evidence(POLICY, MEASURE, lasting).is_enough


def test_evidence_begins_again_after_an_alert_was_resolved():
    results = [result("scores/a", day, 1e-9) for day in range(3)]
    since = {"scores/a": results[-1].window.end}
    assert collect_evidence(POLICY, MEASURE, results).is_enough
    assert collect_evidence(POLICY, MEASURE, results, since).total == 0


def test_the_budget_is_printed_beside_what_was_spent():
    evidence = collect_evidence(POLICY, MEASURE, [result("scores/a", 0, 0.5)], raised=2)
    assert evidence.needed == 60
    assert "1 results together raise at most 0.5 false alerts a month" in evidence.describe()
    assert "2 alerts were raised" in evidence.describe()


def test_families_share_the_budget_equally():
    names = ["input:items.a/x", "input:items.b/x", "scores/y"]
    assert weigh_families(names) == {names[0]: 0.25, names[1]: 0.25, names[2]: 0.5}
    assert [find_family(name) for name in names] == ["input:items", "input:items", "scores"]
    assert find_family("mix:brand/value_shares") == "mix"

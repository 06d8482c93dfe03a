"""The rule over the cuts of a backtest: better in m of K, and never much worse."""

import re
from datetime import UTC, datetime

import pytest

from components.evaluation.backtest import judge_cuts, read_fit, summarize
from refit.backtest import BacktestSettings, FitResult, Gain
from refit.errors import UsageError
from refit.files import read_json, write_json

THREE = BacktestSettings(cuts=3, better_in=2, worst=0.05)


def gain(value, of=0.2, over="popularity"):
    if value is None:
        return Gain(over=over, of=of)
    return Gain(over=over, value=value, low=value - 0.01, high=value + 0.01, of=of)


def fit(day, value=0.25, over=0.05, champion=None, state="none", seed=0):
    return FitResult(
        cut=datetime(2026, 5, day, tzinfo=UTC),
        seed=seed,
        start=f"2026-04-{day:02} 01:00:00",
        until=f"2026-04-{day + 6:02} 23:00:00",
        n_queries=900,
        metric="hit_rate_at_10",
        value=value,
        best_baseline=None if over == "none ran" else gain(over),
        champion=champion,
        champion_state=state,
        passed=True,
    )


def judge(tmp_path, fits, settings=THREE):
    return judge_cuts(settings, fits, tmp_path / "backtest")


def test_better_in_enough_cuts_and_nowhere_much_worse_passes(tmp_path):
    verdict = judge(tmp_path, [fit(1), fit(8), fit(15, over=-0.005)])
    assert verdict.passed, verdict.reasons
    found = read_json(tmp_path / "backtest/backtest.json")
    assert [cut["cut"] for cut in found["cuts"]] == ["2026-05-15", "2026-05-08", "2026-05-01"]
    assert len(found["fits"]) == 3
    assert read_json(tmp_path / "backtest/verdict.json")["passed"]
    for name in ("report.html", "report.md"):
        page = (tmp_path / "backtest" / name).read_text()
        assert "Backtest passed" in page
        assert "no champion" in page
        assert "2026-04-15" in page


REFUSED = {
    "better in too few": (
        [fit(1), fit(8, over=-0.001), fit(15, over=0.0)],
        "better than the best baseline is 1, at least 2 is needed",
    ),
    "much worse in one": (
        [fit(1), fit(8), fit(15, over=-0.02)],
        "gain over the best baseline in the worst cut.* is -0.1, at least -0.05",
    ),
    "a cut is missing": ([fit(1), fit(8)], "fits that were measured is 2, at least 3"),
    "no cut at all": ([], "fits that were measured is 0, at least 3"),
    "no baseline ran in a cut": (
        [fit(1), fit(8), fit(15, over="none ran")],
        "was not measured: no gain over a baseline was measured in the cut 2026-05-15",
    ),
    "a gain without a value": ([fit(1), fit(8), fit(15, over=None)], "in the cut 2026-05-15"),
    "a champion that is better in one": (
        [
            fit(1, champion=gain(-0.03, over="champion"), state="compared"),
            fit(8, state="seen"),
            fit(15, state="seen"),
        ],
        "gain over the champion in the worst cut.* is -0.15",
    ),
    "a champion that could not be compared": (
        [fit(1, state="not comparable: other features"), fit(8), fit(15)],
        "gain over the champion .* was not measured: 2026-05-01: not comparable: other features",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case, tmp_path):
    fits, reason = REFUSED[case]
    verdict = judge(tmp_path, fits)
    assert not verdict.passed
    assert re.search(reason, " | ".join(verdict.reasons)), verdict.reasons
    assert "Backtest refused" in (tmp_path / "backtest/report.html").read_text()


def test_a_champion_that_has_seen_every_window_is_told_and_not_judged(tmp_path):
    verdict = judge(tmp_path, [fit(day, state="seen") for day in (1, 8, 15)])
    assert verdict.passed
    assert "has trained on this window" in (tmp_path / "backtest/report.md").read_text()


def test_a_cut_counts_by_the_mean_over_its_seeds(tmp_path):
    fits = [
        fit(1, value=0.2, over=0.06, seed=0),
        fit(1, value=0.3, over=-0.02, seed=1),
        fit(8, value=0.2, over=0.01, seed=0),
        fit(8, value=0.2, over=-0.03, seed=1),
    ]
    later, earlier = summarize(fits)
    assert earlier.value == pytest.approx(0.25)
    assert earlier.spread == pytest.approx(0.0707, abs=1e-4)
    assert earlier.best_baseline.value == pytest.approx(0.02)
    assert later.best_baseline.value == pytest.approx(-0.01)
    assert later.spread == 0.0
    settings = BacktestSettings(cuts=2, seeds=2, better_in=2)
    assert "is 1, at least 2" in " ".join(judge(tmp_path, fits, settings).reasons)
    fewer = judge(tmp_path, fits[:3], settings)
    assert "fits that were measured is 3, at least 4 is needed" in fewer.reasons


@pytest.mark.parametrize(
    ("values", "needed"), [({"cuts": 4}, 3), ({"cuts": 1}, 1), ({"cuts": 4, "better_in": 2}, 2)]
)
def test_without_a_number_all_but_one_cut_are_needed(values, needed):
    assert BacktestSettings.parse(values).needed == needed


def test_more_than_there_are_cannot_be_demanded():
    with pytest.raises(UsageError, match="better_in is 5, but there are 4 cuts"):
        BacktestSettings.parse({"better_in": 5})


def test_a_fit_is_read_from_its_evaluation(tmp_path):
    metric = {"hit_rate_at_10": {"value": 0.3, "low": 0.2, "high": 0.4}}
    less = {"hit_rate_at_10": {"value": 0.2, "low": 0.1, "high": 0.3}}
    champion = {"name": "champion", "kind": "champion", "not_run": "not comparable: other"}
    write_json(
        tmp_path / "metrics.json",
        {
            "protocol": {"metric": "hit_rate_at_10", "from": "2026-04-01", "until": "2026-04-07"},
            "n_queries": 7,
            "n_users": 3,
            "methods": [
                {"name": "model", "kind": "model", "metrics": metric},
                champion,
                {"name": "popularity", "kind": "baseline", "metrics": less, "gain": less},
            ],
        },
    )
    verdict = {"passed": False, "reasons": ["few"], "measurements": {}, "checks": []}
    write_json(tmp_path / "verdict.json", verdict)
    found = read_fit(tmp_path, "2026-04-08T00:00:00+00:00", "3", "compared")
    assert found.champion is None
    assert found.champion_state == "not comparable: other"
    assert found.best_baseline == Gain(over="popularity", value=0.2, low=0.1, high=0.3, of=0.2)
    assert (found.value, found.seed, found.passed, found.reasons) == (0.3, 3, False, ("few",))
    assert read_fit(tmp_path, "2026-04-08T00:00:00+00:00", "3", "seen").champion_state == "seen"

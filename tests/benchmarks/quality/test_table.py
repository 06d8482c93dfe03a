"""The rows of the table, and what counts as missed."""

from dataclasses import replace

import pytest

from tests.benchmarks.quality.__main__ import count_missed, describe_rows, main
from tests.benchmarks.quality.runs import FEW_QUERIES, Found, Part, find_folder, read_run
from tests.benchmarks.quality.sets import SETS, PublicSet

HIT_RATE = "hit_rate_at_10"


def found(value: float, baseline: float = 0.07, parts: tuple[Part, ...] = ()) -> Found:
    return Found(
        metrics={HIT_RATE: value},
        best_baseline={HIT_RATE: ("co-occurrence", baseline)},
        parts=parts,
        minutes=12.34,
        peak_gb=1.26,
        epochs=9,
        recall=0.11,
    )


def public(goal: float) -> PublicSet:
    return PublicSet(
        name="set",
        title="Set",
        config="beauty",
        folder="set",
        goals={HIT_RATE: goal},
        published={HIT_RATE: 0.0935},
    )


def test_a_row_has_the_mean_over_the_seeds_and_the_spread() -> None:
    (row,) = describe_rows(public(0.103), [found(0.1), found(0.104), found(0.105)])
    assert row == (
        "Set",
        HIT_RATE,
        "0.0935",
        "0.103",
        "0.1030 (0.1000-0.1050) x3",
        "0.0700 co-occurrence",
        "12.3",
        "1.3",
    )


@pytest.mark.parametrize(
    ("goal", "value", "missed"),
    [(0.103, 0.104, 0), (0.103, 0.1, 1), (0.0, 0.08, 0), (0.0, 0.07, 1), (0.05, 0.06, 1)],
)
def test_a_goal_is_missed_below_it_or_below_a_baseline(
    goal: float, value: float, missed: int
) -> None:
    apart = (known_users(0.01),)
    assert count_missed(public(goal), [found(value, parts=apart)]) == missed


def known_users(gain_low: float) -> Part:
    return Part("known users", 1200, HIT_RATE, 0.2, ("popularity", 0.15), gain_low)


def test_known_and_new_users_have_rows_of_their_own() -> None:
    of_part = [found(0.1, parts=(known_users(low),)) for low in (0.01, 0.03)]
    *_, row = describe_rows(public(0.0), of_part)
    assert row == (
        "  known users, n = 1,200",
        HIT_RATE,
        "",
        "",
        "0.2000 (0.2000-0.2000) x2",
        "0.1500 popularity",
        "gain +0.0200 at least",
    )


@pytest.mark.parametrize(
    ("goal", "low", "missed"), [(0.0, 0.01, 0), (0.0, -0.01, 1), (0.09, -1, 0)]
)
def test_without_a_goal_of_its_own_a_set_is_above_every_baseline_on_each_part(
    goal: float, low: float, missed: int
) -> None:
    assert count_missed(public(goal), [found(0.1, parts=(known_users(low),))]) == missed


def test_where_the_truth_is_known_rows_have_the_share_that_was_reached() -> None:
    lists = {"model": {"chance of a sale": 0.4}, "perfect": {"chance of a sale": 0.8}}
    *_, row = describe_rows(public(0.0), [replace(found(0.1), lists=lists)])
    assert row == (
        "  truth is known",
        "chance of a sale",
        "",
        "",
        "0.4000 (0.4000-0.4000) x1",
        "0.8000 a perfect recommender",
        "share 0.500",
    )


def test_public_sets_need_a_folder(monkeypatch, capsys) -> None:
    monkeypatch.delenv("REFIT_DATA", raising=False)
    monkeypatch.setattr("sys.argv", ["quality", "--only", "vibrent"])
    with pytest.raises(SystemExit):
        main()
    assert "REFIT_DATA is not set" in capsys.readouterr().err


def test_without_a_baseline_nothing_was_reached() -> None:
    alone = replace(found(0.9), best_baseline={})
    assert count_missed(public(0.09), [alone]) == 1


def test_known_and_new_users_that_were_not_measured_apart_are_missed() -> None:
    assert count_missed(public(0.0), [found(0.1)]) == 1
    assert count_missed(public(0.09), [found(0.1)]) == 0


def test_a_set_that_is_not_there_has_missed_its_goal(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.argv", ["quality", "--data", str(tmp_path), "--only", "vibrent"])
    assert main() == 1
    assert "not run" in capsys.readouterr().out


@pytest.mark.parametrize("each", SETS, ids=lambda each: each.name)
def test_every_set_has_complete_settings_and_a_folder_of_its_own_for_each_seed(
    each: PublicSet, tmp_path
) -> None:
    runs = [read_run(each, seed, tmp_path) for seed in (0, 1)]
    first, second = (find_folder(run, tmp_path) for run in runs)
    assert first.parent == second.parent
    assert first != second
    assert runs[1].training.seed == 1
    path = str(tmp_path / each.folder) if each.folder else ""
    assert runs[0].ingestion.path == path
    assert runs[0].evaluation.leaks.queries == int(FEW_QUERIES[0].partition("=")[2])
    assert each.goals.keys() <= set(runs[0].evaluation.metric_names)
    assert each.published.keys() <= each.goals.keys()


def test_names_are_unique() -> None:
    assert len({each.name for each in SETS}) == len(SETS)

"""Where a roll back leads to, and what is advised where it leads nowhere."""

import pytest

from monitoring.explain import advise_action
from monitoring.roll_back import RollBack, find_roll_back
from refit.alert import Action
from refit.incident import Cause, Incident
from refit.registry import Registry
from tests.monitoring.alerts import NOW

MODEL = Incident(cause=Cause.MODEL, summary="", began=NOW)


@pytest.fixture
def promote(tmp_path, make_bundle):
    """Makes bundles champions, one after the other, by the names of their towers."""
    made = Registry(tmp_path / "registry")

    def run(*towers):
        ids = []
        for number, name in enumerate(towers):
            bundle_id = made.add(make_bundle(embedding_version=name, note=str(number)))
            made.promote(bundle_id, "ana", "better")
            ids.append(bundle_id)
        return made, ids

    return run


@pytest.mark.parametrize(
    ("towers", "target", "steps", "problem"),
    [
        (["t1"], None, 0, "there is no champion before"),
        (["t1", "t2"], 0, 1, ""),
        (["t1", "t2", "t2", "t2"], 0, 3, ""),
        (["t1", "t1"], None, 0, "have its model, with earlier indexes"),
    ],
)
def test_a_roll_back_leads_to_the_latest_champion_with_another_model(
    promote, towers, target, steps, problem
):
    registry, ids = promote(*towers)
    found = find_roll_back(registry, ids[-1])
    assert found.is_known
    assert (found.target, found.steps) == ("" if target is None else ids[target], steps)
    assert problem in found.problem


def test_after_a_roll_back_the_champion_that_was_left_is_no_target(promote):
    registry, (first, second, _) = promote("t1", "t2", "t3")
    registry.rollback("ana", "worse")
    assert find_roll_back(registry, second).target == first
    registry.rollback("ana", "worse")
    assert not find_roll_back(registry, first).target


def test_a_champion_that_was_removed_is_no_target(promote, tmp_path):
    registry, (first, second) = promote("t1", "t2")
    (registry_manifest,) = (tmp_path / "registry").glob(f"bundles/{first}/manifest.json")
    registry_manifest.unlink()
    found = find_roll_back(registry, second)
    assert found.is_known
    assert found.problem == f"the champion before it, {first}, is no longer in the registry"


def test_it_is_unknown_for_a_bundle_that_is_no_champion_and_for_a_broken_registry(
    promote, tmp_path
):
    registry, (first, second) = promote("t1", "t2")
    assert not find_roll_back(registry, first).is_known
    (tmp_path / "registry" / "champion.json").write_text("{")
    found = find_roll_back(registry, second)
    assert not found.is_known
    assert "champion.json is invalid" in found.problem


@pytest.mark.parametrize(
    ("roll_back", "action", "words"),
    [
        (RollBack(), Action.ROLL_BACK, "is not known: no registry is known to the monitor."),
        (
            RollBack(is_known=True, problem="there is no champion before b1"),
            Action.ALERT,
            "No roll back: there is no champion before b1.",
        ),
        (RollBack(is_known=True, target="b1", steps=1), Action.ROLL_BACK, "model is b1."),
        (RollBack(is_known=True, target="b1", steps=3), Action.ROLL_BACK, "b1, 3 roll backs away."),
    ],
)
def test_a_roll_back_is_advised_only_where_it_leads_to_another_model(roll_back, action, words):
    advice = advise_action(MODEL, roll_back=roll_back)
    assert advice.action is action
    assert words in advice.sentence

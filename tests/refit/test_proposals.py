import uuid
from datetime import UTC, datetime

import pytest

from refit.errors import GateRefused, UsageError
from refit.registry import Registry
from refit.rollout import Proposal, RolloutDecision
from refit.verdict import Verdict


@pytest.fixture(params=["local", "memory"])
def registry(request, tmp_path) -> Registry:
    url = tmp_path / "registry" if request.param == "local" else f"memory://{uuid.uuid4().hex}/r"
    return Registry(url, cache=tmp_path / "cache")


def decide(proposal: Proposal, action: str = "roll_back") -> RolloutDecision:
    now = datetime.now(UTC)
    return RolloutDecision(
        rollout_id=proposal.rollout_id,
        bundle_id=proposal.bundle_id,
        champion=proposal.champion,
        action=action,
        verdict=Verdict.of([]),
        last_promotion=0,
        started_at=now,
        at=now,
        by="rollout",
    )


def test_a_proposal_is_valid_until_its_rollout_has_ended(registry, make_bundle):
    assert registry.candidate() is None
    bundle_id = registry.add(make_bundle())
    proposal = registry.propose(bundle_id, "", "ann", "better")
    assert registry.candidate() == proposal
    assert registry.propose(bundle_id, "", "bob", "again") == proposal
    registry.decide(decide(proposal))
    assert registry.candidate() is None
    again = registry.propose(bundle_id, "", "ann", "another try")
    assert again.rollout_id != proposal.rollout_id
    assert registry.candidate() == again


def test_a_later_proposal_replaces_an_earlier_one(registry, make_bundle):
    first, second = (registry.add(make_bundle(note=n)) for n in "ab")
    registry.propose(first, "", "ann", "better")
    registry.propose(second, "", "ann", "better still")
    assert registry.candidate().bundle_id == second
    (record,) = registry.decisions()
    assert (record.action, record.bundle_id, record.superseded_by) == ("supersede", first, second)
    assert "better still" in record.verdict.reasons[0]
    assert registry.roles() == {first: "superseded", second: "candidate"}
    with pytest.raises(GateRefused, match=f"superseded by {second}"):
        registry.propose(first, "", "ann", "after all")
    assert registry.propose(first, "", "ann", "after all", force=True).forced


def test_a_rollout_that_has_begun_is_not_superseded(registry, make_bundle):
    first, second = (registry.add(make_bundle(note=n)) for n in "ab")
    begun = registry.propose(first, "", "ann", "better")
    registry.begin(begun)
    registry.propose(second, "", "ann", "better still")
    assert registry.decision(begun.rollout_id) is None
    assert registry.candidate().bundle_id == second


def test_a_second_decision_does_not_replace_the_first(registry, make_bundle):
    proposal = registry.propose(registry.add(make_bundle()), "", "ann", "better")
    first = registry.decide(decide(proposal))
    assert registry.decide(decide(proposal, "promote")) == first
    assert registry.decision(proposal.rollout_id).action == "roll_back"
    assert registry.decisions() == (first,)
    assert registry.decision("nothing") is None


def test_a_proposal_needs_a_passed_gate_and_a_reason(registry, make_bundle):
    weak, fine = registry.add(make_bundle(passed=False)), registry.add(make_bundle())
    with pytest.raises(GateRefused, match="too weak"):
        registry.propose(weak, "", "ann", "why not")
    with pytest.raises(UsageError, match="name and a reason"):
        registry.propose(fine, "", "ann", " ")
    with pytest.raises(UsageError, match="no bundle"):
        registry.propose("nothing", "", "ann", "why not")
    assert registry.candidate() is None


def test_prune_keeps_the_candidate(registry, make_bundle):
    ids = [registry.add(make_bundle(note=note)) for note in "abcd"]
    registry.promote(ids[3], "ann", "better")
    registry.propose(ids[0], ids[3], "ann", "an old one after all")
    assert registry.prune(1) == (ids[1], ids[2])
    assert registry.list() == (ids[0], ids[3])

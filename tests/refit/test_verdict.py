"""A verdict names what it judged, and nothing else is promoted by it."""

import json
import shutil

import pytest

from refit.bundle import assemble_bundle
from refit.errors import GateRefused, RefitError
from refit.files import read_json, write_json
from refit.registry import Registry
from refit.subject import VerdictSubject
from refit.verdict import Check, Verdict

PASSES = Check(name="a", measured=1.0, at_least=0.5)
FAILS = Check(name="b", measured=0.1, at_least=0.5)
THIN = Check(name="c", measured=1.0, at_least=0.5, n=3, needs_n=9)
UNSURE = Check(name="d", measured=0.1, at_least=0.5, undecided=True, more="9 queries would do")
UNMEASURED = Check(name="e", measured=None, at_least=0.5, undecided=True)


@pytest.mark.parametrize(
    ("checks", "outcome"),
    [
        ([PASSES], "passed"),
        ([PASSES, UNSURE], "cannot tell"),
        ([THIN, UNSURE], "cannot tell"),
        ([UNSURE, FAILS], "refused"),
        ([UNMEASURED], "refused"),
        ([], "refused"),
    ],
)
def test_a_verdict_cannot_tell_where_nothing_but_data_is_missing(checks, outcome):
    verdict = Verdict.of(checks)
    assert verdict.outcome == outcome
    assert verdict.passed is (outcome == "passed")
    assert Verdict.parse(verdict.model_dump(mode="json")) == verdict


def test_what_would_be_enough_is_part_of_the_reason():
    assert Verdict.of([UNSURE]).reasons[0].endswith("; 9 queries would do")


def test_a_verdict_that_contradicts_itself_is_an_error():
    written = Verdict.of([FAILS]).model_dump(mode="json")
    with pytest.raises(RefitError, match="passed is True, but the outcome is 'refused'"):
        Verdict.parse(written | {"passed": True})


def test_a_verdict_refused_for_other_reasons_is_refused():
    changed = Verdict.of([PASSES]).refused_for(["the deadline has passed"])
    assert (changed.passed, changed.outcome) == (False, "refused")


def test_a_verdict_of_another_run_assembles_nothing(make_parts, tmp_path):
    ours, theirs = make_parts(), make_parts()
    (theirs["model"] / "query_tower/1/saved_model.pb").write_text("another query tower")
    parts = ours | {"model": theirs["model"]}
    with pytest.raises(RefitError, match=r"verdict.json: its verdict is on another model"):
        assemble_bundle(**parts, out_root=tmp_path / "assembled")
    parts = ours | {"index": shutil.copytree(ours["index"], tmp_path / "index")}
    (parts["index"] / "index.faiss").write_text("other vectors")
    with pytest.raises(RefitError, match="on another index"):
        assemble_bundle(**parts, out_root=tmp_path / "assembled")


@pytest.mark.parametrize("subject", [None, {"model": "x", "index": "y", "dataset": "z"}])
def test_a_bundle_whose_verdict_is_on_something_else_is_promoted_by_force_only(
    make_parts, tmp_path, subject, monkeypatch
):
    parts = make_parts()
    verdict = parts["evaluation"] / "verdict.json"
    verdict.write_text(json.dumps(read_json(verdict) | {"subject": subject}))
    # As written by hand, past the check when it is assembled.
    monkeypatch.setattr("refit.bundle.Bundle.find_unjudged", lambda self: "")
    bundle = assemble_bundle(**parts, out_root=tmp_path / "assembled")
    monkeypatch.undo()
    registry = Registry(tmp_path / "registry")
    registry.add(bundle)
    why = "does not name what it judged" if subject is None else "on another model"
    with pytest.raises(GateRefused, match=why):
        registry.promote(bundle.bundle_id, "ann", "because")
    assert registry.promote(bundle.bundle_id, "ann", "because", force=True).forced


@pytest.mark.parametrize("fault", ["missing", "refused", "of another index"])
def test_a_refreshed_index_needs_a_passed_verdict_of_its_own(
    make_parts, make_bundle, tmp_path, fault
):
    old = make_bundle()
    index = make_parts(note="refreshed")["index"]
    checks = [FAILS] if fault == "refused" else [PASSES]
    verdict = Verdict.of(checks, VerdictSubject.of_folders(old.path, index))
    if fault != "missing":
        write_json(index / "verdict.json", verdict.model_dump(mode="json"))
    if fault == "of another index":
        (index / "index.faiss").write_text("changed later")
    with pytest.raises(RefitError, match="on another index"):
        assemble_bundle(
            model=old.path,
            index=index,
            evaluation=old.evaluation,
            reference=old.reference,
            out_root=tmp_path / "refreshed",
        )

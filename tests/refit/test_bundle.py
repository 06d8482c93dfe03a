import json
from pathlib import Path

import pytest

from refit.bundle import assemble_bundle, load_bundle
from refit.errors import RefitError
from refit.files import write_json
from refit.subject import VerdictSubject
from refit.verdict import Check, Verdict


def test_an_assembled_bundle_loads_with_its_parts(make_bundle):
    made = make_bundle()
    bundle = load_bundle(made.path)
    assert bundle == made
    assert bundle.path.name == bundle.bundle_id
    assert bundle.manifest.embedding_version == "t1"
    assert bundle.manifest.dataset_fingerprint == "f00"
    assert (bundle.query_tower / "1" / "saved_model.pb").read_text() == "query"
    assert bundle.read_verdict().passed
    assert {p.name for p in made.path.parent.iterdir()} == {bundle.bundle_id}


def test_different_contents_give_a_different_id(make_bundle):
    assert make_bundle(note="a").bundle_id[-8:] != make_bundle(note="b").bundle_id[-8:]


def test_a_bundle_can_replace_the_model_folder_if_only_the_index_is_new(make_bundle, tmp_path):
    old = make_bundle()
    (old.path.parent / "index").mkdir()
    new_index = old.path.parent / "index" / "index.json"
    new_index.write_text(json.dumps({"embedding_version": "t1", "as_of": "2025-04-01T00:00:00Z"}))
    judged = VerdictSubject.of_folders(old.path, new_index.parent)
    passed = Verdict.of([Check(name="n", measured=1.0, at_least=1.0)], judged)
    write_json(new_index.parent / "verdict.json", passed.model_dump(mode="json"))
    new = assemble_bundle(
        model=old.path,
        index=new_index.parent,
        evaluation=old.evaluation,
        reference=old.reference,
        out_root=tmp_path / "refreshed",
    )
    assert new.manifest.as_of > old.manifest.as_of
    assert load_bundle(new.path).manifest.embedding_version == old.manifest.embedding_version


@pytest.mark.parametrize(
    "name",
    [
        "query_tower/1/saved_model.pb",
        "index/index.faiss",
        "index/index.json",
        "evaluation/verdict.json",
        "model.json",
    ],
)
def test_a_changed_or_missing_file_is_named(make_bundle, name):
    bundle = make_bundle()
    file = bundle.path / name
    text = file.read_text()
    file.write_text(text + " ")
    with pytest.raises(RefitError, match=f"{name} does not match its checksum"):
        load_bundle(bundle.path)
    file.unlink()
    with pytest.raises(RefitError, match=f"{name} is missing"):
        load_bundle(bundle.path, verify=False)


def test_a_file_that_does_not_belong_is_named(make_bundle):
    bundle = make_bundle()
    (bundle.index / "more.npy").write_text("x")
    with pytest.raises(RefitError, match=r"more\.npy is not part"):
        load_bundle(bundle.path)


def test_a_changed_manifest_is_refused(make_bundle):
    bundle = make_bundle()
    manifest = bundle.path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"f00"', '"f01"'))
    with pytest.raises(RefitError, match=r"manifest\.json was changed"):
        load_bundle(bundle.path, verify=False)


def test_the_error_for_a_bundle_with_old_names_is_to_build_a_new_one(make_bundle):
    manifest = make_bundle().path / "manifest.json"
    values = json.loads(manifest.read_text())
    values["towers_id"] = values.pop("embedding_version")
    manifest.write_text(json.dumps(values))
    with pytest.raises(RefitError, match=r"earlier state of Refit.*refit run"):
        load_bundle(manifest.parent)


def test_a_folder_without_a_manifest_is_not_a_bundle(tmp_path: Path):
    with pytest.raises(RefitError, match="is not a bundle"):
        load_bundle(tmp_path)


@pytest.mark.parametrize(
    ("part", "file"), [("index", "index/index"), ("reference", "reference/thresholds")]
)
def test_parts_of_other_towers_are_refused(make_bundle, tmp_path, part, file):
    with pytest.raises(RefitError, match=rf"{file}\.json has embedding_version t2"):
        make_bundle(**{f"{part}_towers": "t2"})
    assert list((tmp_path / "assembled").iterdir()) == []


@pytest.mark.parametrize("part", ["model/query_tower", "model/model.json", "reference", "index"])
def test_a_missing_part_is_named(make_parts, tmp_path, part):
    parts = make_parts()
    missing = next(iter(parts.values())).parent / part
    missing.rename(tmp_path / "away")
    with pytest.raises(RefitError, match=f"{part}.* does not exist"):
        assemble_bundle(**parts, out_root=tmp_path / "assembled")

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from components.deployment.promote import deploy, keep_refused
from components.deployment.settings import DeploySettings
from refit.dataset import DatasetManifest, Split
from refit.errors import GateRefused, RefitError, UsageError
from refit.features import FeaturesManifest, FeatureSpec
from refit.index import IndexManifest
from refit.registry import Registry
from tests.factories import name_subject

NOW = datetime(2025, 3, 1, tzinfo=UTC)


def write_run(
    root: Path,
    passed: bool = True,
    index_data: str = "f00",
    towers: str = "query",
    kind: str = "model",
) -> dict[str, Path]:
    """The output folders of a run's steps; files that deployment only copies have dummy content."""
    split = Split(start=NOW, validation_start=NOW, test_start=NOW, end=NOW)
    dataset = DatasetManifest(
        source="simulated", simulated=True, terms="", counts={}, split=split, fingerprint="f00"
    )
    features = FeaturesManifest(
        spec=FeatureSpec(), popularity_values={}, vector_size=0, dataset_fingerprint="f00"
    )
    index = IndexManifest(
        embedding_version=towers,
        kind="flat",
        dimension=8,
        n_live=1,
        n_items=1,
        recall_at_100=1.0,
        n_queries=1,
        latency_ms={},
        as_of=NOW,
        dataset_fingerprint=index_data,
    )
    verdict = {"passed": passed, "reasons": [] if passed else ["worse than the champion"]}
    texts = {
        "model/query_tower/1/saved_model.pb": towers,
        "model/item_tower/1/saved_model.pb": "item",
        "index/vectors": towers,
        "model/model.json": json.dumps({"embedding_version": towers, "kind": kind}),
        "reference/thresholds.json": json.dumps({"embedding_version": towers}),
        "evaluation/verdict.json": json.dumps(verdict | {"measurements": {}, "checks": []}),
    }
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    for folder in ("dataset", "features"):
        (root / folder).mkdir()
    dataset.write(root / "dataset")
    features.write(root / "features")
    features.write(root / "model")
    index.write(root / "index")
    name_subject(root)
    parts = ("features", "dataset", "model", "index", "evaluation", "reference")
    return {part: root / part for part in parts}


@pytest.fixture
def registry(tmp_path: Path) -> str:
    return str(tmp_path / "registry")


def test_a_bundle_that_passed_becomes_champion(tmp_path, registry):
    parts = write_run(tmp_path / "run")
    first = deploy(
        DeploySettings(), **parts, registry=registry, reason="first run", first_model=True
    )
    promotion = Registry(registry).champion()
    assert (promotion.bundle_id, promotion.reason) == (first, "first run")
    assert Registry(registry).get(first).manifest.simulated
    second = deploy(DeploySettings(by="ann"), **parts, registry=registry, champion=first)
    promotion = Registry(registry).champion()
    assert (promotion.bundle_id, promotion.previous, promotion.by) == (second, first, "ann")


def test_a_bundle_that_did_not_pass_is_added_but_not_promoted(tmp_path, registry):
    parts = write_run(tmp_path / "run", passed=False)
    with pytest.raises(GateRefused, match="worse than the champion"):
        deploy(DeploySettings(), **parts, registry=registry, first_model=True)
    assert Registry(registry).champion() is None


def test_a_baseline_takes_no_champions_place_but_is_refreshed(tmp_path, registry):
    parts = write_run(tmp_path / "run", kind="baseline")
    first = deploy(DeploySettings(), **parts, registry=registry, first_model=True)
    store = Registry(registry)
    assert (store.kind(first), store.get(first).manifest.kind) == ("baseline", "baseline")
    assert store.champion().reason == "passed the gate (a baseline as itself)"
    refreshed = deploy(DeploySettings(), **parts, registry=registry, champion=first)
    model = write_run(tmp_path / "model", towers="other")
    second = deploy(DeploySettings(), **model, registry=registry, champion=refreshed)
    assert store.kind(second) == "model"
    with pytest.raises(GateRefused, match=f"there is no champion, but {second} serves"):
        deploy(DeploySettings(), **parts, registry=registry, champion=second)


def test_a_comparison_with_another_champion_is_refused(tmp_path, registry):
    parts = write_run(tmp_path / "run")
    first = deploy(DeploySettings(), **parts, registry=registry, first_model=True)
    others = write_run(tmp_path / "other run", towers="other")
    with pytest.raises(GateRefused, match=f"no champion, but the champion is now {first}"):
        deploy(DeploySettings(), **others, registry=registry, first_model=True)
    with pytest.raises(GateRefused, match="evaluate again"):
        deploy(DeploySettings(), **parts, registry=registry, champion="another")
    assert Registry(registry).list() == (first,)


def test_a_bundle_that_a_killed_attempt_promoted_is_not_promoted_again(tmp_path, registry):
    parts = write_run(tmp_path / "run")
    first = deploy(DeploySettings(), **parts, registry=registry, first_model=True)
    assert deploy(DeploySettings(), **parts, registry=registry, first_model=True) == first
    assert [change.bundle_id for change in Registry(registry).history()] == [first]
    second = deploy(DeploySettings(), **parts, registry=registry, champion=first)
    Registry(registry).rollback("ann", "worse")
    with pytest.raises(GateRefused, match="evaluate again"):
        deploy(DeploySettings(), **parts, registry=registry, champion=second)


def test_parts_from_different_data_are_refused(tmp_path, registry):
    parts = write_run(tmp_path / "run", index_data="f01")
    with pytest.raises(RefitError, match="index was built from the data 'f01'"):
        deploy(DeploySettings(), **parts, registry=registry, first_model=True)


def test_old_bundles_are_removed_but_a_roll_back_remains_possible(tmp_path, registry):
    parts = write_run(tmp_path / "run")
    champion, deployed = "", []
    for _ in range(4):
        champion = deploy(
            DeploySettings(keep_bundles=2),
            **parts,
            registry=registry,
            champion=champion,
            first_model=not champion,
        )
        deployed.append(champion)
    store = Registry(registry)
    assert set(store.list()) >= set(deployed[-2:])
    assert len(store.list()) <= 3
    assert store.rollback("ann", "worse").bundle_id == deployed[-2]


@pytest.mark.parametrize("keeps", [True, False])
def test_a_bundle_that_was_compared_with_is_kept_unless_a_setting_says_no(
    tmp_path, registry, keeps
):
    settings = DeploySettings(keep_bundles=2, keep_compared=keeps)
    parts = write_run(tmp_path / "run")
    first = champion = deploy(settings, **parts, registry=registry, first_model=True)
    metrics = {"methods": [{"kind": "champion", "extension": first}]}
    (parts["evaluation"] / "metrics.json").write_text(json.dumps(metrics))
    for _ in range(3):
        champion = deploy(settings, **parts, registry=registry, champion=champion)
    assert (first in Registry(registry).list()) is keeps


def test_on_a_cluster_a_bundle_that_passed_is_proposed_and_not_promoted(tmp_path, registry):
    parts = write_run(tmp_path / "run")
    old = deploy(DeploySettings(), **parts, registry=registry, first_model=True)
    settings = DeploySettings(target="seldon", keep_bundles=2)
    better = write_run(tmp_path / "better", towers="better")
    new = deploy(settings, **better, registry=registry, champion=old, reason="better")
    store = Registry(registry)
    assert store.champion().bundle_id == old
    assert (store.candidate().bundle_id, store.candidate().champion) == (new, old)
    # A repeated attempt finds the bundle that it proposed.
    assert deploy(settings, **better, registry=registry, champion=old) == new
    assert store.list() == (old, new)
    with pytest.raises(GateRefused, match="evaluate again"):
        deploy(settings, **better, registry=registry, champion="another")


def test_without_a_champion_only_a_first_model_is_deployed(tmp_path, registry):
    parts = write_run(tmp_path / "run")
    with pytest.raises(UsageError, match="--first-model says so"):
        deploy(DeploySettings(), **parts, registry=registry)
    assert Registry(registry).list() == ()


def test_refused_bundles_are_kept_once_each_and_up_to_a_number(tmp_path, registry):
    store = Registry(registry)
    kept = []
    for name in ("a", "b", "c"):
        parts = write_run(tmp_path / name, passed=False, towers=name)
        kept.append(keep_refused(DeploySettings(keep_refused=2), **parts, registry=registry))
        # A repeated attempt, as after a kill, finds the bundle that it added.
        assert keep_refused(DeploySettings(keep_refused=2), **parts, registry=registry) == kept[-1]
    assert store.roles() == dict.fromkeys(kept[1:], "refused")
    assert store.champion() is None
    with pytest.raises(GateRefused, match="worse than the champion"):
        store.promote(kept[1], "ann", "I like it")
    assert store.promote(kept[1], "ann", "I like it", force=True).forced


def test_a_new_index_of_a_forced_champion_needs_no_passed_verdict(tmp_path, registry):
    parts = write_run(tmp_path / "run", passed=False)
    kept = keep_refused(DeploySettings(), **parts, registry=registry)
    Registry(registry).promote(kept, "ann", "I like it", force=True)
    refreshed = deploy(DeploySettings(), **parts, registry=registry, champion=kept, force=True)
    assert Registry(registry).champion_id() == refreshed
    settings = DeploySettings(target="seldon")
    proposed = deploy(settings, **parts, registry=registry, champion=refreshed, force=True)
    assert Registry(registry).candidate().bundle_id == proposed


def test_a_model_that_was_rolled_back_is_not_deployed_again(tmp_path, registry):
    old = deploy(
        DeploySettings(), **write_run(tmp_path / "old"), registry=registry, first_model=True
    )
    bad = write_run(tmp_path / "bad", towers="bad")
    deploy(DeploySettings(), **bad, registry=registry, champion=old)
    Registry(registry).rollback("ann", "too many coats")
    with pytest.raises(GateRefused, match=r"too many coats.*refit bundles unblock"):
        deploy(DeploySettings(), **bad, registry=registry, champion=old)

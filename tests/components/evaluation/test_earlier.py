"""The best of the last champions is found by its record, and compared on the same queries."""

import json

import pytest

from components.evaluation.earlier import find_best_earlier
from components.evaluation.results import Interval, Method, Results
from components.evaluation.settings import EvaluationSettings
from refit.bundle import assemble_bundle
from refit.registry import Registry
from tests.components.deployment.test_promote import write_run
from tests.factories import name_subject

METRIC = "hit_rate_at_100"
SETTINGS = EvaluationSettings(best_of_last=3)


@pytest.fixture
def registry(tmp_path):
    return Registry(tmp_path / "registry")


@pytest.fixture
def promote(tmp_path, registry):
    def promote(name, gain, towers=None, force=False):
        """Promote a model whose gate recorded a gain over a baseline of 0.2."""
        root = tmp_path / name
        parts = write_run(root, towers=name)
        model = root / "model" / "model.json"
        version = {"embedding_version": towers or name}
        model.write_text(json.dumps(version))
        (root / "reference" / "thresholds.json").write_text(json.dumps(version))
        index = root / "index" / "index.json"
        index.write_text(json.dumps(json.loads(index.read_text()) | version))
        if gain is not None:
            methods = (("model", "model", 0.2 * (1 + gain)), ("popularity", "baseline", 0.2))
            results = Results(
                protocol={},
                n_queries=1,
                n_users=1,
                methods=tuple(
                    Method(name=n, kind=k, metrics={METRIC: Interval(value=v)})
                    for n, k, v in methods
                ),
            )
            (root / "evaluation" / "metrics.json").write_text(results.model_dump_json())
        name_subject(root)
        names = ("model", "index", "evaluation", "reference")
        bundle = assemble_bundle(**{n: parts[n] for n in names}, out_root=tmp_path / "made")
        registry.add(bundle)
        registry.promote(bundle.bundle_id, "ann", name, force=force)
        return bundle.bundle_id

    return promote


def test_the_first_of_many_small_losses_is_the_one_to_beat(registry, promote):
    best = promote("first", 0.50)
    promote("second", 0.47)
    champion = promote("third", 0.44)
    found = find_best_earlier(registry, champion, SETTINGS)
    assert (found.bundle_id, found.folder) == (best, registry.get(best).path)


def test_nothing_more_is_compared_where_the_champion_is_the_best(registry, promote):
    promote("first", 0.4)
    promote("second", 0.5, towers="t2")
    refreshed = promote("second, refreshed", 0.5, towers="t2")
    assert find_best_earlier(registry, refreshed, SETTINGS) is None


def test_only_the_last_models_count_and_a_refreshed_index_is_no_other_model(registry, promote):
    promote("long ago", 0.9)
    best = promote("a", 0.5)
    promote("b", 0.4)
    promote("c", 0.3, towers="c")
    champion = promote("c, refreshed", 0.3, towers="c")
    assert find_best_earlier(registry, champion, SETTINGS).bundle_id == best


def test_what_was_rolled_back_or_excused_does_not_count(registry, promote):
    promote("first", 0.3)
    excused = promote("excused", 0.8)
    champion = promote("champion", 0.4)
    promote("broken", 0.9)
    registry.rollback("ann", "its answers were bad")
    assert registry.champion_id() == champion
    assert find_best_earlier(registry, champion, SETTINGS).bundle_id == excused
    settings = SETTINGS.model_copy(update={"excused_bundles": {excused: "other features"}})
    assert find_best_earlier(registry, champion, settings) is None


def test_a_best_bundle_that_is_broken_is_not_skipped(registry, promote):
    best = promote("first", 0.5)
    champion = promote("second", 0.4)
    (registry.get(best).path / "index" / "index.json").write_text("{}")
    found = find_best_earlier(registry, champion, SETTINGS)
    assert (found.bundle_id, found.folder) == (best, None)
    assert "does not match its checksum" in found.why


def test_a_bundle_that_was_compared_with_is_not_pruned(registry, promote, tmp_path):
    best = promote("first", 0.5)
    promote("second", 0.4)
    promote("third", 0.4)
    promote("fourth", 0.4)
    assert best not in registry.prune(2, needed={best})
    assert best in registry.prune(2)

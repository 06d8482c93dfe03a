"""The best of the last champions, so that many small losses cannot add up to a large one.

A tolerance against the champion alone is a ratchet: each refit may lose a little again. The model
is therefore also compared with the best of the last N champions, on the same queries.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from components.evaluation.results import Results
from components.evaluation.settings import EvaluationSettings
from refit.errors import RefitError
from refit.registry import Registry


@dataclass(frozen=True)
class EarlierChampion:
    """A bundle that was champion once.

    Attributes:
        folder: Its folder; None if it cannot be read.
        why: Why it cannot be read.
    """

    bundle_id: str
    folder: Path | None
    why: str = ""


def find_best_earlier(
    registry: Registry, champion: str, settings: EvaluationSettings
) -> EarlierChampion | None:
    """The best of the last ``settings.best_of_last`` champions; None if it is the champion itself.

    Their own gates measured them in different test windows, so they are compared by their recorded
    gain over the best baseline, as a share of the baseline's value. Bundles that were forced, that
    were rolled back, or that are excused do not count; bundles with the same towers count once.

    Args:
        registry: The bundles, and which of them was champion.
        champion: Id of the champion, which the model is compared with anyway.
        settings: How many count, and the metric.
    """
    gains: dict[str, tuple[float, str]] = {}
    excused: set[str] = set()
    ours = _towers(registry, champion)
    for bundle_id in _last_champions(registry, champion):
        if len(gains) >= settings.best_of_last:
            break
        towers = _towers(registry, bundle_id)
        if bundle_id in settings.excused_bundles:
            excused.add(towers)
        gain = _recorded_gain(registry, bundle_id, settings.metric)
        if gain is not None and towers not in {"", *gains, *excused}:
            gains[towers] = (gain, bundle_id)
    if not gains:
        return None
    towers, (_, best) = max(gains.items(), key=lambda one: one[1][0])
    if towers == ours:
        return None
    try:
        return EarlierChampion(best, registry.get(best).path)
    except (RefitError, OSError) as error:
        return EarlierChampion(best, None, f"{best} cannot be read: {error}")


def _last_champions(registry: Registry, champion: str) -> Iterator[str]:
    """Ids of the champions, the newest first, without those that were forced or rolled back."""
    history = registry.history()
    rolled_back = {
        before.bundle_id for before, after in pairwise(history) if after.action == "rollback"
    }
    yield champion
    for promotion in reversed(history):
        if promotion.bundle_id not in rolled_back and not promotion.forced:
            yield promotion.bundle_id


def _towers(registry: Registry, bundle_id: str) -> str:
    """The bundle's embedding version; "" if the bundle was removed."""
    manifest = _read(registry, bundle_id, "manifest.json")
    return str(manifest.get("embedding_version", ""))


def _recorded_gain(registry: Registry, bundle_id: str, metric: str) -> float | None:
    written = _read(registry, bundle_id, "evaluation/metrics.json")
    try:
        results = Results.parse(written)
    except RefitError:
        return None  # it has no metrics, or those of an earlier state of Refit
    best = results.best_baseline(metric)
    theirs = best.metrics[metric].value if best else None
    ours = next((m.metrics.get(metric) for m in results.of_kind("model")), None)
    if ours is None or ours.value is None or not theirs:
        return None
    return ours.value / theirs - 1.0


def _read(registry: Registry, bundle_id: str, name: str) -> dict[str, Any]:
    text = registry.read_file(bundle_id, name)
    found = json.loads(text) if text else {}
    return found if isinstance(found, dict) else {}

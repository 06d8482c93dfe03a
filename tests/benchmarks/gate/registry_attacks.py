"""Attacks on the registry, with the bundle of the honest model."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from monitoring.reference import build_reference
from monitoring.settings import MeasureSettings
from refit.bundle import Bundle, assemble_bundle
from refit.dataset import DatasetManifest
from refit.errors import RefitError
from refit.files import read_json, write_json
from refit.index import IndexManifest
from refit.registry import CHAMPION_FILE, Registry

BY, REASON = "bench", "an attack"


@dataclass(frozen=True)
class RegistryAttack:
    """A way to put a model, or none, into service.

    Attributes:
        name: Its name in the table.
        run: Tries it, in a folder of its own; raises where it is refused.
        names: Words that the reason must contain.
    """

    name: str
    run: Callable[["Bundles", Path], None]
    names: str


@dataclass(frozen=True)
class Bundles:
    """The honest model's bundle, and copies of it that differ in one file.

    Attributes:
        honest: Its verdict passed.
        other: The same with another index.
        parts: The folders that it was assembled from.
    """

    honest: Bundle
    other: Bundle
    parts: Path


def build_bundles(parts: Path, folder: Path) -> Bundles:
    """Assemble the bundles of the outputs of ``judge``."""
    reference = parts / "reference"
    if not reference.exists():
        towers = IndexManifest.read(parts / "index").embedding_version
        build_reference(
            MeasureSettings(),
            parts / "evaluation" / "predictions.parquet",
            parts / "index",
            parts / "dataset",
            towers,
            reference,
        )
    honest = _assemble(parts, folder / "honest")
    changed = shutil.copytree(parts, folder / "changed-parts")
    verdict = read_json(changed / "evaluation" / "verdict.json")
    write_json(changed / "evaluation" / "verdict.json", {**verdict, "reasons": []})
    (changed / "evaluation" / "note.txt").write_text("judged again")
    return Bundles(honest, _assemble(changed, folder / "other"), parts)


def _assemble(parts: Path, out: Path) -> Bundle:
    return assemble_bundle(
        model=parts / "model",
        index=parts / "index",
        evaluation=parts / "evaluation",
        reference=parts / "reference",
        out_root=out,
        dataset=DatasetManifest.read(parts / "dataset"),
    )


def _promote_another_verdict(bundles: Bundles, folder: Path) -> None:
    parts = shutil.copytree(bundles.parts, folder / "parts")
    file = parts / "evaluation" / "verdict.json"
    verdict = read_json(file)
    write_json(file, {**verdict, "subject": {**verdict["subject"], "model": "0" * 64}})
    _assemble(parts, folder / "bundle")


def _change_a_tower(bundles: Bundles, folder: Path) -> None:
    registry = Registry(folder / "registry")
    bundle_id = registry.add(bundles.honest)
    file = next((folder / "registry/bundles" / bundle_id).glob("**/saved_model.pb"))
    file.write_bytes(file.read_bytes() + b"0")
    registry.promote(bundle_id, BY, REASON)


def _promote_refused(bundles: Bundles, folder: Path) -> None:
    parts = shutil.copytree(bundles.parts, folder / "parts")
    file = parts / "evaluation" / "verdict.json"
    verdict = {**read_json(file), "passed": False, "outcome": "refused", "reasons": ["worse"]}
    write_json(file, verdict)
    registry = Registry(folder / "registry")
    registry.promote(registry.add(_assemble(parts, folder / "bundle")), BY, REASON)


def _start_without_a_champion(bundles: Bundles, folder: Path) -> None:
    Registry(folder / "registry").starting_champion(first_model=False)


def _start_first_again(bundles: Bundles, folder: Path) -> None:
    registry = Registry(folder / "registry")
    registry.promote(registry.add(bundles.honest), BY, REASON)
    registry.starting_champion(first_model=True)


def _lose_the_champion(bundles: Bundles, folder: Path) -> None:
    registry = Registry(folder / "registry")
    registry.promote(registry.add(bundles.honest), BY, REASON)
    (folder / "registry" / CHAMPION_FILE).unlink()
    registry.starting_champion(first_model=True)


def _promote_what_was_rolled_back(bundles: Bundles, folder: Path) -> None:
    registry = Registry(folder / "registry")
    for bundle in (bundles.honest, bundles.other):
        registry.promote(registry.add(bundle), BY, REASON, force=True)
    registry.rollback(BY, REASON)
    registry.promote(bundles.other.bundle_id, BY, REASON)


def _go_back(bundles: Bundles, folder: Path) -> None:
    registry = Registry(folder / "registry")
    for bundle in (bundles.honest, bundles.other):
        registry.promote(registry.add(bundle), BY, REASON)
    registry.promote(bundles.honest.bundle_id, BY, REASON)


def _promote_without_a_reason(bundles: Bundles, folder: Path) -> None:
    registry = Registry(folder / "registry")
    registry.promote(registry.add(bundles.honest), BY, "")


def _promote_over_another_champion(bundles: Bundles, folder: Path) -> None:
    registry = Registry(folder / "registry")
    ids = [registry.add(bundle) for bundle in (bundles.honest, bundles.other)]
    registry.promote(ids[0], BY, REASON, expected="")
    registry.promote(ids[1], BY, REASON, expected="")


def _corrupt_the_champion(bundles: Bundles, folder: Path) -> None:
    registry = Registry(folder / "registry")
    registry.promote(registry.add(bundles.honest), BY, REASON)
    (folder / "registry" / CHAMPION_FILE).write_text(json.dumps({"bundle_id": ""}))
    registry.starting_champion(first_model=False)


ATTACKS = (
    RegistryAttack(
        "a verdict that judged another model",
        _promote_another_verdict,
        "its verdict is on another model",
    ),
    RegistryAttack("a tower that was changed after its verdict", _change_a_tower, "saved_model.pb"),
    RegistryAttack("a refused bundle, promoted all the same", _promote_refused, "worse"),
    RegistryAttack(
        "an empty registry taken for a cold start", _start_without_a_champion, "--first-model"
    ),
    RegistryAttack(
        "a first model beside a champion", _start_first_again, "leave out --first-model"
    ),
    RegistryAttack(
        "a lost champion.json taken for a cold start", _lose_the_champion, "champion.json is lost"
    ),
    RegistryAttack(
        "a champion.json that is broken", _corrupt_the_champion, "champion.json is invalid"
    ),
    RegistryAttack(
        "a model that was rolled back, promoted again",
        _promote_what_was_rolled_back,
        "its model is blocked",
    ),
    RegistryAttack("a model that was superseded, promoted again", _go_back, "it was superseded by"),
    RegistryAttack(
        "a promotion that expected another champion",
        _promote_over_another_champion,
        "evaluate again",
    ),
    RegistryAttack(
        "a promotion without a reason", _promote_without_a_reason, "a name and a reason"
    ),
)


def try_attacks(bundles: Bundles, folder: Path) -> Iterator[tuple[RegistryAttack, str]]:
    """Try each attack; yields the reason of its refusal, "" where it succeeded."""
    for attack in ATTACKS:
        own = folder / attack.name.replace(" ", "-")
        own.mkdir(parents=True)
        try:
            attack.run(bundles, own)
        except RefitError as error:
            yield attack, str(error)
        else:
            yield attack, ""

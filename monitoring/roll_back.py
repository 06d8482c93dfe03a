"""Where a roll back leads to: the latest earlier champion with another model, if there is one."""

from refit.bundle import MANIFEST_FILE, BundleManifest
from refit.errors import RefitError
from refit.registry import Registry
from refit.settings import Settings


class RollBack(Settings):
    """What a roll back of the bundle in service could do.

    Attributes:
        target: The latest earlier champion with other towers; empty when there is none, or when
            that is not known.
        steps: How many roll backs lead to it; champions in between have the same towers, with
            earlier indexes.
        is_known: Whether the registry could say it.
        problem: Why there is no target, or why that is not known.
    """

    target: str = ""
    steps: int = 0
    is_known: bool = False
    problem: str = "no registry is known to the monitor"


UNKNOWN_ROLL_BACK = RollBack()


def find_roll_back(registry: Registry, bundle_id: str) -> RollBack:
    """What a roll back of the bundle in service could do.

    Args:
        registry: Where bundles are kept.
        bundle_id: The bundle that is measured.
    """
    try:
        return _find(registry, bundle_id)
    except RefitError as error:
        return RollBack(problem=str(error))


def _find(registry: Registry, bundle_id: str) -> RollBack:
    champion = registry.champion()
    if champion is None or champion.bundle_id != bundle_id:
        return RollBack(problem=f"{bundle_id} is not the registry's champion")
    towers = _read_towers(registry, bundle_id)
    latest = {promotion.bundle_id: promotion.previous for promotion in registry.history()}
    steps, earlier, seen = 1, champion.previous, {bundle_id}
    while earlier is not None and earlier not in seen:
        found = _read_towers(registry, earlier)
        if not found:
            problem = f"the champion before it, {earlier}, is no longer in the registry"
            return RollBack(is_known=True, problem=problem)
        if found != towers:
            return RollBack(target=earlier, steps=steps, is_known=True, problem="")
        seen.add(earlier)
        steps, earlier = steps + 1, latest.get(earlier)
    problem = f"there is no champion before {bundle_id}"
    if steps > 1:
        problem = f"all champions before {bundle_id} have its model, with earlier indexes"
    return RollBack(is_known=True, problem=problem)


def _read_towers(registry: Registry, bundle_id: str) -> str:
    """The embedding version of a bundle; empty when the bundle is gone."""
    text = registry.read_file(bundle_id, MANIFEST_FILE)
    return BundleManifest.parse_json(text).embedding_version if text is not None else ""

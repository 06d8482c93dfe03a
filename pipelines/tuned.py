"""What refit tune leaves: a config that extends the one that was tuned, and the page."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.training.tuning.space import show_value
from pipelines.explain import Explained, write_lines
from pipelines.loading import LoadedSettings
from pipelines.settings import EXTENDS, RunSettings, find_config
from refit.files import read_json, write_atomically
from refit.setting_values import FLAG, SettingPath


def write_tuned_config(
    config: str, loaded: LoadedSettings[RunSettings], tuned: Path, out: Path
) -> None:
    """Write the config that was tuned with the chosen settings.

    It extends the config, and has what differs from it: what was chosen, and what --set changed.

    Args:
        config: The config that was tuned, by name or path.
        loaded: Its settings.
        tuned: The folder of the step that chose.
        out: The file; one that is there is replaced.
    """
    results = read_json(tuned / "tuning.json")
    comments = [line for line in (tuned / "tuned.yaml").read_text().splitlines() if line[:1] == "#"]
    path = find_config(config)
    base = config if path != Path(config) else str(path.resolve())
    lines = [*comments, *write_lines([Explained((EXTENDS,), base, "", True)])]
    with write_atomically(out) as staging:
        text = "\n".join([*lines, *write_lines(_find_changes(loaded, results))])
        staging.write_text(text + "\n", encoding="utf-8")


def copy_page(tuned: Path, out: Path) -> None:
    """Copy the page about the study."""
    with write_atomically(out) as staging:
        shutil.copyfile(tuned / "page.html", staging)


def _find_changes(
    loaded: LoadedSettings[RunSettings], results: Mapping[str, Any]
) -> list[Explained]:
    """What differs from the file, in the order of the settings."""
    values = loaded.settings.model_dump(mode="json", exclude={"tuning"})
    found: dict[SettingPath, Explained] = {}
    for path, place in loaded.places.items():
        names = [part for part in path if isinstance(part, str)]
        if place.where != FLAG or len(names) < len(path) or names[0] == "tuning":
            continue
        inside: Any = values
        for name in names:
            inside = inside[name]
        if not isinstance(inside, Mapping):
            found[path] = Explained(path, inside, FLAG, True)
    for name, value in results["changes"].items():
        path = tuple(name.split("."))
        before = show_value(results["before"][name])
        found[path] = Explained(path, value, f"was {before}", True)
    order = list(values)
    return sorted(found.values(), key=lambda each: (order.index(str(each.path[0])), each.path[:-1]))

"""From a YAML file and ``--set`` changes to settings that know where each value came from."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.scale import ScaledSettings
from pipelines.strict_yaml import Document, parse_document, parse_value
from refit.errors import UsageError
from refit.setting_values import EMPTY, FLAG, Place, Places, SettingPath, class_at


@dataclass(frozen=True)
class LoadedSettings[S: ScaledSettings]:
    """Settings, and where their values were read.

    Attributes:
        settings: The settings.
        source: The file.
        places: Where each value was read that the file or a flag gives.
    """

    settings: S
    source: str
    places: Places

    def origin(self, path: SettingPath) -> str:
        """Where the value of a setting comes from: ``default``, ``dial``, ``file`` or ``flag``."""
        if place := self.places.get(path):
            return "flag" if place.where == FLAG else f"file, {place.where}"
        scale = self.settings.scale
        return f"dial, {scale}" if path in self.settings.scaled_paths(scale) else "default"


def read_document(path: Path, what: str) -> Document:
    """Read a YAML file of settings.

    Args:
        path: The file.
        what: What errors call it, such as ``config``.

    Raises:
        FileNotFoundError: There is no such file.
        UsageError: It cannot be read, or it is not YAML for settings.
    """
    try:
        return parse_document(path.read_text("utf-8-sig"), path.name)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UsageError(f"{what} {str(path)!r} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path.name} is not YAML: it is not UTF-8 text (byte {error.start + 1}); "
            "save it as UTF-8"
        ) from None


def load_settings[S: ScaledSettings](
    cls: type[S], document: Document, changes: Iterable[str] = ()
) -> LoadedSettings[S]:
    """Make settings of a document, with ``name.of.setting=value`` changes on top.

    Raises:
        UsageError: A name is unknown or a value does not fit.
    """
    values, places = document.values, dict(document.places)
    for change in changes:
        _apply(cls, values, places, change)
    settings = cls.parse(values, places, document.source)
    return LoadedSettings(settings, document.source, places)


def _apply(
    cls: type[ScaledSettings], values: dict[str, Any], places: dict[SettingPath, Place], change: str
) -> None:
    name, separator, text = change.partition("=")
    path: tuple[str, ...] = tuple(name.strip().split("."))
    if not separator or not all(path):
        raise UsageError(f"{FLAG} takes name.of.setting=value, not {change!r}")
    value, read_at = parse_value(text, path, FLAG)
    inside = values
    for depth in range(1, len(path)):
        inside = _open(cls, inside, path[:depth])
    inside[path[-1]] = value
    for stale in [place for place in places if place[: len(path)] == path]:
        del places[stale]
    places.update(read_at)


def _open(cls: type[ScaledSettings], values: dict[str, Any], path: tuple[str, ...]) -> Any:
    """The values at ``path``, whose parent's are ``values``; made when there are none yet."""
    name = path[-1]
    there = values.get(name, EMPTY)
    if there is EMPTY:
        there = _default_mapping(cls, path)
    if not isinstance(there, Mapping):
        raise UsageError(f"{FLAG}: {'.'.join(path)} is a value and holds no settings")
    inside = values[name] = dict(there)
    return inside


def _default_mapping(cls: type[ScaledSettings], path: tuple[str, ...]) -> Any:
    """What one value is put into: the default of a setting that maps names to values."""
    section = class_at(cls, path[:-1])
    field = section.model_fields.get(str(path[-1])) if section else None
    if field is None or class_at(cls, path):
        return {}
    return field.default

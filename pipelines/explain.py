"""All settings as YAML or JSON, each with where its value comes from."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from pipelines.loading import LoadedSettings
from pipelines.scale import STANDARD, ScaledSettings
from pipelines.strict_yaml import is_text
from refit.setting_values import SettingPath, class_at

INDENT = "  "
WIDEST = 72
"""Longer lines do not move the comments of the others to the right."""
LONGEST_LIST = 88
"""A list that takes more characters is written one value a line."""
_MISSING = object()


@dataclass(frozen=True)
class Explained:
    """One setting.

    Attributes:
        path: Where it is.
        value: Its value, as JSON knows it.
        origin: Where the value comes from.
        changed: Whether it differs from the default, has none, or was given where the scale would
            give another value.
    """

    path: SettingPath
    value: Any
    origin: str
    changed: bool


def explain(loaded: LoadedSettings[Any]) -> list[Explained]:
    """Every setting with its value and origin, in the order of the classes."""
    cls = type(loaded.settings)
    values = loaded.settings.model_dump(mode="json")
    scale = loaded.settings.scale
    scaled = set() if scale == STANDARD else cls.scaled_paths(scale)
    found = []
    for path, value, default in _pairs(cls, values, _defaults(cls), ()):
        is_given = path in scaled and path in loaded.places
        found.append(Explained(path, value, loaded.origin(path), value != default or is_given))
    return found


def as_yaml(loaded: LoadedSettings[Any], only_changed: bool = False) -> str:
    """Settings as a YAML document, each with a comment that says where it comes from.

    Args:
        loaded: The settings.
        only_changed: Leave out those that have their default.
    """
    head = f"# {loaded.source}, scale {loaded.settings.scale}: where each value comes from"
    shown = [each for each in explain(loaded) if each.changed or not only_changed]
    return "\n".join([head, *write_lines(shown)])


def write_lines(settings: list[Explained]) -> list[str]:
    """Settings as lines of YAML, in the order given, each with its origin as a comment."""
    lines = list(_lines(settings))
    column = max((len(text) for text, note in lines if note and len(text) <= WIDEST), default=0)
    return [f"{text:<{column}}  # {note}" if note else text for text, note in lines]


def as_json(loaded: LoadedSettings[Any], only_changed: bool = False) -> dict[str, Any]:
    """``settings``, nested, and ``origins`` by dotted name."""
    settings: dict[Any, Any] = {}
    origins = {}
    for each in explain(loaded):
        if each.changed or not only_changed:
            inside = settings
            for part in each.path[:-1]:
                inside = inside.setdefault(part, {})
            inside[each.path[-1]] = each.value
            origins[".".join(map(str, each.path))] = each.origin
    return {"settings": settings, "origins": origins}


def _pairs(
    cls: type[ScaledSettings], values: Mapping[str, Any], defaults: Any, path: SettingPath
) -> Iterator[tuple[SettingPath, Any, Any]]:
    """Every setting's path, value and default."""
    for name, value in values.items():
        here = (*path, name)
        default = defaults.get(name, _MISSING) if isinstance(defaults, Mapping) else _MISSING
        section = class_at(cls, here)
        if not isinstance(value, Mapping) or not value:
            yield here, value, default
        elif section and default is _MISSING:
            yield from _pairs(cls, value, _defaults(section), here)
        elif section or class_at(cls, (*here, next(iter(value)))):
            yield from _pairs(cls, value, default, here)
        else:  # a setting that maps names to values, which a config gives as a whole
            yield from _pairs(cls, value, default if value == default else _MISSING, here)


def _defaults(cls: type[BaseModel]) -> dict[str, Any]:
    """The defaults of a class by name, nested; what has none is left out."""
    defaults = {}
    for name, field in cls.model_fields.items():
        if not field.is_required():
            defaults[name] = to_jsonable_python(field.get_default(call_default_factory=True))
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            defaults[name] = _defaults(field.annotation)
    return defaults


def _lines(settings: list[Explained]) -> Iterator[tuple[str, str]]:
    """Lines of YAML with their comments."""
    opened: SettingPath = ()
    for each in settings:
        *sections, name = each.path
        shared = 0
        while shared < min(len(sections), len(opened)) and sections[shared] == opened[shared]:
            shared += 1
        for depth in range(shared, len(sections)):
            yield f"{INDENT * depth}{_scalar(sections[depth])}:", ""
        opened = tuple(sections)
        indent = INDENT * len(sections)
        flow = _flow(each.value)
        block = isinstance(each.value, list) and (
            len(flow) > LONGEST_LIST or any(isinstance(item, dict) for item in each.value)
        )
        yield f"{indent}{_scalar(name)}:{'' if block else f' {flow}'}", each.origin
        if block:
            for item in each.value:
                yield f"{indent}{INDENT}- {_flow(item)}", ""


def _flow(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_flow, value))}]"
    if isinstance(value, dict):
        inside = (f"{_scalar(name)}: {_flow(each)}" for name, each in value.items())
        return f"{{{', '.join(inside)}}}"
    return _scalar(value)


def _scalar(value: Any) -> str:
    """One value, so that readers of YAML 1.1 and 1.2 read the same."""
    if isinstance(value, str):
        return value if is_text(value) else json.dumps(value, ensure_ascii=False)
    if isinstance(value, float):
        return re.sub(r"^(-?\d+)e", r"\1.0e", repr(value))
    return json.dumps(value)

"""Typed, frozen settings: misspelt names and misread values are errors that say what to write."""

import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from refit.errors import UsageError
from refit.setting_values import Fault, Places, SettingPath, check_values, class_at


class Settings(BaseModel):
    """Base of every settings class: frozen, and closed to unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @classmethod
    def parse_json(cls, text: str) -> Self:
        """Read settings from JSON, as a pipeline passes them to its steps.

        Raises:
            UsageError: The text is not JSON, a name is unknown or repeated, or a value does not
                fit.
        """
        try:
            values = json.loads(text, object_pairs_hook=_without_repeats)
        except ValueError as error:
            raise UsageError(f"{cls.__name__} must be JSON: {error}") from None
        if not isinstance(values, dict):
            raise UsageError(f"{cls.__name__} must be a JSON object, not {text[:60]!r}")
        return cls.parse(values)

    def to_json(self) -> str:
        """Settings as the JSON of one parameter of a pipeline; the same ones are the same text."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True)

    @classmethod
    def parse(
        cls, values: Mapping[str, Any], places: Places | None = None, source: str = ""
    ) -> Self:
        """Read settings from plain values, as they come from YAML or JSON.

        No value is converted from another kind: neither ``true`` nor ``"1"`` is a number, and no
        number is infinite.

        Args:
            values: Values by name, nested.
            places: Where each was read, for the error.
            source: Where all were read, such as a file's name, for the error.

        Raises:
            UsageError: A name is unknown or a value does not fit; every fault is listed.
        """
        places = places or {}
        checked, faults = check_values(cls, values, places)
        try:
            settings = cls.model_validate(checked)
        except ValidationError as error:
            misread = [fault.path for fault in faults]
            for each in error.errors():
                fault = _describe(cls, dict(each))
                if not any(_overlap(fault.path, path) for path in misread):
                    faults.append(fault)
        if not faults:
            return settings
        raise UsageError(describe_faults(faults, source or cls.__name__, places))


class FiniteSettings(Settings):
    """Settings with thresholds: none can be infinite or NaN, which would switch a check off."""

    model_config = ConfigDict(allow_inf_nan=False)


def describe_faults(faults: Sequence[Fault], source: str, places: Places) -> str:
    """The text of an error: one line for each fault."""
    lines = [fault.describe(places) for fault in faults]
    if len(lines) == 1:
        return f"{source}: {lines[0]}"
    return "\n  ".join([f"{source} has {len(lines)} faults:", *lines])


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{repeated!r} is given twice in one object")
    return values


def _overlap(one: SettingPath, other: SettingPath) -> bool:
    """Whether one path leads to, or through, the other."""
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]


def _describe(cls: type[BaseModel], fault: dict[str, Any]) -> Fault:
    path: SettingPath = fault["loc"]
    if fault["type"] == "extra_forbidden":
        return Fault(path, _unknown_name(cls, path))
    if fault["type"] == "missing":
        return Fault(path, "is missing; it has no default")
    message = fault["msg"].removeprefix("Value error, ").replace("Input should", "must", 1)
    # Settings that contradict each other belong to a whole section, which is too long to show.
    read = "" if isinstance(fault.get("input"), dict | BaseModel) else f", read {fault['input']!r}"
    return Fault(path, message + read)


def _unknown_name(cls: type[BaseModel], path: SettingPath) -> str:
    section = class_at(cls, path[:-1])
    known = sorted(section.model_fields) if section else []
    close = get_close_matches(str(path[-1]), known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known names: {', '.join(known)}"
    return f"unknown name; {hint}"

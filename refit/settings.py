"""Typed, frozen settings: a typo in a config is an error that names the right spelling."""

import json
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from refit.errors import UsageError


class Settings(BaseModel):
    """Base of every settings class: frozen, and closed to unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @classmethod
    def parse_json(cls, text: str) -> Self:
        """Read settings from JSON, as a pipeline hands them to its steps.

        Raises:
            UsageError: It is not JSON, a name is unknown or a value is off.
        """
        try:
            return cls.parse(json.loads(text))
        except ValueError as error:
            raise UsageError(f"{cls.__name__} must be JSON: {error}") from None

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Read settings from plain values, as they come from YAML.

        Raises:
            UsageError: A name is unknown or a value is off; every fault is listed.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            faults = "\n".join(f"  {_describe(cls, dict(fault))}" for fault in error.errors())
            raise UsageError(f"{cls.__name__} cannot be read:\n{faults}") from None


def _describe(cls: type[BaseModel], fault: dict[str, Any]) -> str:
    path = ".".join(str(part) for part in fault["loc"]) or "together"
    if fault["type"] != "extra_forbidden":
        said = fault["msg"].removeprefix("Value error, ")
        # Settings that do not go together are told for the whole, which is too long to repeat.
        whole = isinstance(fault.get("input"), dict)
        return f"{path}: {said}" + ("" if whole else f" (got {fault.get('input')!r})")
    known = sorted(_fields_at(cls, fault["loc"][:-1]))
    close = get_close_matches(str(fault["loc"][-1]), known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known names: {', '.join(known)}"
    return f"{path}: unknown name; {hint}"


def _fields_at(cls: type[BaseModel], path: tuple[Any, ...]) -> list[str]:
    for part in path:
        if isinstance(part, int):  # the place in a list
            continue
        field = cls.model_fields.get(str(part))
        kinds = [field.annotation, *getattr(field.annotation, "__args__", ())] if field else []
        nested = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
        if not nested:
            return []
        cls = nested[0]
    return list(cls.model_fields)

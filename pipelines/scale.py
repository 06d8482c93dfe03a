"""The dial: one setting from which every size, limit and schedule follows, unless it is given."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import model_validator

from pipelines.strict_yaml import parse_document
from refit.setting_values import SettingPath
from refit.settings import Settings

Scale = Literal["small", "standard", "large"]
STANDARD: Scale = "standard"
SCALES: tuple[Scale, ...] = ("small", "standard", "large")
TABLE = Path(__file__).parent / "scales.yaml"


class ScaledSetting(Settings):
    """One row of the table in ``scales.yaml``.

    Attributes:
        small: The value for a laptop or a small shop.
        standard: The value for a shop: the default of the setting's own class.
        large: The value for a marketplace of tens of millions.
        why: What the values rest on.
    """

    small: Any
    standard: Any
    large: Any
    why: str

    def value(self, scale: Scale) -> Any:
        """The value for a scale."""
        return getattr(self, scale)


class ScaledSettings(Settings):
    """Settings with a dial.

    Attributes:
        scale: The size of the marketplace. Sizes, limits and schedules that are not given follow
            from it; ``scales.yaml`` lists them with what each value rests on.
    """

    table: ClassVar[str]
    """The part of ``scales.yaml`` that belongs to these settings."""

    scale: Scale = STANDARD

    @model_validator(mode="before")
    @classmethod
    def _apply_scale(cls, values: Any) -> Any:
        """Put the dial's values under those that are given."""
        scale = values.get("scale", STANDARD) if isinstance(values, Mapping) else STANDARD
        if scale == STANDARD or scale not in SCALES:  # its own fault is found later
            return values
        given = dict(values)
        for name, row in read_scales()[cls.table].items():
            section, *_ = path = name.split(".")
            if section in values or not cls.model_fields[section].is_required():
                given = merge(_nested(path, row.value(scale)), given)
        return given

    @classmethod
    def scaled_paths(cls, scale: Scale) -> set[SettingPath]:
        """The settings that a scale gives; of a mapping those inside it."""
        rows = read_scales()[cls.table].items()
        return {
            path for name, row in rows for path in _leaves(tuple(name.split(".")), row.value(scale))
        }


@cache
def read_scales() -> dict[str, dict[str, ScaledSetting]]:
    """The table: the rows for a run and for a cluster, by the setting's name."""
    document = parse_document(TABLE.read_text("utf-8"), TABLE.name)
    return {
        table: {
            name: ScaledSetting.parse(row, source=f"{TABLE.name}, {name}")
            for name, row in rows.items()
        }
        for table, rows in document.values.items()
    }


def merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values; those of ``over`` take the place of those of ``under``."""
    merged = dict(under)
    for name, value in over.items():
        below = merged.get(name)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            merged[name] = merge(below, value)
        else:
            merged[name] = value
    return merged


def _nested(path: Sequence[str], value: Any) -> dict[str, Any]:
    for name in reversed(path):
        value = {name: value}
    return dict(value)


def _leaves(path: SettingPath, value: Any) -> Iterator[SettingPath]:
    if not isinstance(value, Mapping):
        yield path
        return
    for name, inside in value.items():
        yield from _leaves((*path, name), inside)

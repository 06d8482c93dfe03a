"""Check plain values, as read from YAML or JSON, against the types of settings.

Pydantic converts what it can: ``true`` to 1, ``"5"`` to 5, ``"inf"`` to an infinity, 20240101 to a
day in 1970. In a config, such a conversion hides a mistake. Here a value must have the kind of
its setting, and a fault states what was read and what to write instead.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel

SettingPath = tuple[str | int, ...]
"""Path of a setting: names of sections and settings, positions in lists."""

FLAG = "--set"
"""Where a value was read that the command line gives."""
LARGEST = 2**63
"""The smallest whole number that does not fit into a signed 64-bit integer."""
SHOWN_CHARACTERS = 60

_ISO_TIME = re.compile(
    r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?( ?(Z|[+-]\d\d:?\d\d))?)?", re.ASCII
)
_NO_SPACE = re.compile(r"\w+:\S")
_YES, _NO = ("true", "yes", "on", "y", "1", "1.0"), ("false", "no", "off", "n", "0", "0.0")
_NULLS = ("none", "nil", "null", "undefined")


class Empty(Enum):
    """The type of ``EMPTY``."""

    EMPTY = "EMPTY"


EMPTY: Final = Empty.EMPTY
"""The value of a name with nothing after its colon, as opposed to an explicit ``null``."""


@dataclass(frozen=True)
class Place:
    """Where a value was read.

    Attributes:
        where: Such as ``line 4`` or ``--set``.
        written: The value as written there; empty for lists and mappings.
        quoted: Whether it is in quotes.
    """

    where: str
    written: str = ""
    quoted: bool = False


Places = Mapping[SettingPath, Place]


@dataclass(frozen=True)
class Fault:
    """What is wrong with one setting."""

    path: SettingPath
    message: str

    def describe(self, places: Places) -> str:
        """The fault in one line: the setting, the message, and where its value was read."""
        name = ".".join(str(part) for part in self.path)
        where = self._locate(places)
        return (f"{name}: " if name else "") + self.message + (f" ({where})" if where else "")

    def _locate(self, places: Places) -> str:
        """Where the value was read: by the command line, if anything inside it was."""
        inside = (place for path, place in places.items() if path[: len(self.path)] == self.path)
        if any(place.where == FLAG for place in inside):
            return FLAG
        above = (self.path[:n] for n in range(len(self.path), 0, -1))
        return next((places[path].where for path in above if path in places), "")


def check_values(
    cls: type[BaseModel], values: Mapping[str, Any], places: Places
) -> tuple[dict[str, Any], list[Fault]]:
    """Check plain values against the types of a settings class.

    Only kinds are checked: bounds and unknown names are left to the class. A section with nothing
    in it is a section without settings.

    Args:
        cls: The settings class.
        values: Its values by name, nested.
        places: Where they were read, as far as known.

    Returns:
        The values to validate, and the faults.
    """
    check = _Check(places)
    return check.section(cls, values, ()), check.faults


def class_at(cls: type[BaseModel], path: SettingPath) -> type[BaseModel] | None:
    """The settings class of the section at ``path`` below ``cls``; None where there is none."""
    kinds: Iterable[Any] = (cls,)
    for part in path:
        inside: list[Any] = []
        for kind in kinds:
            if _is_section(kind):
                if part in kind.model_fields:
                    inside += branches(kind.model_fields[part].annotation)
            elif get_origin(kind) is not None:
                inside += [b for argument in get_args(kind) for b in branches(argument)]
        kinds = inside
    return next((kind for kind in kinds if _is_section(kind)), None)


def branches(kind: Any) -> tuple[Any, ...]:
    """The member types of a union, or the type itself; without annotations."""
    origin = get_origin(kind)
    if origin is Annotated:
        return branches(get_args(kind)[0])
    if origin in (Union, UnionType):
        return tuple(branch for member in get_args(kind) for branch in branches(member))
    return (NoneType,) if kind is None else (kind,)


def is_known(kind: Any) -> bool:
    """Whether values of this type are checked here, in full depth."""
    for branch in branches(kind):
        if _is_section(branch):
            known = all(is_known(each.annotation) for each in branch.model_fields.values())
        elif _is_list(branch) or _is_mapping(branch):
            known = all(is_known(each) for each in get_args(branch) if each is not Ellipsis)
        else:
            known = _is_literal(branch) or branch in _EXPECTED or _is_enum(branch)
        if not known and branch not in (Any, NoneType):
            return False
    return True


@dataclass
class _Check:
    """Collects the faults of one parse."""

    places: Places
    faults: list[Fault] = field(default_factory=list)

    def section(
        self, cls: type[BaseModel], values: Mapping[str, Any], path: SettingPath
    ) -> dict[str, Any]:
        checked = dict(values)
        for name, value in values.items():
            if name in cls.model_fields:
                of = cls.model_fields[name]
                checked[name] = self.value(of.annotation, value, (*path, name), of.default)
        return checked

    def value(self, kind: Any, value: Any, path: SettingPath, example: Any = None) -> Any:
        kinds = branches(kind)
        if not _is_plain(value):
            return value
        if Any in kinds and value is not EMPTY:
            return self._anything(value, path)
        fitting = next((branch for branch in kinds if _fits(branch, value)), None)
        if fitting is None:
            self._refuse(kinds, value, path, example)
            return value
        if _is_section(fitting):
            return self.section(fitting, {} if value is EMPTY else value, path)
        if _is_mapping(fitting):
            return self._mapping(fitting, value, path)
        if _is_list(fitting):
            return self._list(fitting, value, path)
        if message := _content_fault(fitting, value, NoneType in kinds, example):
            self.faults.append(Fault(path, message))
        return value

    def _anything(self, value: Any, path: SettingPath) -> Any:
        """A value of any type, in which still no name may have nothing after its colon."""
        if isinstance(value, Mapping):
            return self._mapping(dict, value, path)
        return self._list(list, value, path) if isinstance(value, list | tuple) else value

    def _mapping(self, kind: Any, value: Mapping[Any, Any], path: SettingPath) -> dict[Any, Any]:
        of_names, of_values = get_args(kind) or (Any, Any)
        for name in value:
            if of_names is str and not isinstance(name, str):
                message = f'the name {_shown(name)} is not text; write "{name}" in quotes'
                self.faults.append(Fault(path, message))
        return {
            name: self.value(of_values, each, (*path, str(name))) for name, each in value.items()
        }

    def _list(self, kind: Any, value: Sequence[Any], path: SettingPath) -> list[Any]:
        arguments = get_args(kind) or (Any, Ellipsis)
        fixed = get_origin(kind) is tuple and arguments[-1] is not Ellipsis
        if fixed and len(arguments) != len(value):
            return list(value)  # pydantic's error says how many there must be
        kinds = arguments if fixed else [arguments[0]] * len(value)
        return [
            self.value(of_item, each, (*path, position))
            for position, (of_item, each) in enumerate(zip(kinds, value, strict=True))
        ]

    def _refuse(self, kinds: tuple[Any, ...], value: Any, path: SettingPath, example: Any) -> None:
        place = self.places.get(path, Place(""))
        wanted = [kind for kind in kinds if kind is not NoneType]
        expected = " or ".join(dict.fromkeys(_expected(kind) for kind in wanted))
        advice = _advice(wanted[0], value, place, NoneType in kinds, example)
        read = _described(value, place)
        self.faults.append(Fault(path, f"expected {expected}, read {read}; {advice}"))


_EXPECTED: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
    datetime: "a date or a time",
    date: "a date",
    Any: "a value",
}


def _expected(kind: Any) -> str:
    if _is_section(kind):
        return "settings by name"
    if _is_mapping(kind):
        return "values by name"
    if _is_list(kind):
        return "a list"
    if choices := _choices(kind):
        *most, last = map(repr, choices)
        return f"{', '.join(most)} or {last}" if most else last
    return _EXPECTED.get(kind, "a value")


def _choices(kind: Any) -> list[Any]:
    """The values that a literal or an enumeration takes; none for other types."""
    if _is_literal(kind):
        return list(get_args(kind))
    return [member.value for member in kind] if _is_enum(kind) else []


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _is_mapping(kind: Any) -> bool:
    origin = get_origin(kind) or kind
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _is_list(kind: Any) -> bool:
    origin = get_origin(kind) or kind
    return isinstance(origin, type) and issubclass(origin, tuple | list | set | frozenset)


def _is_literal(kind: Any) -> bool:
    return get_origin(kind) is Literal


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Enum)


def _is_plain(value: Any) -> bool:
    """Whether YAML or JSON can give it; anything else was built by code."""
    if isinstance(value, Enum) and value is not EMPTY:
        return False
    return value is None or isinstance(
        value, bool | int | float | str | Mapping | list | tuple | Empty
    )


def _fits(kind: Any, value: Any) -> bool:
    """Whether a plain value is of the kind that a type takes, whatever it holds."""
    if _is_section(kind):
        return isinstance(value, Mapping) or value is EMPTY
    if value is EMPTY:
        return False
    if _is_mapping(kind):
        return isinstance(value, Mapping)
    if _is_list(kind):
        return isinstance(value, list | tuple)
    if _is_literal(kind):
        return any(type(value) is type(each) and value == each for each in get_args(kind))
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind in (str, Path, datetime, date) or _is_enum(kind):
        return isinstance(value, str)
    if kind in (bool, NoneType):
        return isinstance(value, kind)
    return True


def _content_fault(kind: Any, value: Any, may_be_null: bool, example: Any) -> str:
    """What is wrong with a value of the right kind; empty when nothing is."""
    if kind is float and not math.isfinite(value):
        null = ", or null for none" if may_be_null else ""
        return f"read {value}; write a finite number such as {_number(float, example)}{null}"
    if kind in (int, float) and abs(value) >= LARGEST and isinstance(value, int):
        return f"read {value}, which is too large; write a number below 2^63"
    if kind in (date, datetime) and not _ISO_TIME.fullmatch(value):
        return f"expected {_expected(kind)}, read {_shown(value)}; {_dates()}"
    return ""


def _described(value: Any, place: Place) -> str:
    if value is EMPTY:
        return "nothing"
    if value is None:
        return "null"
    kinds = {bool: "", int: "the number ", float: "the number ", str: "the text "}
    noun = next((kinds[kind] for kind in kinds if type(value) is kind), None)
    if noun is None:
        return "a mapping" if isinstance(value, Mapping) else "a list"
    shown = place.written if place.written and not isinstance(value, str) else _shown(value)
    return noun + shown


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 3]}..."


def _advice(kind: Any, value: Any, place: Place, may_be_null: bool, example: Any) -> str:
    """What to write instead of ``value``."""
    written = place.written or (value if isinstance(value, str) else _shown(value))
    if may_be_null and isinstance(value, str) and value.lower() in _NULLS:
        return "write null for none"
    if value is EMPTY or value is None:
        return _advice_for_nothing(kind, value, may_be_null, example)
    if _is_section(kind) or _is_mapping(kind):
        if isinstance(value, str) and _NO_SPACE.match(value):
            return "put a space after the colon"
        return "write its values by name, indented below it"
    if _is_list(kind):
        return "write the values in a list: [...]" if isinstance(value, Mapping) else (
            f"write [{written}]"
        )  # fmt: skip
    if _choices(kind):
        return _advice_for_choice(kind, value)
    if kind is bool:
        word = str(written).lower()
        return "write true" if word in _YES else "write false" if word in _NO else (
            "write true or false"
        )  # fmt: skip
    if kind in (int, float):
        return _advice_for_number(kind, value, place, example)
    if kind in (date, datetime):
        return _dates()
    if isinstance(value, Mapping | list | tuple):
        return "put the text in quotes"
    return f'write "{written}" in quotes'


def _dates() -> str:
    return "write it as 2024-05-01 or 2024-05-01T12:30:00+02:00"


def _advice_for_nothing(kind: Any, value: Any, may_be_null: bool, example: Any) -> str:
    if _is_section(kind):
        return "leave the line out"
    if may_be_null and value is EMPTY:
        return "write null for none, or a value"
    for none, has_it in (("[]", _is_list(kind)), ("{}", _is_mapping(kind)), ('""', kind is str)):
        if has_it:
            return f"write {none} for none, or leave the line out"
    if kind in (int, float):
        return f"write a number such as {_number(kind, example)}, or leave the line out"
    return "write a value, or leave the line out"


def _advice_for_choice(kind: Any, value: Any) -> str:
    choices = [str(each) for each in _choices(kind)]
    if str(value) in choices:
        return f'write "{value}" in quotes'
    close = get_close_matches(str(value).lower(), [each.lower() for each in choices], n=1)
    found = [each for each in choices if close and each.lower() == close[0]]
    return f"did you mean {found[0]}?" if found else "write one of these"


def _advice_for_number(kind: Any, value: Any, place: Place, example: Any) -> str:
    if isinstance(value, float):
        if value.is_integer() and abs(value) < LARGEST:
            return f"write {int(value)}"
        near = max(1, round(value)) if math.isfinite(value) else _number(int, example)
        return f"write a whole number such as {near}"
    if isinstance(value, str) and (number := _read_number(value)):
        return f"write {number}" + (" without quotes" if place.quoted else "")
    return f"write a number such as {_number(kind, example)}"


def _read_number(text: str) -> str:
    """The number that a text was probably meant to be; "" if it is not a number."""
    text = text.strip().removesuffix("%").strip()
    if re.fullmatch(r"[-+]?\d{1,3}(,\d{3})+(\.\d+)?", text, re.ASCII):
        text = text.replace(",", "")
    text = re.sub(r"(?<=\d)[_' ](?=\d)", "", text).replace(",", ".")
    try:
        number = float(text)
    except ValueError:
        return ""
    if not math.isfinite(number):
        return ""
    return str(int(number)) if number.is_integer() and abs(number) < LARGEST else str(number)


def _number(kind: Any, example: Any) -> str:
    """An example of a number: the default, if it is a number."""
    if isinstance(example, int | float) and not isinstance(example, bool):
        return str(example)
    return "10" if kind is int else "0.5"

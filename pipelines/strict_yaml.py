"""YAML for settings: a value that can be read in two ways is an error.

Plain values are read by YAML 1.2's core schema. Values that YAML 1.1 reads differently (``yes``,
``010``, ``1_000``, ``1:30``) and values that are rarely meant (a repeated name, an infinite number,
a text in brackets that continues on the next line) are errors, with their line and what to write.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from refit.errors import UsageError
from refit.setting_values import EMPTY, Fault, Place, SettingPath
from refit.settings import describe_faults

LONGEST_NUMBER = 40
"""Whole numbers of more characters are refused unread."""

_NULL = re.compile(r"~|null|Null|NULL")
_TRUE = re.compile(r"true|True|TRUE")
_FALSE = re.compile(r"false|False|FALSE")
_INT = re.compile(r"[-+]?(0|[1-9]\d*)", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.\d+|(0|[1-9]\d*)(\.\d*)?)([eE][-+]?\d+)?", re.ASCII)


@dataclass(frozen=True)
class _Doubt:
    """A kind of plain value that is refused.

    Attributes:
        form: What such values look like.
        advise: What to write instead, from the value as written.
    """

    form: re.Pattern[str]
    advise: Callable[[str], str]

    @classmethod
    def of(cls, form: str, advise: Callable[[str], str], flags: int = re.ASCII) -> "_Doubt":
        return cls(re.compile(form, flags), advise)


def _quoted(text: str) -> str:
    return f'"{text}" in quotes for text'


def _decimal(text: str) -> str:
    sign = "-" if text.startswith("-") else ""
    whole, point, rest = text.lstrip("+-").partition(".")
    return sign + (whole.lstrip("0") or "0") + point + rest


_DOUBTS = (
    _Doubt.of(
        r"yes|no|on|off|y|n",
        lambda text: (
            f"write {'true' if text.lower() in ('yes', 'on', 'y') else 'false'}, or {_quoted(text)}"
        ),
        re.IGNORECASE,
    ),
    _Doubt.of(
        r"none|nil|undefined",
        lambda text: f"write null for none, or {_quoted(text)}",
        re.IGNORECASE,
    ),
    _Doubt.of(
        r"[-+]?\.?(inf|infinity|nan)",
        lambda text: f"write a finite number, or {_quoted(text)}",
        re.IGNORECASE,
    ),
    _Doubt.of(
        r"[-+]?0[xob][\da-fA-F_]+",
        lambda text: f"write the number in decimal, or {_quoted(text)}",
        re.IGNORECASE | re.ASCII,
    ),
    _Doubt.of(r"[-+]?0[\d]+(\.\d*)?", lambda text: f"write {_decimal(text)}, or {_quoted(text)}"),
    _Doubt.of(
        r"[-+]?\d[\d_]*_[\d_]*(\.[\d_]*)?",
        lambda text: f"write {text.replace('_', '')}, or {_quoted(text)}",
    ),
    _Doubt.of(
        r"[-+]?\d+(:\d{1,2})+(\.\d*)?",
        lambda text: f"write the number that you mean, or {_quoted(text)}",
    ),
    _Doubt.of(
        r"[“”„‟‘’‚«»].*|.*[“”‟«»]",
        lambda text: "these quotes are not YAML's; write \" or '",
        re.DOTALL,
    ),
    _Doubt.of(
        r".*[\u00a0\u200b-\u200f\u2028\u2029\u202f\u2060\ufeff].*",
        lambda text: "it contains an invisible character; type it again, or put it in quotes",
        re.DOTALL,
    ),
)


@dataclass(frozen=True)
class Document:
    """A YAML document that holds settings.

    Attributes:
        source: The file, for errors.
        values: The settings by name, nested. A name with nothing after its colon has ``EMPTY``.
        places: Where each value was read.
    """

    source: str
    values: dict[str, Any]
    places: dict[SettingPath, Place]


def parse_document(text: str, source: str) -> Document:
    """Parse a YAML document that holds settings by name.

    Args:
        text: The document.
        source: Where it is from, for errors.

    Raises:
        UsageError: It is not YAML, it holds no mapping, or something in it can be read in two
            ways; every such fault is listed with its line.
    """
    node = _compose(text, lambda line, column, what: f"{source}, {line}, {column}: {what}")
    if not isinstance(node, yaml.MappingNode):
        raise UsageError(f"{source} must hold settings by name")
    reader = _Reader(lambda mark: f"line {mark.line + 1}")
    values = reader.read(node, ())
    if reader.faults:
        raise UsageError(describe_faults(reader.faults, source, reader.places))
    return Document(source, values, reader.places)


def parse_value(text: str, path: SettingPath, where: str) -> tuple[Any, dict[SettingPath, Place]]:
    """Parse one value from the command line.

    Args:
        text: The value, in YAML.
        path: The setting that it is for.
        where: The place that errors name, such as ``--set``.

    Returns:
        The value, and the places of all that is in it.

    Raises:
        UsageError: It is not YAML, is empty, can be read in two ways, or is not read to its end.
    """
    name = ".".join(map(str, path))
    node = _compose(text, lambda line, column, what: f"{where} {name}: {text!r}: {what}")
    if node is None or (isinstance(node, yaml.ScalarNode) and not node.style and not node.value):
        raise UsageError(
            f"{where} {name}=: there is no value after the equals sign; write a value, "
            f"null for none, or {name}='\"\"' for empty text"
        )
    block = isinstance(node, yaml.ScalarNode) and node.style in ("|", ">")
    if left := text.strip() if block else text[node.end_mark.index :].strip():
        raise UsageError(
            f"{where} {name}: {left!r} is not read as a part of the value; put it in quotes: "
            f"{where} '{name}=\"{text}\"'"
        )
    reader = _Reader(lambda mark: where)
    value = reader.read(node, path)
    if reader.faults:
        raise UsageError(describe_faults(reader.faults, where, {}))
    return value, reader.places


class _Loader(yaml.SafeLoader):
    """Composes nodes without tags; ``_Reader`` resolves plain values."""

    yaml_implicit_resolvers: dict[str, Any] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        if getattr(event, "tag", None) is not None:
            raise yaml.constructor.ConstructorError(
                None, None, f"the tag {event.tag} is not read", event.start_mark
            )
        return super().compose_node(parent, index)


def _compose(text: str, describe: Callable[[str, str, str], str]) -> yaml.Node | None:
    try:
        return _Loader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        what = _explained(f"{error.context or ''} {error.problem or ''}".strip())
    except yaml.reader.ReaderError as error:
        before = text[: error.position].split("\n")
        line, column = len(before), len(before[-1]) + 1
        what = f"is not YAML: the character {text[error.position]!a} is not allowed"
    except RecursionError:
        line, column, what = 1, 1, "is not YAML for settings: it is nested too deeply"
    raise UsageError(describe(f"line {line}", f"column {column}", what))


_EXPLANATIONS = (
    (r"character '\\t'", "a tab; YAML takes spaces for indentation"),
    (r"mapping values are not allowed", "a colon is not allowed here; check the indentation, and "
     "put text that contains a colon in quotes"),
    (r"cannot start any token", "text cannot start with this character; put it in "
     "quotes"),
    (r"alias", "text that starts with * refers to an anchor; put it in quotes"),
    (r"expected a single document|but found another document",
     "a second document starts; keep one in a file"),
    (r"unexpected end of stream", "a quote is not closed"),
    (r"expected ',' or '[\]}]'", "a comma or a closing bracket is missing"),
    (r"could not find expected ':'", "a line without a colon; a setting is written name: value"),
    (r"expected <block end>", "the indentation does not fit the lines before"),
    (r"tag", "tags are not read; write the value without one"),
)  # fmt: skip


def _explained(problem: str) -> str:
    for form, explanation in _EXPLANATIONS:
        if re.search(form, problem):
            return f"is not YAML for settings: {explanation}"
    return f"is not YAML: {problem}"


@dataclass
class _Reader:
    """Reads nodes as plain values; collects their places and faults."""

    locate: Callable[[yaml.Mark], str]
    places: dict[SettingPath, Place] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    _open: list[yaml.CollectionNode] = field(default_factory=list)

    def read(self, node: yaml.Node, path: SettingPath) -> Any:
        """The value of a node; its faults go to ``faults``."""
        where = self.locate(node.start_mark)
        if isinstance(node, yaml.ScalarNode):
            self.places[path] = Place(where, node.value, quoted=bool(node.style))
            return self._scalar(node, path)
        self.places[path] = Place(where)
        if not isinstance(node, yaml.CollectionNode) or any(node is each for each in self._open):
            self._refuse(path, "contains itself through its own anchor")
            return None
        self._open.append(node)
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            return [self.read(item, (*path, i)) for i, item in enumerate(node.value)]
        finally:
            self._open.pop()

    def _scalar(self, node: yaml.ScalarNode, path: SettingPath) -> Any:
        if node.style:
            return node.value
        in_brackets = bool(self._open and self._open[-1].flow_style)
        if in_brackets and node.start_mark.line != node.end_mark.line:
            self._refuse(
                path,
                f"{node.value!r} continues on the next line; put it in quotes, or write "
                "the comma that is missing",
            )
        return self._plain(node.value, path)

    def _plain(self, text: str, path: SettingPath) -> Any:
        for doubt in _DOUBTS:
            if doubt.form.fullmatch(text):
                shown = text if text.isprintable() else ascii(text)
                self._refuse(path, f"{shown} can be read in two ways; {doubt.advise(text)}")
                return text
        too_long = _INT.fullmatch(text) is not None and len(text) > LONGEST_NUMBER
        value = text if too_long else resolve_plain(text)
        if too_long or (isinstance(value, float) and math.isinf(value)):
            self._refuse(path, f"{text[:LONGEST_NUMBER]} is too large; write a number below 2^63")
        return value

    def _mapping(self, node: yaml.MappingNode, path: SettingPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        lines: dict[str, str] = {}
        for key, inside in node.value:
            name = self._name(key, path)
            place = self.locate(key.start_mark)
            if name in lines:
                first = lines[name]
                both = f", the first time on {first}" if first != place else ""
                self.places[*path, name] = Place(place)
                self._refuse((*path, name), f"is given twice{both}; keep one")
                continue
            lines[name] = place
            if name == "<<" and not key.style:
                merged = self._merged(inside, path)
                values = merged | values
            else:
                values[name] = self.read(inside, (*path, name))
                self.places[*path, name] = replace(self.places[*path, name], where=place)
        return values

    def _name(self, node: yaml.Node, path: SettingPath) -> str:
        if not isinstance(node, yaml.ScalarNode):
            self._refuse(path, "has a name that is a list or a mapping; names are text")
            return ""
        name = str(node.value)
        if not node.style and not _reads_as_itself(name):
            self.places[*path, name] = Place(self.locate(node.start_mark))
            self._refuse((*path, name), f'this name is not read as text; write "{name}" in quotes')
        return name

    def _merged(self, node: yaml.Node, path: SettingPath) -> dict[str, Any]:
        """The values that ``<<`` brings in; earlier ones of a list win."""
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[str, Any] = {}
        for each in nodes:
            if not isinstance(each, yaml.MappingNode):
                self._refuse(path, "<< takes a mapping; write <<: *anchor")
                continue
            merged = self.read(each, path) | merged
        return merged

    def _refuse(self, path: SettingPath, message: str) -> None:
        self.faults.append(Fault(path, message))


def resolve_plain(text: str) -> Any:
    """The value of a text without quotes, by YAML 1.2's core schema."""
    if not text:
        return EMPTY
    if _NULL.fullmatch(text):
        return None
    if _TRUE.fullmatch(text) or _FALSE.fullmatch(text):
        return text.lower() == "true"
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def is_text(text: str) -> bool:
    """Whether a text needs no quotes to be read as itself, wherever it stands."""
    plain = re.fullmatch(r"[A-Za-z_./][\w./@+-]*", text, re.ASCII) is not None
    return plain and _reads_as_itself(text)


def _reads_as_itself(text: str) -> bool:
    doubtful = any(doubt.form.fullmatch(text) for doubt in _DOUBTS)
    return not doubtful and isinstance(resolve_plain(text), str)

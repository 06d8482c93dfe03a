"""Reference pages of settings: every class, name, type, default and description, from the code."""

import inspect
import re
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

WORDS = {
    str: "text",
    bool: "true or false",
    int: "integer",
    float: "number",
    type(None): "null",
    Any: "anything",
}
BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
LENGTHS = {"min_length": "at least", "max_length": "at most"}

_ATTRIBUTE = re.compile(r"^    (?P<names>\w+(?:, \w+)*): (?P<text>.*(?:\n(?: {8,}.*|))*)", re.M)


@dataclass(frozen=True)
class Section:
    """The settings of one class, under the path that they have in a file.

    Attributes:
        path: Such as ``features.spec``; ``[]`` marks each entry of a list. "" is the file itself.
        model: The class.
    """

    path: str
    model: type[BaseModel]

    def child(self, name: str) -> str:
        """The full name of one of the settings."""
        return f"{self.path}.{name}" if self.path else name


def write_settings(model: type[BaseModel]) -> str:
    """Every setting of a class and of the classes inside it, section by section."""
    parts = []
    for section in find_sections(model):
        if section.path:
            anchor = anchor_of(section.path)
            level = "#" * (2 + section.path.count("."))
            parts.append(f"{level} `{section.path}` {{ #{anchor} }}")
            parts.append(to_markdown(summary_of(section.model)))
        fields = section.model.model_fields.items()
        parts += [_entry(section, name, field) for name, field in fields]
    return "\n\n".join(parts)


def find_sections(model: type[BaseModel], path: str = "") -> Iterator[Section]:
    """The class and, depth first, every settings class inside it."""
    section = Section(path, model)
    yield section
    for name, field in model.model_fields.items():
        if inner := _settings_in(field.annotation):
            yield from find_sections(inner.model, section.child(name) + inner.suffix)


def describe_attributes(model: type[BaseModel]) -> dict[str, str]:
    """Descriptions by name, from the ``Attributes`` of the class's docstring."""
    _, _, text = (inspect.getdoc(model) or "").partition("\nAttributes:\n")
    described = {}
    for match in _ATTRIBUTE.finditer(text):
        for name in match["names"].split(", "):
            described[name] = " ".join(match["text"].split())
    return described


def summary_of(model: type[Any]) -> str:
    """A class's docstring without the sections that describe its attributes."""
    return re.split(r"\n(?:Attributes|Raises):\n", inspect.getdoc(model) or "")[0].strip()


def describe_type(annotation: Any) -> str:
    """A type, described for users who write YAML."""
    if annotation in WORDS:
        return WORDS[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(describe_type(part) for part in arguments)
    if origin in (tuple, list):
        return f"list of {describe_type(arguments[0])}"
    if origin is dict:
        return f"{describe_type(arguments[1])} by name"
    if hasattr(annotation, "__metadata__"):  # Annotated
        limits = _limits(annotation.__metadata__)
        return describe_type(arguments[0]) + (f" ({limits})" if limits else "")
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "settings"
    return {"datetime": "time or date", "date": "date", "Path": "path"}.get(
        getattr(annotation, "__name__", str(annotation)), str(annotation)
    )


def anchor_of(path: str) -> str:
    """The anchor of a setting's full name."""
    return path.replace("[]", "-each")


def to_markdown(text: str) -> str:
    """A docstring's text as Markdown: paragraphs unwrapped, its double backticks made single."""
    paragraphs = (" ".join(part.split()) for part in text.split("\n\n"))
    return "\n\n".join(paragraphs).replace("``", "`")


def _entry(section: Section, name: str, field: FieldInfo) -> str:
    """One setting as an entry of a definition list, with an anchor of its full name."""
    path = section.child(name)
    text = describe_attributes(section.model).get(name, "")
    inner = _settings_in(field.annotation)
    limits = _limits(field.metadata)
    facts = [describe_type(field.annotation) + (f", {limits}" if limits else "")]
    if inner:
        facts = [f"[{facts[0]}](#{anchor_of(path + inner.suffix)})"]
        text = text or summary_of(inner.model).split("\n\n")[0]
    if field.is_required():
        facts.append("required")
    elif not inner or inner.suffix:
        facts.append(f"default `{show(field.get_default(call_default_factory=True))}`")
    # A section's own heading has the anchor.
    anchor = f"{{ #{anchor_of(path)} }}" if not inner or inner.suffix else ""
    text = re.sub(r"\bNone\b", "`null`", to_markdown(text))  # as YAML has it
    return f"`{name}`{anchor}\n:   {' · '.join(facts)}\n\n    {text}"


@dataclass(frozen=True)
class _Inner:
    """A settings class inside another one; ``suffix`` marks a list or mapping of them."""

    model: type[BaseModel]
    suffix: str = ""


def _settings_in(annotation: Any) -> _Inner | None:
    """The settings class that a setting holds, if it holds one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _Inner(annotation)
    place = {tuple: 0, list: 0, dict: 1}.get(get_origin(annotation))
    if place is None:
        return None
    held = _settings_in(get_args(annotation)[place])
    return _Inner(held.model, "[]") if held else None


def _limits(metadata: Any) -> str:
    found = []
    for part in metadata:
        for name, word in BOUNDS.items():
            if (value := getattr(part, name, None)) is not None:
                found.append(f"{word} {value}")
        for name, word in LENGTHS.items():
            if (value := getattr(part, name, None)) is not None:
                found.append(f"{word} {value} long")
        found += _limits(part.metadata).split(", ") if isinstance(part, FieldInfo) else []
    return ", ".join(filter(None, found))


def show(value: Any) -> str:
    """A default value in YAML."""
    plain = _plain(value)
    text = yaml.safe_dump(plain, default_flow_style=True, width=10_000, sort_keys=False).strip()
    return text.removesuffix("\n...").strip()


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_defaults=True)
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return value if isinstance(value, int | float | bool | None) else str(value)

"""The reference page of the command line, from the commands' own help."""

import re
from collections.abc import Iterator
from typing import Any


def write_commands() -> str:
    """Every command: usage, help, arguments and options."""
    import typer

    from pipelines.cli.app import app

    root = typer.main.get_command(app)
    parts: list[str] = []
    for name, command in find_commands(root, "refit"):
        if command is not root:
            parts += _describe(name, command)
    return "\n\n".join(parts)


def find_commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """A command and its subcommands, depth first, by full name; hidden ones are left out."""
    yield name, command
    for part, inner in getattr(command, "commands", {}).items():
        if not inner.hidden:
            yield from find_commands(inner, f"{name} {part}")


def _describe(name: str, command: Any) -> list[str]:
    import typer

    context = typer.Context(command, info_name=name)
    usage = re.sub(r"\s+", " ", command.get_usage(context)).removeprefix("Usage: ")
    text, _, examples = (command.help or "").partition("\nTry:\n")
    level = "#" * name.count(" ") + "#"
    parts = [f"{level} {name}", _unwrap(text), _code(usage)]
    if examples:
        lines = re.sub(r"\n +(?=--)", " ", examples).splitlines()
        parts += ["Examples:", _code("\n".join(line.strip() for line in lines if line.strip()))]
    records = [p.get_help_record(context) for p in command.params if not p.hidden]
    parts += [f"`{names}`\n:   {_escape(help_text)}" for names, help_text in filter(None, records)]
    return parts


def _unwrap(text: str) -> str:
    paragraphs = (" ".join(part.split()) for part in text.replace("\b", "").split("\n\n"))
    return "\n\n".join(_escape(part) for part in paragraphs if part)


def _code(text: str) -> str:
    return f"```text\n{text}\n```"


def _escape(text: str) -> str:
    """Help is plain text: what Markdown would take for markup is escaped."""
    return re.sub(r"([\\*_<>\[\]`|])", r"\\\1", re.sub(r"\s{2,}", " ", text))

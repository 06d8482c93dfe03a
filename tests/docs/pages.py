"""Read the pages of ``docs/`` as a reader does: copy their files, type their commands."""

import os
import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
UV = ROOT / ".build" / "uv" / "bin" / "uv"
PYTHON = ROOT / ".venv" / "bin" / "python"

_BLOCK = re.compile(r"^( *)```(?P<head>[^\n]*)\n(?P<body>.*?)^\1```$", re.MULTILINE | re.DOTALL)
_TITLE = re.compile(r'title="(?P<title>[^"]+)"')


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its ``title`` (a file's path), its text."""

    language: str
    title: str
    text: str


def read_blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, such as ``how-to/add-a-source.md``, in order."""
    blocks = []
    for match in _BLOCK.finditer((DOCS / page).read_text("utf-8")):
        indent, head = match[1], match["head"]
        lines = match["body"].splitlines(keepends=True)
        title = _TITLE.search(head)
        text = "".join(line.removeprefix(indent) for line in lines)
        blocks.append(Block(head.split(" ")[0], title["title"] if title else "", text))
    return blocks


def write_files(page: str, folder: Path) -> list[Path]:
    """Write every block that has a ``title`` into ``folder``, under that path."""
    written = []
    for block in read_blocks(page):
        if block.title:
            path = folder / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, "utf-8")
            written.append(path)
    return written


def read_commands(page: str) -> list[tuple[str, str]]:
    """The commands of a page's ``console`` blocks (lines after ``$ ``), each with its output."""
    commands: list[tuple[str, str]] = []
    for block in read_blocks(page):
        if block.language == "console":
            for entry in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
                command, _, output = re.sub(r" *\\\n *", " ", entry).partition("\n")
                commands.append((command, output.strip()))
    return commands


def run_commands(
    page: str, folder: Path, environment: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Run the page's commands; yields for each the output that the page shows, and the real one."""
    programs = {"refit": [PYTHON, "-m", "pipelines.cli"], "python": [PYTHON]}
    for command, shown in read_commands(page):
        program, *arguments = shlex.split(command)
        done = subprocess.run(
            [*programs[program], *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert "Traceback" not in done.stderr
        yield shown, done.stdout + done.stderr


def install(package: Path, target: Path) -> dict[str, str]:
    """Install a package outside the checkout; returns the environment in which Refit finds it."""
    how = ["--quiet", "--no-deps", "--no-build-isolation", "--offline", "--python", PYTHON]
    subprocess.run([UV, "pip", "install", *how, "--target", target, package], check=True)
    path = os.pathsep.join(filter(None, [str(target), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path}

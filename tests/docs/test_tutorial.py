"""The tutorial and the guides that continue it, typed into one shell, in one shop."""

import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, read_commands, write_files
from tests.docs.shell import Shell, fits

pytestmark = [pytest.mark.docs, pytest.mark.timeout(900)]

NOT_LINKED = {".git", ".refit", "build", "shop"}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like this checkout, in which a reader may write."""
    folder = tmp_path_factory.mktemp("checkout")
    for path in ROOT.iterdir():
        if path.name not in NOT_LINKED:
            (folder / path.name).symlink_to(path)
    for page in ("tutorial.md", "how-to/delete-a-person.md"):
        write_files(page, folder)
    return folder


@pytest.fixture(scope="module")
def port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def shell(checkout: Path) -> Iterator[Shell]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    with Shell(checkout, {**kept, "USER": "you"}) as shell:
        yield shell


@pytest.fixture(scope="module")
def reader(shell: Shell, checkout: Path, port: int) -> "Reader":
    return Reader(shell, checkout, port)


class Reader:
    """Somebody who types what a page says and compares what comes."""

    def __init__(self, shell: Shell, checkout: Path, port: int) -> None:
        self._shell, self._port = shell, port
        # Port 9000 may be taken on this machine, and so may the others.
        for script in checkout.glob("shop/*.py"):
            script.write_text(script.read_text("utf-8").replace(":9000", f":{port}"), "utf-8")

    def follow(self, commands: list[tuple[str, str]], **names: str) -> None:
        """Type commands, and fail where one fails or writes something else.

        Args:
            commands: Commands with what the page shows.
            names: What stands in the place of a page's placeholders, such as ``ALERT``.
        """
        for shown, expected in commands:
            command = shown
            for name, value in {"9000": str(self._port), **names}.items():
                command, expected = command.replace(name, value), expected.replace(name, value)
            typed = self._elsewhere(command)
            if command.endswith("&"):
                self._shell.start(typed, expected)
                continue
            code, said = self._shell.run(typed)
            assert code == 0, f"$ {command}\n{said}"
            assert fits(expected, said), f"$ {command}\n{said}\nis not\n{expected}"

    def _elsewhere(self, command: str) -> str:
        ports = " ".join(f"--{name}-port 0" for name in ("grpc", "metrics", "model-server"))
        command = command.replace("refit serve", f"refit serve --http-port {self._port} {ports}")
        url = f"--url http://127.0.0.1:{self._port}"
        return re.sub(r"refit recommend", f"refit recommend {url}", command)


def test_tutorial(reader: Reader):
    *commands, _, _ = read_commands("tutorial.md")
    reader.follow(commands)


def test_handle_an_alert(reader: Reader, shell: Shell):
    _, listed = shell.run("refit alerts list --json")
    reader.follow(
        read_commands("how-to/handle-an-alert.md"), ALERT=json.loads(listed)[0]["alert_id"]
    )


def test_roll_back(reader: Reader, shell: Shell):
    code, said = shell.run("refit run index_refresh --config shop/shop.yaml")
    assert code == 0, said
    _, listed = shell.run("refit bundles list --json")
    by_role = {bundle["role"]: bundle["bundle_id"] for bundle in json.loads(listed)}
    old, new = by_role["previous"], by_role["champion"]
    reader.follow(read_commands("how-to/roll-back.md"), BUNDLE_A=old, BUNDLE_B=new)


def test_delete_a_person(reader: Reader):
    reader.follow(read_commands("how-to/delete-a-person.md"))


def test_clean_up(reader: Reader, checkout: Path):
    """The tutorial's last commands, after all that continues it."""
    reader.follow(read_commands("tutorial.md")[-2:])
    assert not (checkout / "shop").exists()

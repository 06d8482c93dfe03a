"""A real Chromium for tests, driven over a pipe, so that nothing but its program is needed."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"),
    "--remote-debugging-pipe",
)
START = """
import fcntl, os, sys
ours = [fcntl.fcntl(int(n), fcntl.F_DUPFD, 10) for n in sys.argv[1:3]]
for here, there in zip(ours, (3, 4)):
    os.dup2(here, there)
    os.close(here)
os.execvp(sys.argv[3], sys.argv[3:])
"""
"""Chromium reads from descriptor 3 and writes to 4."""


def find_chromium() -> str | None:
    """The program, if this machine has one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Tab:
    """One open page.

    Attributes:
        problems: What the browser complained of: errors of scripts, what a policy refused, files
            that were not found.
    """

    def __init__(self, into: int, out: Any) -> None:
        self._into, self._out, self._last = into, out, 0
        self.problems: list[str] = []
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self._ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session: str | None = attached["sessionId"]
        for domain in ("Page", "Log", "Runtime"):
            self._ask(f"{domain}.enable")

    _session: str | None = None

    def _ask(self, method: str, **parameters: Any) -> Any:
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._into, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._last:
                assert "error" not in answer, answer
                return answer["result"]

    def _read(self) -> dict[str, Any]:
        read = b""
        while not read.endswith(b"\0"):
            byte = self._out.read(1)
            assert byte, "Chromium has ended"
            read += byte
        message: dict[str, Any] = json.loads(read[:-1])
        if message.get("method") == "Log.entryAdded":
            self.problems.append(message["params"]["entry"]["text"])
        if message.get("method") == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(message["params"]["exceptionDetails"]))
        return message

    def show_as(self, width: int, dark: bool = False, media: str = "") -> None:
        """Emulate a screen, or paper."""
        self._ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._ask("Emulation.setEmulatedMedia", media=media, features=[scheme])

    def allow_scripts(self, allowed: bool) -> None:
        """Let pages run scripts, or not."""
        self._ask("Emulation.setScriptExecutionDisabled", value=not allowed)

    def open(self, url: str) -> None:
        """Open a page, and wait until it is there."""
        self.run("window.left = true")
        self._ask("Page.navigate", url=url)
        self.wait("!window.left && document.readyState === 'complete'")

    def run(self, code: str) -> Any:
        """The value of a JavaScript expression."""
        found = self._ask("Runtime.evaluate", expression=code, returnByValue=True)
        return found["result"].get("value")

    def wait(self, code: str, seconds: float = 10.0) -> None:
        """Wait until an expression is true."""
        until = time.monotonic() + seconds
        while not self.run(code):
            assert time.monotonic() < until, f"{code} did not become true"
            time.sleep(0.05)

    def press(self, *keys: str) -> None:
        """Press keys, one after the other; a text of one letter types it."""
        codes = {"Tab": 9, "Enter": 13, " ": 32}
        for key in keys:
            text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
            pressed = {"key": key, "windowsVirtualKeyCode": codes.get(key, 0)}
            self._ask("Input.dispatchKeyEvent", type="keyDown", text=text, **pressed)
            self._ask("Input.dispatchKeyEvent", type="keyUp", **pressed)


@contextmanager
def opened_tab(program: str) -> Iterator[Tab]:
    """A browser with one tab, until the block ends."""
    from_us, into = os.pipe()
    out, from_it = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = subprocess.Popen(
            [
                *(sys.executable, "-c", START, str(from_us), str(from_it), program, *OPTIONS),
                *(f"--user-data-dir={profile}", "about:blank"),
            ],
            pass_fds=(from_us, from_it),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(from_us)
        os.close(from_it)
        try:
            with os.fdopen(out, "rb") as reader:
                yield Tab(into, reader)
        finally:
            os.close(into)
            browser.terminate()
            browser.wait(20)

"""Work that may take long while a person waits."""

import threading
from collections.abc import Callable

PATIENCE_SECONDS = 4.0
"""How long a person waits for the registry."""


def try_within[T](work: Callable[[], T], name: str) -> tuple[T | None, str]:
    """What ``work`` returns, or why a person who waits cannot be told; it goes on meanwhile."""
    found: list[tuple[T | None, str]] = []

    def run() -> None:
        try:
            found.append((work(), ""))
        except Exception as error:
            found.append((None, str(error) or type(error).__name__))

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    thread.join(PATIENCE_SECONDS)
    return found[0] if found else (None, f"it did not answer within {PATIENCE_SECONDS:.0f} s")

"""List the packages of an environment with their licences; fail if one is not permitted.

Run it with the Python of the environment, which may be that of an image:

- ``.venv-serving/bin/python tools/licences.py --only serving/requirements-plain.txt``
- ``docker run --rm -i refit/serving-plain:0.1.0 python - < tools/licences.py``

A package without a licence that is known here fails: somebody has to look at it first.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

PERMITTED = re.compile(
    r"\b(apache|mit|bsd|isc|psf|python software foundation|hpnd|mpl|mozilla|unlicense|0bsd|zlib"
    r"|cc0)\b",
    re.I,
)
REFUSED = re.compile(r"\b(busl|business source|bsl|sspl|server side|agpl|affero|gpl|lgpl)\b", re.I)
LOOKED_AT = {
    # Its metadata name no licence; its file LICENSE does.
    "namex": "Apache-2.0",
}
"""By package, the licence that somebody has read in its files."""


def main() -> int:
    """List, and return 1 if a package is not permitted."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", type=Path, help="a file of locked requirements: its packages")
    options = parser.parse_args()
    names = locked_names(options.only) if options.only else installed_names()
    refused = 0
    for name in sorted(names):
        licence = licence_of(name)
        permitted = is_permitted(licence)
        refused += not permitted
        mark = "" if permitted else "    NOT PERMITTED"
        sys.stdout.write(f"{name:32} {metadata.version(name):16} {licence}{mark}\n")
    sys.stdout.write(f"{len(names)} packages, {refused} not permitted\n")
    return 1 if refused else 0


def installed_names() -> set[str]:
    """The packages of this environment."""
    return {normalized(found.metadata["Name"]) for found in metadata.distributions()}


def locked_names(file: Path) -> set[str]:
    """The packages of a file of locked requirements."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return {normalized(line.split("==")[0]) for line in lines if re.match(r"[A-Za-z0-9]", line)}


def licence_of(name: str) -> str:
    """What a package's metadata say of its licence; "unknown" without a word."""
    if name in LOOKED_AT:
        return LOOKED_AT[name]
    described = metadata.metadata(name)
    if expression := described.get("License-Expression"):
        return str(expression)
    classifiers = described.get_all("Classifier") or []
    classified = [c.rpartition(" :: ")[2] for c in classifiers if c.startswith("License ::")]
    text = (described.get("License") or "").strip().splitlines()
    return "; ".join(_named([*classified, *text[:1]])) or "unknown"


def is_permitted(licence: str) -> bool:
    """Whether a licence is on the list, and none of its parts is on the other."""
    return bool(PERMITTED.search(licence)) and not REFUSED.search(licence)


def normalized(name: str) -> str:
    """A package's name as indexes spell it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _named(texts: Iterable[str]) -> list[str]:
    return [text for text in dict.fromkeys(texts) if text and text != "OSI Approved"]


if __name__ == "__main__":
    sys.exit(main())

"""One name, one idea: no two classes of Refit's packages share a name.

``Options`` is the class that the protocols of extensions look for.
"""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("refit", "components", "pipelines", "monitoring", "serving", "simulation")


def test_no_two_classes_share_a_name():
    places = defaultdict(list)
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    places[node.name].append(path.relative_to(ROOT).as_posix())
    assert len(places) > 100
    places.pop("Options", None)
    assert {name: found for name, found in places.items() if len(found) > 1} == {}

"""Build every overlay with pinned tools, compare with the golden files, test the alert rules.

``python -m tests.kustomize.manifests`` checks; with ``--renew`` it updates the golden files.
"""

import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml

from refit.errors import RefitError
from tests.machine.binaries import build, tools
from tests.machine.commands import run
from tests.machine.host import UnsupportedHostError

ROOT = Path(__file__).resolve().parents[2]
OVERLAYS = ROOT / "kustomize" / "overlays"
RULES = ROOT / "kustomize" / "components" / "prometheus" / "rules.yaml"
RULES_TEST = Path(__file__).with_name("rules_test.yaml")
GOLDEN = Path(__file__).with_name("golden")


class GoldenFileError(RefitError):
    """The build of an overlay differs from its golden file."""


def overlays() -> list[str]:
    """Names of all overlays."""
    return sorted(folder.name for folder in OVERLAYS.iterdir() if folder.is_dir())


def build_manifests(folder: Path) -> str:
    """Build a folder with kustomize; returns YAML."""
    return run([find_tool("kustomize"), "build", str(folder)])


def check_overlay(name: str, renew: bool = False) -> None:
    """Build an overlay and compare it with its golden file, or update the golden file.

    Raises:
        GoldenFileError: The build differs from the golden file.
    """
    built, golden = build_manifests(OVERLAYS / name), GOLDEN / f"{name}.yaml"
    if renew:
        golden.write_text(built, encoding="utf-8")
    elif not golden.exists() or golden.read_text(encoding="utf-8") != built:
        raise GoldenFileError(
            f"the build of kustomize/overlays/{name} differs from {golden.relative_to(ROOT)}; if "
            "this is intended, run 'make manifests ARGS=--renew' and review the diff"
        )


def check_rules() -> None:
    """Check the alert rules and run their tests.

    Raises:
        CommandError: promtool found an error.
    """
    promtool = find_tool("promtool")
    with tempfile.TemporaryDirectory() as folder:
        rules, test = Path(folder) / "rules.yaml", Path(folder) / RULES_TEST.name
        rules.write_text(yaml.safe_dump(yaml.safe_load(RULES.read_text("utf-8"))["spec"]), "utf-8")
        shutil.copy(RULES_TEST, test)
        run([promtool, "check", "rules", "--lint=all", "--lint-fatal", str(rules)])
        run([promtool, "test", "rules", str(test)], folder=Path(folder))


def find_tool(name: str) -> str:
    """Path of a pinned tool, built with Go; without Go, the tool on the PATH.

    Raises:
        UnsupportedHostError: There is neither Go nor the tool.
    """
    try:
        return str(build(tools()) / name)
    except UnsupportedHostError as missing:
        if found := shutil.which(name):
            return found
        raise UnsupportedHostError(f"{missing}; or install {name}") from None


def main(arguments: Sequence[str]) -> int:
    """Check all overlays and the alert rules; return the exit code."""
    renew = "--renew" in arguments
    try:
        for name in overlays():
            check_overlay(name, renew)
            sys.stdout.write(
                f"{'renewed' if renew else 'as expected'}: kustomize/overlays/{name}\n"
            )
        check_rules()
        sys.stdout.write(f"tested: {RULES.relative_to(ROOT)}\n")
    except RefitError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

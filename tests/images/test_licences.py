"""The image without Seldon: no package of it, and no licence that is not permitted."""

import subprocess

import pytest

from tools.build_images import ARGUMENTS, ROOT
from tools.licences import is_permitted, locked_names

PYTHON = ROOT / ".venv-serving" / "bin" / "python"
PLAIN = ROOT / "serving" / ARGUMENTS["serving-plain"]["REQUIREMENTS"]
WHOLE = ROOT / "serving" / "requirements.txt"


def list_licences(lock):
    command = [PYTHON, ROOT / "tools" / "licences.py", "--only", lock]
    return subprocess.run(command, capture_output=True, text=True)


def test_every_package_of_the_image_without_seldon_has_a_permitted_licence():
    listed = list_licences(PLAIN)
    assert listed.returncode == 0, listed.stdout
    assert listed.stdout.endswith("packages, 0 not permitted\n")


def test_seldon_is_what_the_other_image_is_refused_for():
    listed = list_licences(WHOLE)
    assert listed.returncode == 1
    refused = [line.split()[0] for line in listed.stdout.splitlines() if "NOT PERMITTED" in line]
    assert refused == ["seldon-core"]


def test_both_images_hold_the_same_versions_of_what_both_hold():
    def pins(file):
        return {line.split()[0] for line in file.read_text("utf-8").splitlines() if "==" in line}

    assert pins(PLAIN) < pins(WHOLE)
    assert not [name for name in locked_names(PLAIN) if "seldon" in name or "opentracing" in name]
    assert "seldon-core" in locked_names(WHOLE)


@pytest.mark.parametrize(
    ("licence", "permitted"),
    [
        ("MIT License; MIT", True),
        ("Apache-2.0 AND MIT", True),
        ("Mozilla Public License 2.0 (MPL 2.0)", True),
        ("unknown", False),
        ("", False),
        ("Business Source License 1.1", False),
        ("BUSL-1.1", False),
        ("MIT; Business Source License 1.1", False),
        ("SSPL", False),
        ("GNU Affero General Public License v3", False),
        ("GPL-3.0-only", False),
        ("Proprietary", False),
    ],
)
def test_what_is_permitted(licence, permitted):
    assert is_permitted(licence) is permitted

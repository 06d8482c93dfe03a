import re
import subprocess
import sys
from pathlib import Path

import pytest

from refit import __version__
from tools.build_images import (
    CONTAINERFILES,
    INSTALLED,
    ON_REQUEST,
    ROOT,
    build_command,
    image_name,
    images_to_build,
    version,
)

PINNED = re.compile(r"ARG BASE_IMAGE=\S+/python:3\.12\.\d+-slim-\w+@sha256:[0-9a-f]{64}$")
ROOMS = {
    "main": "refit simulation monitoring serving components pipelines",
    "main-gpu": "refit simulation monitoring serving components pipelines",
    "serving": "refit serving",
    "serving-plain": "refit serving",
}


def stages(name: str) -> tuple[list[str], list[str]]:
    """The lines of the stage that compiles and of the final one, comments left out."""
    text = (ROOT / CONTAINERFILES[name]).read_text("utf-8")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    final = max(place for place, line in enumerate(lines) if line.startswith("FROM "))
    return lines[:final], lines[final:]


@pytest.mark.parametrize("name", CONTAINERFILES)
def test_the_base_is_pinned_by_digest_and_every_stage_is_made_of_it(name):
    before, final = stages(name)
    assert PINNED.match(before[0])
    assert [line for line in (*before, *final) if line.startswith("FROM ")] == [
        "FROM ${BASE_IMAGE} AS code",
        "FROM ${BASE_IMAGE}",
    ]


@pytest.mark.parametrize("name", CONTAINERFILES)
def test_what_installs_goes_with_its_step_and_nobody_is_root(name):
    final = "\n".join(stages(name)[1])
    (install,) = [step for step in re.split(r"^(?=RUN )", final, flags=re.M) if "pip" in step]
    step, _, after = install.partition("\nCOPY ")
    assert step.endswith(" /tmp/*")
    assert step.count("--require-hashes") == 2
    assert {"--no-cache-dir", "UV_NO_CACHE=1"} <= set(step.split())
    assert not re.search(r"\b(pip|uv)\b", after)
    assert not re.search(r"\b(apt|apt-get|curl|wget)\b", final)
    assert re.findall(r"^USER (.*)$", final, re.M) == ["1000:1000"]
    assert 'org.opencontainers.image.revision="${REVISION}"' in final


@pytest.mark.parametrize("name", CONTAINERFILES)
def test_an_image_holds_the_rooms_that_it_needs(name):
    before = "\n".join(stages(name)[0])
    assert re.findall(r"^COPY (\w+) /refit/\1$", before, re.M) == ROOMS[name].split()


def test_images_are_named_as_the_pipelines_name_them():
    from components.images import MAIN_GPU_IMAGE, MAIN_IMAGE

    assert version() == __version__
    assert image_name("main") == MAIN_IMAGE
    assert image_name("main-gpu") == MAIN_GPU_IMAGE


@pytest.mark.parametrize("builder", ["docker", "podman", "buildah"])
def test_what_a_builder_is_told(builder):
    command = build_command(builder, "serving", "localhost/python:3.12", ["--network", "host"])
    told = " ".join(command)
    assert told.startswith(f"{builder} build --file serving/Containerfile --tag refit/serving:")
    assert "--build-arg BASE_IMAGE=localhost/python:3.12" in told
    assert told.endswith(" --network host .")
    assert ("--timestamp" in command) == (builder != "docker")  # docker reads SOURCE_DATE_EPOCH


def test_the_image_without_seldon_is_built_of_its_own_requirements():
    told = " ".join(build_command("buildah", "serving-plain", "", []))
    assert "--tag refit/serving-plain:" in told
    assert "--build-arg REQUIREMENTS=requirements-plain.txt" in told
    assert "--build-arg LICENCES=Apache-2.0" in told
    final = "\n".join(stages("serving-plain")[1])
    assert "/refit/${REQUIREMENTS}" in final
    assert not re.search(r"(?i)seldon", final)


def test_the_image_with_cuda_is_built_of_its_own_requirements_and_only_when_it_is_named():
    told = " ".join(build_command("buildah", "main-gpu", "", []))
    assert told.startswith("buildah build --file pipelines/Containerfile --tag refit/main-gpu:")
    assert "--build-arg REQUIREMENTS=requirements-gpu.txt" in told
    assert "LICENCES=Apache-2.0 AND LicenseRef-NVIDIA-Proprietary" in told
    assert "REQUIREMENTS" not in " ".join(build_command("buildah", "main", "", []))
    assert 'licenses="${LICENCES}"' in "\n".join(stages("main-gpu")[1])
    assert {*ON_REQUEST, *images_to_build([])} == set(CONTAINERFILES)
    assert images_to_build([]) == ["main", "serving", "serving-plain"]
    assert images_to_build(["main-gpu"]) == ["main-gpu"]
    for locked in INSTALLED:  # else the builder does not get it
        folder = locked.partition("/")[0]
        ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
        assert {f"!{locked}", f"!{folder}"} & set(ignored)


def test_without_a_builder_it_says_what_to_install():
    told = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "build_images.py")],
        env={"PATH": str(Path(sys.executable).parent / "no-such-folder")},
        capture_output=True,
        text=True,
    )
    assert told.returncode == 1
    assert "no working docker, podman or buildah was found; install one" in told.stderr

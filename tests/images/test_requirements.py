"""The locked requirements of the image with CUDA: those of the main image, and CUDA."""

import re

from tools.build_images import ROOT
from tools.lock import LEFT_OUT, PYTHON_OF


def pins(name):
    """Version by package of a locked file."""
    found = re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / name).read_text("utf-8"), re.M)
    assert len(dict(found)) == len(found)
    return dict(found)


def test_the_image_with_cuda_has_the_packages_of_the_main_image_in_the_same_versions():
    main, gpu = pins("requirements.txt"), pins("requirements-gpu.txt")
    assert main.items() - gpu.items() == {("onnxruntime", main["onnxruntime"])}
    added = {name for name in gpu if name not in main}
    assert {name for name in added if not name.startswith("nvidia-")} == {"onnxruntime-gpu"}


def test_there_is_one_onnx_runtime_and_one_release_of_cuda():
    gpu = pins("requirements-gpu.txt")
    assert [name for name in gpu if name.startswith("onnxruntime")] == ["onnxruntime-gpu"]
    of_nvidia = [name for name in gpu if name.startswith("nvidia-")]
    assert "nvidia-cudnn-cu12" in of_nvidia
    assert all(name.endswith("-cu12") for name in of_nvidia)


def test_every_package_has_a_hash():
    text = (ROOT / "requirements-gpu.txt").read_text("utf-8")
    entries = re.split(r"^(?=[a-z0-9])", text, flags=re.M)[1:]
    assert len(entries) == len(pins("requirements-gpu.txt"))
    assert all("--hash=sha256:" in entry for entry in entries)


def test_all_requirements_of_the_repository_are_locked():
    assert set(LEFT_OUT) <= set(PYTHON_OF)
    assert "requirements-gpu.in" in PYTHON_OF

"""Pictures by an exported ONNX model: the picture half of CLIP and SigLIP, or any picture encoder.

The folder holds ``model.onnx`` and ``preprocessor_config.json``, as exporters write them.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from components.encoding.onnx_model import OnnxModel, find_model_files
from components.encoding.settings import Device
from refit.errors import UsageError
from refit.settings import Settings

if TYPE_CHECKING:
    from PIL import Image

READS: Literal["picture"] = "picture"
CODE = "1"
BICUBIC = 3
"""As PIL and the exporters number the ways to scale a picture."""


class OnnxPictureOptions(Settings):
    """Options of ``onnx_picture``.

    Attributes:
        model: File of the model.
        preprocessor: File that says how pictures are prepared.
        output: The output that holds the vectors; empty finds it.
    """

    model: str = "model.onnx"
    preprocessor: str = "preprocessor_config.json"
    output: str = ""


Options = OnnxPictureOptions


def find_files(options: OnnxPictureOptions, folder: Path | None) -> Sequence[Path]:
    """The model, its weights, and how pictures are prepared."""
    return find_model_files(folder, (options.model, options.preprocessor))


def open_encoder(
    options: OnnxPictureOptions, folder: Path | None, device: Device, threads: int
) -> "OnnxPictureEncoder":
    """Load the model."""
    assert folder is not None  # find_files was called
    return OnnxPictureEncoder(options, folder, device, threads)


class OnnxPictureEncoder:
    """A picture encoder that is open."""

    def __init__(
        self, options: OnnxPictureOptions, folder: Path, device: Device, threads: int
    ) -> None:
        self._model = OnnxModel(folder / options.model, options.output, "", device, threads)
        self._model.require(
            ("pixel_values",), "pixel_values", "export the picture encoder by itself"
        )
        self._prepare = Preparation(folder / options.preprocessor)
        self.size = self._model.size

    def encode(self, contents: Sequence["Image.Image"]) -> NDArray[np.float32]:
        """[B, size] vectors of pictures."""
        pixels = np.stack([self._prepare(picture) for picture in contents])
        return self._model.run({"pixel_values": pixels})


class Preparation:
    """Makes the input of a model from a picture: scale, cut out the middle, normalise.

    Args:
        path: A ``preprocessor_config.json``. Its meaning is that of Hugging Face's image
            processors: ``size`` is ``{shortest_edge: n}``, ``{height: h, width: w}`` or ``n``.

    Raises:
        UsageError: The file lacks something, or asks for something else.
    """

    def __init__(self, path: Path) -> None:
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UsageError(f"{path} is not JSON: {error}") from error
        self._path = path
        size = values.get("size")
        size = {"shortest_edge": size} if isinstance(size, int) else size
        self._shortest = size.get("shortest_edge") if isinstance(size, dict) else None
        self._exact = _edges(size)
        self._resizes = values.get("do_resize", True)
        crop = values.get("crop_size")
        crop = {"height": crop, "width": crop} if isinstance(crop, int) else crop
        self._crop = _edges(crop) if values.get("do_center_crop", False) else None
        self._resample = values.get("resample", BICUBIC)
        self._factor = (
            values.get("rescale_factor", 1 / 255) if values.get("do_rescale", True) else 1
        )
        normalises = values.get("do_normalize", True)
        self._mean = _channels(values, "image_mean", path) if normalises else np.zeros(3)
        self._deviation = _channels(values, "image_std", path) if normalises else np.ones(3)
        if self._exact is None and self._crop is None:
            raise UsageError(
                f"{path}: size must be {{height, width}}, or do_center_crop and crop_size be given,"
                " so that all pictures get one size"
            )
        if self._resizes and self._exact is None and self._shortest is None:
            raise UsageError(f"{path}: size must have shortest_edge, or height and width")

    def __call__(self, picture: "Image.Image") -> NDArray[np.float32]:
        """[3, height, width] the model's input."""
        if self._resizes:
            picture = picture.resize(self._find_size(picture), self._resample)
        pixels = np.asarray(picture, dtype=np.float32)
        if self._crop is not None:
            pixels = _crop_middle(pixels, *self._crop)
        scaled = (pixels * self._factor - self._mean) / self._deviation
        return np.asarray(scaled.transpose(2, 0, 1), dtype=np.float32)

    def _find_size(self, picture: "Image.Image") -> tuple[int, int]:
        """Width and height to scale to."""
        if self._exact is not None:
            height, width = self._exact
            return width, height
        assert self._shortest is not None  # it was checked
        shorter = min(picture.size)
        width, height = (int(self._shortest * edge / shorter) for edge in picture.size)
        return width, height


def _crop_middle(pixels: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """The middle of a picture, with black edges where it is smaller."""
    missing = [
        max(wanted - there, 0)
        for wanted, there in zip((height, width), pixels.shape[:2], strict=True)
    ]
    edges = [(n // 2, n - n // 2) for n in missing]
    pixels = np.pad(pixels, (*edges, (0, 0)))
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width]


def _edges(size: Any) -> tuple[int, int] | None:
    """Height and width."""
    if isinstance(size, dict) and {"height", "width"} <= size.keys():
        return int(size["height"]), int(size["width"])
    return None


def _channels(values: Mapping[str, Any], name: str, path: Path) -> NDArray[np.float64]:
    found = np.asarray(values.get(name, ()), dtype=np.float64)
    if found.shape != (3,):
        raise UsageError(f"{path}: {name} must be three numbers, one for each colour")
    return found

"""ONNX models as encoders: load one, choose its output, pool what it gives for each token."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from components.encoding.settings import Device
from refit.errors import UsageError

Pooling = Literal["", "mean", "first"]
PROVIDERS: dict[Device, str] = {"cpu": "CPUExecutionProvider", "gpu": "CUDAExecutionProvider"}
KNOWN_OUTPUTS = ("sentence_embedding", "text_embeds", "image_embeds", "pooler_output")
"""Names that exporters give to the one vector of a text or picture, the likeliest first."""


def find_model_files(folder: Path | None, names: Sequence[str]) -> list[Path]:
    """The files of a model: those that are named, and the weights that are kept beside the first.

    Raises:
        UsageError: There is no folder, or one is missing.
    """
    if folder is None:
        raise UsageError("needs path: the folder or URL with the exported model")
    for name in names:
        if not (folder / name).is_file():
            there = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
            raise UsageError(f"{folder} has no {name}; it has {there}")
    weights = [path for path in folder.glob(f"{names[0]}*") if path.is_file()]
    return sorted({*(folder / name for name in names), *weights})


class OnnxModel:
    """A model that gives one vector for each text or picture.

    Args:
        path: The file of the model.
        output: The output that holds the vectors; empty finds it.
        pooling: How to make one vector of those of the tokens, for an output that has them.
        device: Where it runs.
        threads: Threads on a CPU; 0 is one for each core.

    Attributes:
        inputs: Names of the inputs.
        size: Number of entries of a vector.

    Raises:
        UsageError: It cannot be loaded, the device is not visible, or its output is not clear.
    """

    def __init__(
        self, path: Path, output: str, pooling: Pooling, device: Device, threads: int
    ) -> None:
        self._path = path
        self._session = _open_session(path, device, threads)
        self._types = {each.name: each.type for each in self._session.get_inputs()}
        self.inputs: tuple[str, ...] = tuple(self._types)
        self._output, rank, width = self._find_output(output)
        self._pooling = pooling
        if rank == 3 and not pooling:
            raise UsageError(
                f"{path}: output {self._output!r} has a vector for each token: set the option"
                " pooling to mean or first, as the model was trained"
            )
        if rank == 2 and pooling:
            raise UsageError(
                f"{path}: output {self._output!r} has one vector already: leave pooling out"
            )
        if not isinstance(width, int):
            raise UsageError(
                f"{path}: output {self._output!r} does not say how long its vectors are; export it"
                " with a fixed last dimension"
            )
        self.size = width

    def require(self, known: Sequence[str], needed: str, advice: str) -> None:
        """Check that the model reads what will be given to it.

        Raises:
            UsageError: It reads something else; the message ends with ``advice``.
        """
        unknown = [name for name in self.inputs if name not in known]
        if unknown or needed not in self.inputs:
            raise UsageError(
                f"{self._path} reads {', '.join(self.inputs)}, of which"
                f" {', '.join(known)} can be given: {advice}"
            )

    def run(
        self, values: Mapping[str, NDArray[Any]], mask: NDArray[Any] | None = None
    ) -> NDArray[np.float32]:
        """[B, size] the vectors of a batch.

        Args:
            values: Values of the inputs.
            mask: [B, T] which tokens count, for pooling.
        """
        fed = {name: value.astype(_DTYPES[self._types[name]]) for name, value in values.items()}
        (found,) = self._session.run([self._output], fed)
        vectors = np.asarray(found, dtype=np.float32)
        if self._pooling == "first":
            return vectors[:, 0]
        if self._pooling == "mean":
            assert mask is not None  # texts have one
            weights = mask[:, :, None].astype(np.float32)
            total = np.asarray((vectors * weights).sum(axis=1), dtype=np.float32)
            return np.asarray(total / np.maximum(weights.sum(axis=1), 1), dtype=np.float32)
        return vectors

    def _find_output(self, wanted: str) -> tuple[str, int, Any]:
        outputs = {each.name: each.shape for each in self._session.get_outputs()}
        fitting = {name: shape for name, shape in outputs.items() if len(shape) in (2, 3)}
        listed = ", ".join(f"{name} {shape}" for name, shape in outputs.items())
        if wanted and wanted not in fitting:
            raise UsageError(
                f"{self._path} has no output {wanted!r} with two or three dimensions; it has"
                f" {listed}"
            )
        likely = [name for name in KNOWN_OUTPUTS if name in fitting]
        if not wanted and not likely and len(fitting) != 1:
            raise UsageError(
                f"{self._path} has the outputs {listed}: set the option output to the one that"
                " holds the vectors"
            )
        name = wanted or next(iter((*likely, *fitting)))
        return name, len(fitting[name]), fitting[name][-1]


_DTYPES = {
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
}


def _open_session(path: Path, device: Device, threads: int) -> Any:
    import onnxruntime

    wanted = PROVIDERS[device]
    there = onnxruntime.get_available_providers()
    if wanted not in there:
        raise UsageError(
            f"device is {device}, but this ONNX Runtime has {', '.join(there)} only:"
            " run the step in the image refit/main-gpu, which has onnxruntime-gpu in the place of"
            " onnxruntime, or set device: cpu"
        )
    if device == "gpu":
        onnxruntime.preload_dlls()  # CUDA's libraries, where they are packages of this environment
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors; it warns of every unused weight
    providers = list(dict.fromkeys((wanted, PROVIDERS["cpu"])))
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # its errors have no common class of their own
        raise UsageError(f"{path} cannot be loaded: {error}") from error
    if wanted not in session.get_providers():  # it goes on with a CPU, and only warns
        raise UsageError(
            f"device is {device}, but no GPU is visible to ONNX Runtime: run the step where"
            " there is one, with the libraries of CUDA that onnxruntime-gpu needs, or set device:"
            " cpu"
        )
    unknown = {each.type for each in session.get_inputs()} - _DTYPES.keys()
    if unknown:
        raise UsageError(f"{path} reads {', '.join(sorted(unknown))}, which no encoder gives")
    return session

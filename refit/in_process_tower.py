"""The query tower as a LiteRT model, run in the process that answers; it needs no TensorFlow.

A bundle has it in ``assets.extra``, the folder of a SavedModel that TensorFlow Serving leaves to
others. LiteRT reads no text, so that each text is replaced by its code before: the model has an
input for every code, and a file beside it says which texts have which code.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refit.errors import RefitError, UsageError
from refit.features import Inputs
from refit.files import read_json

EXTRAS_FOLDER = "assets.extra"
MODEL_FILE, TEXTS_FILE = "query_tower.tflite", "texts.json"
SIGNATURE, OUTPUT = "serving_default", "embedding"
UNKNOWN = 0
"""The code of every text that has none."""


def extras_of(base: Path) -> Path:
    """Where a tower's base folder has what runs in process.

    Raises:
        RefitError: The base folder has no version folder.
    """
    versions = [int(path.name) for path in base.glob("*") if path.name.isdigit()]
    if not versions:
        raise RefitError(f"{base} holds no version of a SavedModel; train and export the towers")
    return base / str(max(versions)) / EXTRAS_FOLDER


def has_in_process_tower(base: Path) -> bool:
    """Whether a query tower was exported for running in process too."""
    extras = extras_of(base)
    return (extras / MODEL_FILE).is_file() and (extras / TEXTS_FILE).is_file()


class InProcessTower:
    """A query tower in this process. Threads may share it.

    Args:
        base: The query tower's base folder.

    Raises:
        UsageError: LiteRT is not installed.
        RefitError: The folder has no such tower, or one that LiteRT cannot run.
    """

    def __init__(self, base: Path) -> None:
        extras = extras_of(base)
        if not has_in_process_tower(base):
            raise RefitError(f"{extras} has no {MODEL_FILE}")
        texts = read_json(extras / TEXTS_FILE)
        self._codes = {
            name: (of["input"], {text: code for code, text in enumerate(of["texts"])})
            for name, of in texts.items()
        }
        self._file = extras / MODEL_FILE
        # An interpreter runs one query at a time; so many are made as run at once.
        self._idle = [self._start()]

    def run(self, inputs: Inputs) -> dict[str, NDArray[np.float32]]:
        """The tower's outputs for B queries.

        Args:
            inputs: Arrays by name; see ``refit.features.query_inputs``.

        Returns:
            ``embedding`` [B, D], and the tower's other outputs [B, ...].

        Raises:
            KeyError, ValueError: An input is missing or has another shape.
            RuntimeError: LiteRT failed.
        """
        try:
            interpreter = self._idle.pop()
        except IndexError:
            interpreter = self._start()
        try:
            rows = len(next(iter(inputs.values())))
            queries = [inputs] if rows == 1 else [_one(inputs, row) for row in range(rows)]
            outputs = [interpreter.run(self._encode(query)) for query in queries]
        finally:
            self._idle.append(interpreter)
        if rows == 1:
            return outputs[0]
        return {name: np.concatenate([one[name] for one in outputs]) for name in outputs[0]}

    def _encode(self, query: Inputs) -> Inputs:
        """One query with a code for each text."""
        encoded = dict(query)
        for name, (source, code_of) in self._codes.items():
            texts = query[source]
            codes = [code_of.get(text, UNKNOWN) for text in texts.ravel().tolist()]
            encoded[name] = np.array(codes, dtype=np.int32).reshape(texts.shape)
        return encoded

    def _start(self) -> "_Interpreter":
        try:
            return _Interpreter(self._file)
        except (ValueError, RuntimeError, KeyError) as error:
            raise RefitError(f"{self._file} cannot be run: {error}") from None


def _one(inputs: Inputs, row: int) -> Inputs:
    return {name: values[row : row + 1] for name, values in inputs.items()}


class _Interpreter:
    """LiteRT's interpreter of one model, for one query at a time."""

    def __init__(self, file: Path) -> None:
        self._interpreter = _import_litert().Interpreter(model_path=str(file), num_threads=1)
        self._interpreter.allocate_tensors()
        runner = self._interpreter.get_signature_runner(SIGNATURE)
        self._places = {name: of["index"] for name, of in runner.get_input_details().items()}
        self._outputs = {name: of["index"] for name, of in runner.get_output_details().items()}
        if OUTPUT not in self._outputs:
            raise KeyError(f"no output {OUTPUT!r}")

    def run(self, inputs: Inputs) -> dict[str, NDArray[np.float32]]:
        """The outputs [1, ...] of a query."""
        interpreter = self._interpreter
        for name, place in self._places.items():
            interpreter.set_tensor(place, inputs[name])
        interpreter.invoke()
        tensors = interpreter.get_tensor
        return {name: np.asarray(tensors(place)) for name, place in self._outputs.items()}


def _import_litert() -> Any:
    try:
        from ai_edge_litert import interpreter
    except ImportError as error:
        raise UsageError(
            f"the query tower cannot run in process, because LiteRT is missing ({error}); install "
            "ai-edge-litert, or set query_tower to model_server"
        ) from None
    return interpreter

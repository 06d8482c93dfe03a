"""Texts by an exported ONNX model: sentence encoders, or the text half of CLIP and SigLIP.

The folder holds ``model.onnx`` and ``tokenizer.json``, as exporters write them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from components.encoding.onnx_model import OnnxModel, Pooling, find_model_files
from components.encoding.settings import Device
from refit.errors import UsageError
from refit.settings import Settings

READS: Literal["text"] = "text"
CODE = "1"
INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")


class OnnxTextOptions(Settings):
    """Options of ``onnx_text``.

    Attributes:
        model: File of the model.
        tokenizer: File of the tokenizer.
        output: The output that holds the vectors; empty finds it.
        pooling: How to make one vector of those of the tokens: ``mean`` or ``first``. Empty for an
            output that has one vector.
        max_tokens: Further tokens of a text are left out.
        pad_to: Fill texts up to the ``longest`` of a batch, or to ``max_tokens``, as SigLIP needs.
        pad_id: The token to fill up with, unless the tokenizer says which.
        prefix: What stands before each text, such as ``"passage: "``.
    """

    model: str = "model.onnx"
    tokenizer: str = "tokenizer.json"
    output: str = ""
    pooling: Pooling = ""
    max_tokens: PositiveInt = 128
    pad_to: Literal["longest", "max_tokens"] = "longest"
    pad_id: int = Field(default=0, ge=0)
    prefix: str = ""


Options = OnnxTextOptions


def find_files(options: OnnxTextOptions, folder: Path | None) -> Sequence[Path]:
    """The model, its weights, and the tokenizer."""
    return find_model_files(folder, (options.model, options.tokenizer))


def open_encoder(
    options: OnnxTextOptions, folder: Path | None, device: Device, threads: int
) -> "OnnxTextEncoder":
    """Load model and tokenizer."""
    assert folder is not None  # find_files was called
    return OnnxTextEncoder(options, folder, device, threads)


class OnnxTextEncoder:
    """A text encoder that is open."""

    def __init__(
        self, options: OnnxTextOptions, folder: Path, device: Device, threads: int
    ) -> None:
        self._options = options
        path = folder / options.model
        self._model = OnnxModel(path, options.output, options.pooling, device, threads)
        self._model.require(INPUTS, "input_ids", "export the text encoder by itself")
        self._tokenizer = _open_tokenizer(folder / options.tokenizer, options)
        self.size = self._model.size

    def encode(self, contents: Sequence[str]) -> NDArray[np.float32]:
        """[B, size] vectors of texts."""
        texts = [self._options.prefix + text for text in contents]
        tokens = self._tokenizer.encode_batch(texts)
        ids = np.array([each.ids for each in tokens], dtype=np.int64)
        mask = np.array([each.attention_mask for each in tokens], dtype=np.int64)
        given = {
            "input_ids": ids,
            "attention_mask": mask,
            "token_type_ids": np.array([each.type_ids for each in tokens], dtype=np.int64),
            "position_ids": np.broadcast_to(np.arange(ids.shape[1]), ids.shape),
        }
        return self._model.run({name: given[name] for name in self._model.inputs}, mask)


def _open_tokenizer(path: Path, options: OnnxTextOptions) -> Any:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # its errors are bare ones
        raise UsageError(f"{path} is no tokenizer: {error}") from error
    tokenizer.enable_truncation(options.max_tokens)
    known = tokenizer.padding or {}
    padding = {
        name: known[name] for name in ("direction", "pad_token", "pad_type_id") if name in known
    }
    length = options.max_tokens if options.pad_to == "max_tokens" else None
    tokenizer.enable_padding(pad_id=known.get("pad_id", options.pad_id), length=length, **padding)
    return tokenizer

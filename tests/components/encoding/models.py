"""Tiny ONNX models, tokenizers and pictures whose vectors can be computed by hand."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

from refit.files import write_json

WORDS = {"[PAD]": 0, "[UNK]": 1, "red": 2, "blue": 3, "coat": 4}
VECTORS = np.array(
    [[9, 9, 9, 9], [0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 3, 4]], dtype=np.float32
)
"""By token; that of padding would show if it counted."""


def write_text_encoder(folder: Path, pooled: bool = False, table: np.ndarray = VECTORS) -> Path:
    """An encoder of texts: the vector of each token, or with ``pooled`` that of the first."""
    folder.mkdir(parents=True, exist_ok=True)
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["last_hidden_state"])]
    shape: list[str | int] = ["batch", "tokens", table.shape[1]]
    output = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, shape)
    constants = [numpy_helper.from_array(table, "table")]
    if pooled:
        nodes.append(
            helper.make_node("Gather", ["last_hidden_state", "first"], ["text_embeds"], axis=1)
        )
        constants.append(numpy_helper.from_array(np.array(0), "first"))
        shape = ["batch", table.shape[1]]
        output = helper.make_tensor_value_info("text_embeds", TensorProto.FLOAT, shape)
    inputs = [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])]
    _save(folder, nodes, inputs, [output], constants)
    tokenizer = Tokenizer(models.WordLevel(WORDS, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def write_picture_encoder(folder: Path, edge: int = 2) -> Path:
    """An encoder of pictures: their mean colour, each channel from 0 to 1."""
    folder.mkdir(parents=True, exist_ok=True)
    nodes = [
        helper.make_node("ReduceMean", ["pixel_values"], ["image_embeds"], axes=[2, 3], keepdims=0)
    ]
    shape = ["batch", 3, edge, edge]
    inputs = [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, shape)]
    output = helper.make_tensor_value_info("image_embeds", TensorProto.FLOAT, ["batch", 3])
    _save(folder, nodes, inputs, [output], [])
    write_json(
        folder / "preprocessor_config.json",
        {"size": {"height": edge, "width": edge}, "image_mean": [0, 0, 0], "image_std": [1, 1, 1]},
    )
    return folder


def _save(folder, nodes, inputs, outputs, constants) -> None:
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, constants)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), folder / "model.onnx")


def write_picture(path: Path, colour: Sequence[int]) -> Path:
    """A picture of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture_bytes(colour))
    return path


def picture_bytes(colour: Sequence[int], size: tuple[int, int] = (4, 4)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, tuple(colour)).save(buffer, "PNG")
    return buffer.getvalue()


def write_items(folder: Path, rows: Sequence[dict], name: str = "items") -> Path:
    """A dataset folder with items alone."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), folder / f"{name}.parquet")
    return folder

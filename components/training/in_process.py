"""Export of the query tower for the process that answers; see ``refit.in_process_tower``."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf

from components.training.batches import encode_catalogue, read_columns
from components.training.encoders import Tensors
from components.training.export import query_outputs, query_signature
from components.training.pairs import JoinedItemTower, JoinedQueryTower
from components.training.spectral import SpectralItemTower, SpectralQueryTower
from components.training.towers import ItemTower, QueryTower
from refit.errors import RefitError
from refit.feature_tables import ItemTable, iter_examples, pad_histories
from refit.features import FeaturesManifest, Inputs, query_inputs
from refit.files import write_json
from refit.in_process_tower import (
    MODEL_FILE,
    SIGNATURE,
    TEXTS_FILE,
    InProcessTower,
    extras_of,
)
from refit.towers import load_tower, run_tower

TOLERANCE = 1e-4
"""How far an entry of a query vector may be from the SavedModel's."""
ADVICE = "or set train.in_process_tower to false and serve the query tower on a model server"


def export_in_process_tower(
    tower: QueryTower | JoinedQueryTower | SpectralQueryTower,
    manifest: FeaturesManifest,
    content_size: int,
    base: Path,
) -> None:
    """Write the query tower as a LiteRT model beside its SavedModel, and the codes of its texts.

    Args:
        tower: The tower.
        manifest: Of the features.
        content_size: C.
        base: The tower's base folder, which has the SavedModel already.

    Raises:
        RefitError: LiteRT has no counterpart of an operation.
    """
    texts = {
        code: {"input": source, "texts": look.get_vocabulary()}
        for code, (source, look) in tower.encode.lookups.items()
    }
    signature = _coded_signature(
        query_signature(manifest.spec, content_size),
        {code: source for code, (source, _) in tower.encode.lookups.items()},
    )

    @tf.function(input_signature=[signature], autograph=False)
    def serve(coded: Tensors) -> Tensors:
        return query_outputs(tower, coded)

    write_in_process_tower(serve, tower.variables, texts, base)


def write_in_process_tower(
    serve: tf.types.experimental.PolymorphicFunction,
    variables: list[tf.Variable],
    texts: dict[str, dict[str, Any]],
    base: Path,
) -> None:
    """Convert a function of one query without texts, and write it beside a SavedModel.

    Args:
        serve: From inputs by name, of one row each, to the outputs; ``embedding`` [1, D] is one.
        variables: What it reads.
        texts: By name of a code: its text ``input``, and the ``texts`` in the order of their codes.
        base: The tower's base folder.

    Raises:
        RefitError: LiteRT has no counterpart of an operation.
    """
    module = tf.Module()
    module.held, module.serve = variables, serve
    with tempfile.TemporaryDirectory() as folder:
        signatures = {SIGNATURE: serve.get_concrete_function()}
        tf.saved_model.save(module, folder, signatures=signatures)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[SIGNATURE])
        try:
            converted = converter.convert()
        except Exception as error:  # of many kinds, with a trace of MLIR
            raise RefitError(
                f"the query tower cannot be converted for LiteRT: {_find_reason(str(error))}; "
                f"change it, {ADVICE}"
            ) from error
    extras = extras_of(base)
    extras.mkdir(parents=True)
    (extras / MODEL_FILE).write_bytes(converted)
    write_json(extras / TEXTS_FILE, texts)


def check_in_process_tower(base: Path, inputs: Inputs) -> float:
    """Check that a query tower gives the same outputs in process as its SavedModel.

    Args:
        base: The tower's base folder.
        inputs: Queries.

    Returns:
        The largest difference of an entry.

    Raises:
        RefitError: It is more than ``TOLERANCE``, or not a number.
    """
    expected, found = run_tower(load_tower(base), inputs), InProcessTower(base).run(inputs)
    gap = float(np.max([np.abs(found[name] - expected[name]).max() for name in expected]))
    if not gap <= TOLERANCE:
        raise RefitError(
            f"the query tower's outputs differ by {gap:.2g} in process from those of its "
            f"SavedModel, more than {TOLERANCE:g}; report it, {ADVICE}"
        )
    return gap


def sample_query_inputs(
    manifest: FeaturesManifest,
    features: Path,
    contents: ItemTable,
    tower: ItemTower | JoinedItemTower | SpectralItemTower,
    n: int = 256,
) -> Inputs:
    """Query inputs of examples, and of one query of which nothing is known.

    Args:
        manifest: Of the features folder.
        features: The features folder.
        contents: Its items.
        tower: Gives the items of histories their content vectors.
        n: At most this many examples, the first of the latest split that has any.
    """
    spec = manifest.spec
    batches = (
        batch for split in ("validation", "train") for batch in iter_examples(features, split, n)
    )
    examples = next(batch for batch in batches if batch.num_rows)
    nothing = pa.RecordBatch.from_pylist([{}], schema=examples.schema)
    table = pa.Table.from_batches([examples, nothing]).combine_chunks()
    history = pad_histories(table, spec.history_length)
    used, place = np.unique(np.maximum(history.item, 0), return_inverse=True)
    codes = encode_catalogue(tower.encode, manifest, ItemTable(contents.table.take(used)))
    content = tower.content(codes).numpy()[place].reshape(*history.item.shape, -1)
    return query_inputs(
        spec,
        read_columns(table, spec.context_categorical, spec.context_numeric),
        read_columns(table, spec.user_categorical, spec.user_numeric),
        content * (history.item >= 0)[:, :, None],
        history.event_type,
        history.age_days,
    )


def _find_reason(message: str) -> str:
    """The operations that LiteRT does not have, from the converter's message; else its start."""
    lines = [line.strip() for line in message.splitlines()]
    named = [line for line in lines if line.startswith(("TF Select ops", "Custom ops"))]
    return "; ".join(named or lines[:1])[:300]


def _coded_signature(
    raw: dict[str, tf.TensorSpec], sources: dict[str, str]
) -> dict[str, tf.TensorSpec]:
    """Of one query: the inputs that are no texts, and a code for each text."""
    numbers = {name: spec.shape for name, spec in raw.items() if spec.dtype == tf.float32}
    codes = {code: raw[source].shape for code, source in sources.items()}
    return {
        name: tf.TensorSpec([1, *shape[1:]], tf.int32 if name in codes else tf.float32, name)
        for name, shape in (numbers | codes).items()
    }

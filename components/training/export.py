"""Export of the towers as SavedModels that unmodified TensorFlow Serving loads."""

from pathlib import Path

import tensorflow as tf

from components.training.encoders import EVENT_CODES, Tensors
from components.training.pairs import JoinedItemTower, JoinedQueryTower
from components.training.spectral import SpectralItemTower, SpectralQueryTower
from components.training.towers import ItemTower, QueryTower
from refit.features import REPEATS, FeaturesManifest, FeatureSpec

VERSION = "1"


def item_signature(manifest: FeaturesManifest) -> dict[str, tf.TensorSpec]:
    """Item tower inputs, see ``refit.features.item_inputs``."""
    spec = manifest.spec
    names = ["item_id", *(f"item_{c}" for c in (*spec.item_categorical, *spec.item_text))]
    signature = {name: _column(name, tf.string) for name in names}
    for c in spec.item_numeric:
        signature[f"item_{c}"] = _column(f"item_{c}", tf.float32)
    if manifest.vector_size:
        signature["item_vector"] = _block("item_vector", manifest.vector_size)
    signature["item_age_days"] = _column("item_age_days", tf.float32)
    signature["item_popularity"] = _block("item_popularity", manifest.popularity_size)
    return signature


def query_signature(spec: FeatureSpec, content_size: int) -> dict[str, tf.TensorSpec]:
    """Query tower inputs, see ``refit.features.query_inputs``."""
    signature = {}
    for side, categorical, numeric in (
        ("context", spec.context_categorical, spec.context_numeric),
        ("user", spec.user_categorical, spec.user_numeric),
    ):
        for columns, kind in ((categorical, tf.string), (numeric, tf.float32)):
            for column in columns:
                signature[f"{side}_{column}"] = _column(f"{side}_{column}", kind)
    length = spec.history_length
    signature["history_content"] = _block("history_content", length, content_size)
    signature["history_event_type"] = tf.TensorSpec([None, length], tf.string, "history_event_type")
    signature["history_age_days"] = _block("history_age_days", length)
    return signature


def export_item_tower(
    tower: ItemTower | JoinedItemTower | SpectralItemTower, manifest: FeaturesManifest, folder: Path
) -> None:
    """Write ``folder``/1: from raw item inputs to ``embedding`` [B, D] and ``content`` [B, C]."""
    signature = item_signature(manifest)

    @tf.function(input_signature=[signature], autograph=False)
    def serve(inputs: Tensors) -> Tensors:
        return tower(inputs)

    _save(tower, serve, folder)


def export_query_tower(
    tower: QueryTower | JoinedQueryTower | SpectralQueryTower,
    manifest: FeaturesManifest,
    content_size: int,
    folder: Path,
) -> None:
    """Write ``folder``/1: from raw query inputs to what ``query_outputs`` gives."""
    signature = query_signature(manifest.spec, content_size)

    @tf.function(input_signature=[signature], autograph=False)
    def serve(inputs: Tensors) -> Tensors:
        return query_outputs(tower, {**inputs, **tower.encode.look_up(inputs)})

    _save(tower, serve, folder)


def query_outputs(
    tower: QueryTower | JoinedQueryTower | SpectralQueryTower, coded: Tensors
) -> Tensors:
    """``embedding`` [B, D] and, where the tower weighs repeats, ``repeats`` [B, L].

    Args:
        tower: The tower.
        coded: Inputs whose texts were looked up.
    """
    outputs = {"embedding": tower.embed_coded(coded)}
    repeats = tower.weigh_repeats(coded[EVENT_CODES], coded["history_age_days"])
    return outputs if repeats is None else outputs | {REPEATS: repeats}


def _save(
    tower: tf.keras.layers.Layer, serve: tf.types.experimental.PolymorphicFunction, folder: Path
) -> None:
    """Save the serving function with its variables and tables.

    Saving the whole Keras layer would also trace and save the functions of each of its parts, which
    multiplies the size of the files and the time to write and load them.
    """
    module = tf.Module()
    module.held = tower.variables
    module.tables = [part.lookup_table for part in tower.submodules if _is_lookup(part)]
    module.serve = serve
    tf.saved_model.save(
        module,
        str(folder / VERSION),
        signatures={"serving_default": serve.get_concrete_function()},
    )


def _is_lookup(part: tf.Module) -> bool:
    return isinstance(part, tf.keras.layers.StringLookup)


def _column(name: str, kind: tf.DType) -> tf.TensorSpec:
    return tf.TensorSpec([None], kind, name)


def _block(name: str, *shape: int) -> tf.TensorSpec:
    return tf.TensorSpec([None, *shape], tf.float32, name)

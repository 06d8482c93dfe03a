"""Run an exported tower in this process; TensorFlow is imported when a tower is loaded."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refit.errors import RefitError
from refit.features import Inputs

Outputs = dict[str, NDArray[np.float32]]
DEVICE = "CPU"
"""Where towers run, whatever trained them: a GPU would round products to fewer digits than the
servers that compare with these vectors."""


def load_tower(base: Path) -> Any:
    """Load the newest version of a SavedModel.

    Args:
        base: Its base folder, with integer version folders as TensorFlow Serving requires.

    Raises:
        RefitError: The base folder has no version folder.
    """
    versions = sorted(int(p.name) for p in base.glob("*") if p.name.isdigit())
    if not versions:
        raise RefitError(f"{base} holds no version of a SavedModel; train and export the towers")
    tf = import_tensorflow()
    with tf.device(DEVICE):
        return tf.saved_model.load(str(base / str(versions[-1])))


def import_tensorflow() -> Any:
    """Import TensorFlow without Keras, which no SavedModel needs and which takes another second.

    Keras can still be imported later.
    """
    modules: dict[str, Any] = sys.modules
    absent = {"keras", "tf_keras"} - modules.keys()
    modules |= dict.fromkeys(absent)  # None marks a module as missing, which TensorFlow accepts
    try:
        import tensorflow as tf
    finally:
        for name in absent:
            del modules[name]
    return tf


def run_tower(tower: Any, inputs: Inputs, batch_size: int = 2048) -> Outputs:
    """Run a tower's serving signature over N rows, ``batch_size`` at a time.

    Args:
        tower: Result of ``load_tower``; keep a reference to it while it runs.
        inputs: Arrays of N rows each; see ``refit.features``.
        batch_size: Maximum number of rows per call.

    Returns:
        The outputs of the signature by name, each [N, ...].
    """
    import tensorflow as tf

    run = tower.signatures["serving_default"]
    n = len(next(iter(inputs.values())))
    parts = []
    for start in range(0, max(n, 1), batch_size):
        rows = slice(start, start + batch_size)
        batch = {name: tf.constant(_fed(values[rows])) for name, values in inputs.items()}
        with tf.device(DEVICE):
            parts.append({name: value.numpy() for name, value in run(**batch).items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _fed(values: NDArray[Any]) -> NDArray[Any]:
    """Convert an empty text array to bytes; TensorFlow cannot infer a type from empty objects."""
    return values.astype("S") if values.dtype == object and not values.size else values

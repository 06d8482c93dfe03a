import os
import subprocess
import sys

SCRIPT = """
import sys
from refit.towers import import_tensorflow
import_tensorflow()
assert not {"keras", "tf_keras"} & sys.modules.keys()
import tensorflow as tf
print(tf.keras.layers.Dense.__module__)
"""


def test_tensorflow_is_imported_without_keras_and_keras_on_demand() -> None:
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("tf_keras.")

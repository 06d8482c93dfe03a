"""The parts of TensorFlow Recommenders that training uses; no other module imports it.

TensorFlow Recommenders needs Keras 2, which TensorFlow takes only if TF_USE_LEGACY_KERAS is 1 when
it is imported. Importing this module checks that first.
"""

import os
import sys

from refit.errors import UsageError


def require_legacy_keras() -> None:
    """Make TensorFlow use Keras 2, if it is not imported yet, and check that it does.

    Raises:
        UsageError: It does not.
    """
    if "tensorflow" not in sys.modules:
        os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    if os.environ.get("TF_USE_LEGACY_KERAS") != "1":
        raise UsageError(
            "TensorFlow Recommenders needs Keras 2: set TF_USE_LEGACY_KERAS=1 in the environment "
            "before TensorFlow is imported (the images do), and start again"
        )


require_legacy_keras()

import tensorflow_recommenders as tfrs  # noqa: E402 - after the check

Model = tfrs.Model
RetrievalTask = tfrs.tasks.Retrieval

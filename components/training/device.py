"""Where TensorFlow trains."""

import os

from components.training.settings import Device
from refit.errors import UsageError


def use_device(device: Device) -> None:
    """Make TensorFlow use a device; call it before TensorFlow runs anything in this process.

    On a CPU two trainings are bit-identical. On a GPU they are not: operations may fail there in
    TensorFlow's deterministic mode, or be moved to the CPU. One GPU is used; its products are
    TensorFloat-32 where it has that, as is TensorFlow's default.

    Raises:
        UsageError: The device is a GPU, and TensorFlow sees none.
    """
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if device == "gpu" and not gpus:
        raise UsageError(f"training.device is gpu, but TensorFlow sees no GPU: {_advise()}")
    tf.config.set_visible_devices(gpus[:1] if device == "gpu" else [], "GPU")
    if device == "cpu":
        # Otherwise reductions over threads add in another order each time.
        tf.config.experimental.enable_op_determinism()


def _advise() -> str:
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden in ("", "-1"):
        return f"CUDA_VISIBLE_DEVICES is {hidden!r}; unset it, or set training.device to cpu"
    return (
        "run the step where there is one, in the image refit/main-gpu, which has CUDA, or set "
        "training.device to cpu; with TF_CPP_MIN_LOG_LEVEL=0 TensorFlow logs what it misses"
    )

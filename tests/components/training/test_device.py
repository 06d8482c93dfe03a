"""Where the towers are trained. No GPU is there: what is tested is that this is said at once."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from tensorflow.python.framework.config import is_op_determinism_enabled
from tensorflow.python.framework.kernels import get_registered_kernels_for_op

from components.training.batches import Batches, encode_catalogue, write_examples
from components.training.device import use_device
from components.training.model import TwoTowerModel
from components.training.optimizer import FusedAdam
from components.training.snapshots import Snapshots
from components.training.train import _Step, measure_epochs, train
from components.training.vocabulary import learn_vocabulary
from refit.errors import UsageError
from refit.feature_tables import read_catalogue, read_snapshot
from refit.features import FeaturesManifest
from tests.components.training.conftest import SMALL

ON_A_GPU = SMALL.model_copy(update={"device": "gpu"})


def test_a_gpu_that_is_not_there_is_an_error_before_anything_is_read(tmp_path: Path) -> None:
    nothing = tmp_path / "no-features"
    with pytest.raises(UsageError, match="sees no GPU: CUDA_VISIBLE_DEVICES is '-1'; unset it"):
        train(ON_A_GPU, nothing, tmp_path / "model")
    with pytest.raises(UsageError, match=r"training\.device is gpu, but TensorFlow sees no GPU"):
        measure_epochs(ON_A_GPU, nothing, tmp_path, lambda epochs, new: True)
    assert not list(tmp_path.iterdir())


def test_the_advice_names_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    with pytest.raises(UsageError, match=r"in the image refit/main-gpu, .* TF_CPP_MIN_LOG_LEVEL=0"):
        use_device("gpu")


def test_on_a_cpu_no_gpu_is_used_and_operations_are_deterministic() -> None:
    use_device("cpu")
    assert tf.config.get_visible_devices("GPU") == []
    assert is_op_determinism_enabled()


@cache
def kernels(op: str) -> list[Any]:
    """The kernels for a GPU that this TensorFlow has of an operation, with a GPU or without."""
    found = get_registered_kernels_for_op(op).kernel
    return [kernel for kernel in found if kernel.device_type in ("GPU", "DEFAULT")]


def types(node: Any, name: str) -> set[int]:
    value = node.attr[name]
    return {value.type} if value.WhichOneof("value") == "type" else set(value.list.type)


def runs_on_a_gpu(node: Any) -> bool:
    return any(
        all(types(node, c.name) <= set(c.allowed_values.list.type) for c in kernel.constraint)
        for kernel in kernels(node.op)
    )


@pytest.mark.parametrize("history", ["pooled", "sequence"])
def test_every_operation_of_a_step_has_a_kernel_for_a_gpu(
    features: Path, tmp_path: Path, history: str
) -> None:
    """TensorFlow's package has CUDA's kernels, so that this can be told without a GPU."""
    settings = SMALL.model_copy(
        update={"history": history, "history_masked": 0.2, "weight_decay": 0.01}
    )
    manifest, items = FeaturesManifest.read(features), read_catalogue(features)
    popularity = read_snapshot(features, 3)[2]
    known = learn_vocabulary(manifest, features, items, ("train",), popularity, 9)
    model = TwoTowerModel(settings, manifest, known)
    assert model.lazy_ids is not None
    examples = write_examples(
        model.query_tower.encode, manifest, features, ("train",), tmp_path / "examples"
    )
    encoded = encode_catalogue(model.item_tower.encode, manifest, items)
    catalogue = {name: tf.constant(values) for name, values in encoded.items()}
    model.compile(FusedAdam(0.01, settings.weight_decay))
    step = _Step(model, Batches(settings, examples, Snapshots(manifest, features, 1)), catalogue)
    graph = step._run.get_concrete_function().graph.as_graph_def()
    nodes = [*graph.node, *(node for each in graph.library.function for node in each.node_def)]
    assert {"ResourceScatterSub", "ResourceApplyAdam", "MatMul"} <= {node.op for node in nodes}
    missing = {node.op: types(node, "T") for node in nodes if not runs_on_a_gpu(node)}
    # The words' buckets, which TensorFlow has in the host's memory.
    assert missing == {"Split": {tf.int32.as_datatype_enum}}

"""Steps that are to run on a GPU get one, and no others do; refused when a run is submitted."""

import pytest

from components.encoding.settings import EncodingSettings
from pipelines.cluster.devices import TRAINS, check_devices
from pipelines.cluster.settings import ClusterSettings
from pipelines.cluster.submit import SETTINGS_OF
from pipelines.settings import RunSettings, read_settings
from refit.errors import UsageError

LEAST = {"registry": "s3://refit/registry"}
TITLES = {"encoder": "wordllama", "columns": ["title"]}


def cluster(*steps: str) -> ClusterSettings:
    """A cluster that gives these steps a GPU."""
    gpu = {"count": 1, "steps": list(steps)} if steps else {}
    return ClusterSettings.parse(LEAST | {"gpu": gpu})


def run(training: str = "cpu", *encoders: str) -> RunSettings:
    """Settings with the devices of the training and of encoders."""
    settings = read_settings("simulated", [f"training.device={training}"])
    encoding = EncodingSettings.parse(
        {"encoders": [TITLES | {"device": device} for device in encoders]}
    )
    return settings.model_copy(update={"encoding": encoding})


@pytest.mark.parametrize(
    ("pipeline", "settings", "steps"),
    [
        *((pipeline, run(), ()) for pipeline in SETTINGS_OF),
        *((pipeline, run("gpu"), ("train_towers", "tune_towers")) for pipeline in TRAINS),
        ("tuning", run("gpu"), ("tune_towers",)),
        ("continuous_training", run("cpu", "cpu", "gpu"), ("encode_listings",)),
        ("index_refresh", run("gpu", "gpu"), ("encode_listings",)),
        # What has no step that trains has nothing to do with the device of the training.
        ("index_refresh", run(), ("train_towers",)),
        ("drift_monitoring", run("gpu", "gpu"), ()),
        # The champion may have encoders on a GPU that the config has no longer.
        ("index_refresh", run(), ("encode_listings",)),
    ],
)
def test_what_fits(pipeline, settings, steps):
    check_devices(pipeline, settings, cluster(*steps))


@pytest.mark.parametrize(
    ("pipeline", "settings", "steps", "words"),
    [
        ("continuous_training", run("gpu"), (), "training.device is gpu, but train_towers gets no"),
        ("backtest", run("gpu"), ("tune_towers",), "name train_towers in gpu.steps"),
        ("tuning", run("gpu"), ("train_towers",), "tune_towers gets no GPU"),
        ("continuous_training", run(), ("train_towers",), "it would leave idle: set training.devi"),
        ("tuning", run(), ("train_towers", "tune_towers"), "tune_towers gets a GPU that it would"),
        ("index_refresh", run("cpu", "gpu"), (), "the device of an encoder is gpu, but encode_li"),
        ("continuous_training", run("cpu", "cpu"), ("encode_listings",), "leave encode_listings"),
        ("backtest", run(), ("encode_listings",), "encode_listings gets a GPU that it would leave"),
    ],
)
def test_what_does_not_fit_is_refused(pipeline, settings, steps, words):
    with pytest.raises(UsageError, match=words):
        check_devices(pipeline, settings, cluster(*steps))


def test_a_gpu_of_no_step_is_none():
    settings = cluster("train_towers")
    assert settings.gives_gpu("train_towers")
    assert not settings.gives_gpu("tune_towers")
    off = settings.model_copy(update={"gpu": settings.gpu.model_copy(update={"count": 0})})
    assert not off.gives_gpu("train_towers")
    with pytest.raises(UsageError, match="gets no GPU"):
        check_devices("continuous_training", run("gpu"), off)

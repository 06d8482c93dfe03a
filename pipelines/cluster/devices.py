"""Whether the steps that are to run on a GPU get one, and no others do."""

from collections.abc import Iterator

from pipelines.cluster.settings import ClusterSettings
from pipelines.settings import RunSettings
from refit.errors import UsageError

TRAINS = {
    "continuous_training": "train_towers",
    "backtest": "train_towers",
    "tuning": "tune_towers",
}
"""The step of each pipeline that trains."""
ENCODES = "encode_listings"


def check_devices(pipeline: str, settings: RunSettings, cluster: ClusterSettings) -> None:
    """Check that what a run asks for is what the cluster gives to its steps.

    An index refresh encodes as the champion's training did, whose settings are not known here: that
    its step gets a GPU in vain is not noticed.

    Raises:
        UsageError: A step is to run on a GPU and gets none, which would end it when data were read
            already, or gets one and runs on the CPU, so that it would be paid for and idle.
    """
    for setting, uses_gpu, step in _uses(pipeline, settings):
        gets_gpu = cluster.gives_gpu(step)
        if uses_gpu and not gets_gpu:
            raise UsageError(
                f"{setting} is gpu, but {step} gets no GPU: set gpu.count to 1 in the cluster file "
                f"and name {step} in gpu.steps, or set {setting} to cpu"
            )
        if gets_gpu and not uses_gpu and (pipeline, step) != ("index_refresh", ENCODES):
            raise UsageError(
                f"{step} gets a GPU that it would leave idle: set {setting} to gpu, or leave "
                f"{step} out of gpu.steps in the cluster file (gpu.count: 0 gives none to any step)"
            )


def _uses(pipeline: str, settings: RunSettings) -> Iterator[tuple[str, bool, str]]:
    """Of each step that may run on a GPU: the setting that says so, whether it does, the step."""
    if pipeline == "drift_monitoring":
        return
    if pipeline in TRAINS:
        yield "training.device", settings.training.device == "gpu", TRAINS[pipeline]
    devices = [each.device for each in settings.encoding.encoders]
    yield "the device of an encoder", "gpu" in devices, ENCODES

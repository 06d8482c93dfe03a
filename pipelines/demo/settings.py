"""Settings of the demo."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from refit.settings import Settings


class DemoSettings(Settings):
    """What the demo does, and for how long.

    Attributes:
        source: ``simulated``, or ``renttherunway`` to replay real rentals.
        data: Folder of the real data; not used for the simulated marketplace.
        out: Folder for everything that the demo writes; an earlier demo there is removed.
        seed: Of the simulated marketplace, or of the sample of rentals that are replayed.
        past_days: Number of simulated days before the first training.
        window_days: Number of the latest simulated days that a training reads.
        live_steps: Number of steps with recommendations: days, or weeks of a replay.
        change: Name of the simulated change; empty for none.
        change_step: The step at which it begins.
        requests_per_step: Number of requests sent to the server in one step.
        at_once: Number of simulated shoppers who send a request at the same time.
        monitor_every: Number of steps between two runs of the monitor; when it starts no refit,
            the index is refreshed after it.
        k: Number of items requested.
    """

    source: Literal["simulated", "renttherunway"] = "simulated"
    data: Path | None = None
    out: Path = Path("build/demo")
    seed: int = 7
    past_days: int = Field(default=40, ge=10)
    window_days: int = Field(default=28, ge=20)
    live_steps: int = Field(default=20, ge=2)
    change: str = "new_category_wave"
    change_step: int = Field(default=7, ge=0)
    requests_per_step: int = Field(default=150, ge=20)
    at_once: int = Field(default=4, ge=1)
    monitor_every: int = Field(default=8, ge=1)
    k: int = Field(default=10, ge=1, le=100)

    @model_validator(mode="after")
    def _check_data(self) -> Self:
        if self.source != "simulated" and (self.data is None or not self.data.is_dir()):
            raise ValueError("a replay needs the folder of the data: --data FOLDER")
        return self

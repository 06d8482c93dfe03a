"""What the demo does, and how long."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from refit.settings import Settings


class DemoSettings(Settings):
    """The demo's story.

    Attributes:
        source: ``simulated``, or ``renttherunway`` to replay real rentals.
        data: Folder of the real data; not used for the simulated marketplace.
        out: Where everything goes; an earlier demo there is removed.
        seed: Of the simulated marketplace, or of the sample of rentals that are replayed.
        past_days: Simulated days before the first training.
        window_days: A training sees so many of the latest simulated days.
        live_steps: Steps lived with recommendations: days, or weeks of a replay.
        change: The simulated change that sets in; empty for none.
        change_step: The step that it sets in at.
        requests_per_step: Requests sent to the server in one step.
        at_once: Simulated shoppers who ask at the same moment.
        monitor_every: Steps between two looks at drift; the index is refreshed after one without a
            refit.
        k: Items asked for.
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

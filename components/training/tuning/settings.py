"""Settings of ``refit tune``: the budget, and which settings are tried in which ranges."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Self

from pydantic import Field, model_validator

from components.training.settings import TrainSettings
from refit.errors import UsageError
from refit.features import FeatureSpec
from refit.settings import FiniteSettings

TRAINING = "training."
HISTORY_LENGTH = "features.spec.history_length"
FIXED = (
    "towers",
    "device",
    "seed",
    "tower_pairs",
    "recall_at",
    "validation_examples",
    "final_fit",
    "choose_epochs",
    "patience",
    "resume",
    "in_process_tower",
    "snapshot_cache_mb",
)
"""Settings that are never tried: what is measured, seeds and how many there are, and what changes
no tower."""
OF_IDS = tuple(f"{TRAINING}{name}" for name in ("id_dropout", "id_l2"))
"""Settings that mean nothing without id embeddings."""
ID_EMBEDDING = f"{TRAINING}id_embedding"
NO_IDS = "never"
Value = bool | int | float | str


class TriedValues(FiniteSettings):
    """The values of one setting that are tried: either between two bounds, or some values.

    Attributes:
        low: The smallest value.
        high: The largest value.
        log: Draw by ratio instead of by difference, for settings whose size is not known.
        values: The values, instead of bounds.
    """

    low: float | None = None
    high: float | None = None
    log: bool = False
    values: tuple[Value, ...] = ()

    @model_validator(mode="after")
    def _has_one_form(self) -> Self:
        if self.values:
            if self.low is not None or self.high is not None or self.log:
                raise ValueError("give either values, or low and high")
            if len(set(map(repr, self.values))) < len(self.values):
                raise ValueError("a value is given twice")
            return self
        if self.low is None or self.high is None:
            raise ValueError("needs low and high, or values")
        if self.low >= self.high:
            raise ValueError("low must be below high")
        if self.log and self.low <= 0:
            raise ValueError("log needs a low above 0")
        return self

    @property
    def largest(self) -> float:
        """The largest number that is tried."""
        numbers = [value for value in self.values if isinstance(value, int | float)]
        return max([*numbers, *([] if self.high is None else [self.high])], default=0.0)

    def widened(self, value: Any) -> "TriedValues":
        """The range, with this value in it."""
        if self.low is None or self.high is None:
            known = any(type(each) is type(value) and each == value for each in self.values)
            return self if known else TriedValues(values=(*self.values, value))
        return TriedValues(
            low=min(self.low, value),
            high=max(self.high, value),
            log=self.log and value > 0,  # by ratio, nothing comes near 0
        )

    def describe(self) -> str:
        """The range in words, such as ``0.001 to 0.02, by ratio``."""
        if self.values:
            return ", ".join(_plain(value) for value in self.values)
        return f"{_plain(self.low)} to {_plain(self.high)}{', by ratio' if self.log else ''}"


DEFAULT_SPACE: Mapping[str, TriedValues] = {
    f"{TRAINING}learning_rate": TriedValues(low=0.001, high=0.02, log=True),
    f"{TRAINING}temperature": TriedValues(low=0.05, high=0.5, log=True),
    f"{TRAINING}learned_size": TriedValues(values=(24, 48, 96)),
    f"{TRAINING}content_size": TriedValues(values=(16, 32, 64)),
    f"{TRAINING}hidden_size": TriedValues(values=(32, 64, 128)),
    f"{TRAINING}dropout": TriedValues(low=0.0, high=0.5),
    f"{TRAINING}batch_size": TriedValues(values=(512, 1024, 2048, 4096)),
    f"{TRAINING}uniform_negatives": TriedValues(values=(512, 2048, 8192)),
    f"{TRAINING}correct_sampling": TriedValues(values=(True, False)),
    f"{TRAINING}recency_half_life_days": TriedValues(low=15.0, high=720.0, log=True),
    f"{TRAINING}gate_l2": TriedValues(low=1e-6, high=1e-2, log=True),
    ID_EMBEDDING: TriedValues(values=("always", "never")),
    f"{TRAINING}id_dropout": TriedValues(low=0.0, high=0.5),
    f"{TRAINING}id_l2": TriedValues(low=1e-4, high=1e-1, log=True),
}
"""What is tried unless a config says otherwise: what raised or lowered recall most, and the sizes.

A larger ``learned_size`` makes every search slower: narrow it where that matters. ``max_epochs``
is not here, since the number of epochs is chosen.
"""


class TuneSettings(FiniteSettings):
    """How settings are chosen on the validation split.

    Attributes:
        minutes: The budget of one worker. A trial under way is stopped after the epoch in which the
            budget ends, and the page says so. A larger budget later continues the same study.
        trials: No further trial begins after this many, of all workers. None: the budget decides.
        workers: Workers that a cluster runs at the same time, on one study; each has the whole
            budget. One machine runs one worker, since a training uses all its cores.
        seed: Seed of what is drawn. The trainings have ``training.seed``.
        random_trials: So many trials are drawn at random before earlier trials guide the draws.
        full_trials: So many trials run to their end before any is stopped early.
        only: The settings that are tried, by name, such as ``training.dropout``. None given: all of
            the default space and of ``space``.
        space: By the name of a setting, the values that are tried, in the place of its default
            range or in addition: ``{training.dropout: {low: 0, high: 0.3}}``. The config's own
            value is always tried. Beside the training's settings ``features.spec.history_length``
            can be tried, up to the length that the config has.
        storage: A database in which the study is kept, ``postgresql+psycopg://USER@HOST/DATABASE``,
            with its password in PGPASSWORD; several workers need one. Empty: a file in the home, on
            a cluster on the claim of the checkpoints.
    """

    minutes: float = Field(default=60.0, gt=0.0)
    trials: int | None = Field(default=None, ge=1)
    workers: int = Field(default=1, ge=1, le=100)
    seed: int = Field(default=0, ge=0)
    random_trials: int = Field(default=8, ge=1)
    full_trials: int = Field(default=4, ge=1)
    only: tuple[str, ...] = ()
    space: dict[str, TriedValues] = {}
    storage: str = ""

    @model_validator(mode="after")
    def _check_space(self) -> Self:
        for name, values in self.space.items():
            _check_name("space", name, SEARCHABLE)
            _check_values(name, values)
        for name in self.only:
            _check_name("only", name, sorted({*DEFAULT_SPACE, *self.space}))
        if len(set(self.only)) < len(self.only):
            raise ValueError("only: a setting is named twice")
        return self

    @model_validator(mode="after")
    def _check_storage(self) -> Self:
        if not self.storage:
            return self
        from refit.database import POSTGRESQL, parse_place

        try:
            driver = parse_place(self.storage, "the study").drivername
        except UsageError as error:
            raise ValueError(f"storage: {error}") from None
        if driver not in POSTGRESQL:
            raise ValueError("storage: give a PostgreSQL database, or leave it empty for a file")
        return self

    def of_space(self) -> dict[str, TriedValues]:
        """The settings that are tried, with their ranges, in a fixed order."""
        space = {**DEFAULT_SPACE, **self.space}
        return {name: each for name, each in space.items() if not self.only or name in self.only}


SEARCHABLE = (
    *(f"{TRAINING}{name}" for name in TrainSettings.model_fields if name not in FIXED),
    HISTORY_LENGTH,
)
"""Names of all settings that can be tried."""


def _check_name(where: str, name: str, known: tuple[str, ...] | list[str]) -> None:
    if name in known:
        return
    if name.removeprefix(TRAINING) in FIXED:
        raise ValueError(
            f"{where}: {name} is not tried: it changes what is measured or what "
            "it costs, or no tower"
        )
    close = get_close_matches(name, [*known, *(each.removeprefix(TRAINING) for each in known)], n=1)
    full = [each for each in known if close and each.removeprefix(TRAINING) == close[0]]
    hint = f"did you mean {(full or close)[0]}?" if close else f"there are {', '.join(known)}"
    raise ValueError(f"{where}: no setting {name!r} can be tried; {hint}")


def _check_values(name: str, values: TriedValues) -> None:
    """Check that the setting takes every value, of its own type."""
    cls = FeatureSpec if name == HISTORY_LENGTH else TrainSettings
    field = name.rpartition(".")[2]
    default = cls.model_fields[field].default
    for value in values.values or (values.low, values.high):
        try:
            cls.parse({field: as_kind_of(default, value)})
        except UsageError as error:
            message = str(error).removeprefix(f"{cls.__name__}: {field}: ")
            raise ValueError(f"space: {name}: {message}") from None


def as_kind_of(default: Any, value: Any) -> Any:
    """A number as a whole one, if it is one and the setting is."""
    is_whole = isinstance(value, float) and value.is_integer()
    return int(value) if is_whole and type(default) is int else value


def _plain(value: Value | None) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)

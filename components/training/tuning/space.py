"""What a study tries: the config's own settings, and ranges around them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from components.training.settings import TrainSettings
from components.training.tuning.settings import (
    HISTORY_LENGTH,
    ID_EMBEDDING,
    NO_IDS,
    OF_IDS,
    TRAINING,
    TriedValues,
    TuneSettings,
)
from refit.errors import UsageError
from refit.features import FeaturesManifest

if TYPE_CHECKING:
    import optuna

DIGITS = 4
"""Significant digits of what is drawn, so that a config reads well."""


@dataclass(frozen=True)
class Space:
    """The settings that are tried.

    Attributes:
        own: The config's own training settings.
        history_length: The length of the histories in its features.
        ranges: By the name of a setting, its range; the own value belongs to it.
    """

    own: TrainSettings
    history_length: int
    ranges: Mapping[str, TriedValues]

    @classmethod
    def of(cls, tuning: TuneSettings, own: TrainSettings, manifest: FeaturesManifest) -> "Space":
        """The space of these settings.

        Raises:
            UsageError: Longer histories would be tried than the features have.
        """
        length = manifest.spec.history_length
        ranges = tuning.of_space()
        if own.id_embedding == NO_IDS and ID_EMBEDDING not in ranges:
            ranges = {name: each for name, each in ranges.items() if name not in OF_IDS}
        lengths = ranges.get(HISTORY_LENGTH)
        if lengths and lengths.largest > length:
            raise UsageError(
                f"tuning.space: {HISTORY_LENGTH} is tried up to the config's own, {length}; raise "
                "that one, or narrow the range"
            )
        plain = cls(own, length, {})
        return cls(own, length, {n: each.widened(plain.value(n)) for n, each in ranges.items()})

    def value(self, name: str) -> Any:
        """The own value of a setting."""
        if name == HISTORY_LENGTH:
            return self.history_length
        return getattr(self.own, name.removeprefix(TRAINING))

    def own_values(self) -> dict[str, Any]:
        """The own value of every setting that is tried."""
        return {name: self.value(name) for name in self._ordered() if self._counts(name, {})}

    def draw(self, trial: "optuna.Trial") -> dict[str, Any]:
        """Draw a value of each setting; those of ids only where there are id embeddings."""
        drawn: dict[str, Any] = {}
        for name in self._ordered():
            if self._counts(name, drawn):
                drawn[name] = _round(self._draw(trial, name))
        return drawn

    def settings(self, values: Mapping[str, Any]) -> TrainSettings:
        """The training settings of a trial.

        Raises:
            UsageError: They contradict each other.
        """
        changes = {
            name.removeprefix(TRAINING): value
            for name, value in values.items()
            if name.startswith(TRAINING)
        }
        return TrainSettings.parse({**self.own.model_dump(mode="json"), **changes})

    def _ordered(self) -> list[str]:
        return sorted(self.ranges, key=lambda name: name in OF_IDS)

    def _counts(self, name: str, drawn: Mapping[str, Any]) -> bool:
        return name not in OF_IDS or drawn.get(ID_EMBEDDING, self.own.id_embedding) != NO_IDS

    def _draw(self, trial: "optuna.Trial", name: str) -> Any:
        each = self.ranges[name]
        if each.low is None or each.high is None:
            return trial.suggest_categorical(name, list(each.values))
        if type(self.value(name)) is int:
            return trial.suggest_int(name, int(each.low), int(each.high), log=each.log)
        return trial.suggest_float(name, each.low, each.high, log=each.log)


def describe_values(values: Mapping[str, Any]) -> str:
    """Settings in a line, such as ``dropout 0.2, id_embedding always``."""
    return ", ".join(f"{short_name(name)} {show_value(value)}" for name, value in values.items())


def short_name(name: str) -> str:
    """The name of a setting without its section."""
    return name.rpartition(".")[2]


def show_value(value: Any) -> str:
    """A value as a config has it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.{DIGITS}g}" if isinstance(value, float) else str(value)


def _round(value: Any) -> Any:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value

"""What a study found: its trials, the best settings, and what each setting matters."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from components.training.settings import TrainSettings
from components.training.tuning.settings import TuneSettings
from components.training.tuning.space import Space, show_value
from components.training.tuning.study import (
    FAILED,
    MEASURED,
    OUT_OF_TIME,
    PRUNED,
    open_study,
    outcome_of,
)
from refit.errors import RefitError
from refit.feature_tables import examples_file
from refit.features import FeaturesManifest
from refit.settings import Settings

if TYPE_CHECKING:
    import optuna

ENOUGH = 10
"""Measured trials without which nothing is said of what a setting matters."""


class TriedSettings(Settings):
    """One trial.

    Attributes:
        number: Its number in the study.
        own: Whether it has the config's own settings.
        outcome: How it ended; only a ``measured`` one can be chosen.
        recall: What counts of it: validation recall of the epoch that would be exported. Of one
            that was stopped, the best so far; None where nothing was measured.
        epochs: Validation recall after each epoch.
        seconds: What it took.
        values: By setting, its value.
        reason: Why it failed.
    """

    number: int
    own: bool
    outcome: str
    recall: float | None
    epochs: tuple[float, ...]
    seconds: float
    values: dict[str, Any]
    reason: str = ""


class TuneResults(Settings):
    """A study's results.

    Attributes:
        study: Its key.
        recall_at: The K of recall@K.
        n_examples: Validation examples that a recall is measured on.
        minutes: The budget of each worker.
        ranges: By setting, what was tried, in words.
        trials: Every trial, in order; killed ones are left out, since they were tried again.
        importance: By setting, how much it decides which trials are among the best, as a share.
        no_importance: Why there is none.
        changes: By setting, the chosen value where it is not the config's own.
        before: The config's own values of these settings.
    """

    study: str
    recall_at: int
    n_examples: int
    minutes: float
    ranges: dict[str, str]
    trials: tuple[TriedSettings, ...]
    importance: dict[str, float] = {}
    no_importance: str = ""
    changes: dict[str, Any] = {}
    before: dict[str, Any] = {}

    @property
    def own(self) -> TriedSettings | None:
        """The trial of the config's own settings; None if it was not measured."""
        return next((t for t in self.trials if t.own and t.outcome == MEASURED), None)

    @property
    def best(self) -> TriedSettings:
        """The measured trial with the highest recall, the first of several."""
        return _best(self.trials)

    @property
    def counts(self) -> dict[str, int]:
        """Number of trials by how they ended."""
        outcomes = [trial.outcome for trial in self.trials]
        return {name: outcomes.count(name) for name in dict.fromkeys(outcomes)}

    @property
    def seconds(self) -> float:
        """What all trials took together."""
        return sum(trial.seconds for trial in self.trials)

    @property
    def standard_error(self) -> float:
        """Standard error of the best recall over the validation examples, as if independent."""
        recall = self.best.recall or 0.0
        return math.sqrt(recall * (1 - recall) / self.n_examples)


def read_results(
    tuning: TuneSettings, training: TrainSettings, features: Path, place: str, key: str
) -> TuneResults:
    """Read what a study has found so far.

    Args:
        tuning: The budget and the space.
        training: The config's own settings.
        features: The features folder, for the number of validation examples.
        place: Where the study is kept.
        key: The study's key.

    Raises:
        RefitError: No trial was measured.
    """
    space = Space.of(tuning, training, FeaturesManifest.read(features))
    study = open_study(place, key)
    trials = tuple(
        _describe(trial)
        for trial in study.get_trials(deepcopy=False)
        if outcome_of(trial) in (MEASURED, PRUNED, OUT_OF_TIME, FAILED)
    )
    if not any(trial.outcome == MEASURED for trial in trials):
        raise RefitError(
            "no settings were measured to the end of their training within the budget: raise "
            f"tuning.minutes, which is {tuning.minutes:g}"
        )
    importance, why = _importance(study, trials)
    rows = pq.read_metadata(features / examples_file("validation")).num_rows
    changes = {
        name: value for name, value in _best(trials).values.items() if space.value(name) != value
    }
    return TuneResults(
        study=key,
        recall_at=training.recall_at,
        n_examples=min(rows, training.validation_examples),
        minutes=tuning.minutes,
        ranges={name: each.describe() for name, each in space.ranges.items()},
        trials=trials,
        importance=importance,
        no_importance=why,
        changes=changes,
        before={name: space.value(name) for name in changes},
    )


def write_config(results: TuneResults) -> str:
    """What differs from the config, as YAML with the validation recall in comments."""
    recall, first = results.best.recall or 0.0, results.own
    before = "were not measured" if first is None else f"reach {first.recall or 0.0:.4f}"
    head = [
        f"Chosen by refit tune: recall@{results.recall_at} of {recall:.4f} on the validation "
        "examples;",
        f"the config's own settings {before}. The standard error of one recall is "
        f"{results.standard_error:.4f}",
        f"({results.n_examples:,} examples). The best of {len(results.trials)} trials is partly "
        "luck: the gate judges it on the test days.",
    ]
    lines = [f"# {line}" for line in head]
    if not results.changes:
        lines.append("# Nothing was better than the config's own settings.")
    opened: list[str] = []
    for name, value in sorted(results.changes.items()):
        *sections, setting = name.split(".")
        for depth, section in enumerate(sections):
            if opened[: depth + 1] != sections[: depth + 1]:
                lines.append(f"{'  ' * depth}{section}:")
        opened = sections
        was = show_value(results.before[name])
        lines.append(f"{'  ' * len(sections)}{setting}: {_yaml(value)}  # was {was}")
    return "\n".join(lines) + "\n"


def _describe(trial: "optuna.trial.FrozenTrial") -> TriedSettings:
    known = trial.user_attrs
    epochs = tuple(known.get("epochs", ()))
    return TriedSettings(
        number=trial.number,
        own=bool(known.get("own")),
        outcome=outcome_of(trial),
        recall=trial.value if outcome_of(trial) == MEASURED else max(epochs, default=None),
        epochs=epochs,
        seconds=known.get("seconds", 0.0),
        values=dict(known.get("values", {})),
        reason=known.get("reason", ""),
    )


def _best(trials: Sequence[TriedSettings]) -> TriedSettings:
    measured = [trial for trial in trials if trial.outcome == MEASURED]
    return max(measured, key=lambda trial: (trial.recall or 0.0, -trial.number))


def _importance(
    study: "optuna.Study", trials: Sequence[TriedSettings]
) -> tuple[dict[str, float], str]:
    """How much each setting decides which trials are among the best, or why it is not known.

    By PED-ANOVA (Watanabe et al., IJCAI 2023), as shares.
    """
    import optuna

    recalls = [trial.recall for trial in trials if trial.outcome == MEASURED]
    if len(recalls) < ENOUGH:
        return {}, f"that takes {ENOUGH} trials that were measured to their end, not {len(recalls)}"
    if len(set(recalls)) == 1:
        return {}, "all trials have the same recall"
    try:
        found = optuna.importance.get_param_importances(study)
    except (ValueError, RuntimeError) as error:
        return {}, str(error)
    return {name: float(share) for name, share in found.items()}, ""


def _yaml(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else show_value(value)

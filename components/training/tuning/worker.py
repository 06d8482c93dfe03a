"""A worker: tries settings, one after the other, until the budget is spent."""

import math
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import TYPE_CHECKING, Any

from components.training.settings import TrainSettings
from components.training.train import measure_epochs
from components.training.tuning.settings import HISTORY_LENGTH, TuneSettings
from components.training.tuning.space import Space, describe_values
from components.training.tuning.study import (
    KILLED,
    MEASURED,
    OUT_OF_TIME,
    PRUNED,
    RUNNING,
    only_worker,
    open_study,
    outcome_of,
    study_key,
)
from components.training.tuning.view import hide_test
from refit.errors import RefitError
from refit.features import FeaturesManifest
from refit.files import fingerprint, remove
from refit.model import Epoch
from refit.progress import Meter, log_message
from refit.remote import is_url

if TYPE_CHECKING:
    import optuna

FIRST_WORKER = "0"
"""The worker that begins with the config's own settings."""


def tune(
    tuning: TuneSettings,
    training: TrainSettings,
    features: Path,
    place: str,
    worker: str = FIRST_WORKER,
    checkpoint: Path | None = None,
) -> str:
    """Try settings until the budget is spent; a killed worker of the same study goes on.

    The first trial has the config's own settings. Every trial trains on the train split, is
    measured on the validation split after every epoch, and is stopped when its best recall is below
    the median of earlier trials after as many epochs. The trials read a view of the features that
    has no test split.

    Args:
        tuning: The budget and the space.
        training: The config's own settings.
        features: A features folder.
        place: Where the study is kept, see ``open_study``. Encoded examples are written there too,
            or with a database to the temporary folder, and removed at the end.
        worker: Name of this worker; no two that run have the same.
        checkpoint: Folder from which the trial that was killed goes on.

    Returns:
        The study's key.

    Raises:
        UsageError: Settings and features do not fit, or this worker runs already.
        RefitError: The config's own settings cannot be trained.
    """
    with TemporaryDirectory() as folder:
        view = hide_test(features, Path(folder) / "features")
        space = Space.of(tuning, training, FeaturesManifest.read(view))
        key = study_key(space, tuning, view)
    with only_worker(place, key, worker), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="optuna")  # parts that it calls experimental
        scratch = Path(gettempdir() if is_url(place) else place) / f"{key}.{worker}.scratch"
        remove(scratch)  # of a process that was killed
        scratch.mkdir()
        try:
            study = open_study(place, key)
            TuningWorker(study, tuning, space, features, scratch, worker, checkpoint).run()
        finally:
            remove(scratch)
    return key


class TuningWorker:
    """One process that tries settings.

    Args:
        study: Shared by all workers.
        tuning: The budget.
        space: What is tried.
        features: The features folder; trials read views of it.
        scratch: Folder for views and encoded examples.
        name: Of this worker.
        checkpoint: Folder of the trainings' checkpoints.
    """

    def __init__(
        self,
        study: "optuna.Study",
        tuning: TuneSettings,
        space: Space,
        features: Path,
        scratch: Path,
        name: str,
        checkpoint: Path | None,
    ) -> None:
        self._study, self._tuning, self._space = study, tuning, space
        self._features, self._scratch, self._checkpoint = features, scratch, checkpoint
        self._name = name
        self._views: dict[int, Path] = {}
        self._budget = _Budget(tuning.minutes * 60.0)

    def run(self) -> None:
        """Try settings until the budget, or the number of trials, is reached."""
        self._recover()
        self._budget.begin(sum(t.user_attrs.get("seconds", 0.0) for t in self._own_trials()))
        with self._budget.meter:
            while self._may_begin():
                self._try()

    def _may_begin(self) -> bool:
        over = [t for t in self._trials() if outcome_of(t) not in (RUNNING, KILLED)]
        if self._tuning.trials is not None and len(over) >= self._tuning.trials:
            log_message(f"{len(over)} trials are done, as many as tuning.trials allows")
            return False
        left = self._budget.left()
        first = min((t.user_attrs["first"] for t in over if "first" in t.user_attrs), default=0.0)
        if left <= 0:
            log_message(f"{len(over)} trials are done, and the budget is spent")
        elif left < first:
            log_message(
                f"{len(over)} trials are done; {left:.0f} s of the budget are left, and a first "
                f"epoch takes {first:.0f} s"
            )
        return left > 0 and left >= first

    def _try(self) -> None:
        """Begin a trial, follow it to its end, and keep how it ended."""
        from optuna.trial import TrialState

        started = time.monotonic()
        trial = self._ask()
        is_own = bool(trial.user_attrs.get("own"))
        drawn = self._space.draw(trial)
        values = self._space.own_values() if is_own else drawn
        trial.set_user_attr("values", values)
        watch = _Watch(trial, self._budget, started)
        try:
            settings = self._space.settings(values)
            watch.n_epochs = settings.max_epochs
            epochs = measure_epochs(
                settings, self._view(values), self._scratch, watch, self._checkpoint
            )
        except RefitError as error:
            if is_own:
                raise
            trial.set_user_attr("reason", str(error))
            watch.end()
            self._study.tell(trial, state=TrialState.FAIL)
            log_message(f"trial {trial.number}: failed: {error}; {describe_values(values)}")
            return
        recall = value_of(settings, epochs)
        watch.end()
        if watch.outcome == MEASURED:
            self._study.tell(trial, recall)
        else:
            self._study.tell(trial, state=TrialState.PRUNED)
        best = self._best()
        self._budget.measure(best)
        log_message(
            f"trial {trial.number}{' (own settings)' if is_own else ''}: "
            f"recall@{settings.recall_at} {recall:.4f} after epoch {len(epochs)}, {watch.outcome}, "
            f"{time.monotonic() - started:.0f} s; best {best:.4f}; {describe_values(values)}"
        )

    def _ask(self) -> "optuna.Trial":
        """The next trial: the config's own settings, one that was killed, or a new draw."""
        import optuna

        trials = self._trials()
        # A seed for each draw: a worker that goes on, or another one, does not draw the same again.
        seed = int(fingerprint([self._tuning.seed, self._name, len(trials)])[:8], 16)
        self._study.sampler = optuna.samplers.TPESampler(
            seed=seed,
            n_startup_trials=self._tuning.random_trials,
            constant_liar=self._tuning.workers > 1,
        )
        self._study.pruner = optuna.pruners.MedianPruner(
            n_startup_trials=self._tuning.full_trials, n_warmup_steps=0
        )
        has_own = any(t.user_attrs.get("own") and outcome_of(t) != KILLED for t in trials)
        if self._name == FIRST_WORKER and not has_own:
            self._study.enqueue_trial(self._space.own_values(), user_attrs={"own": True})
        trial = self._study.ask()
        trial.set_user_attr("worker", self._name)
        return trial

    def _recover(self) -> None:
        """End the trial in which this worker was killed, and queue its settings again."""
        from optuna.trial import TrialState

        for trial in self._own_trials():
            if trial.state != TrialState.RUNNING:
                continue
            self._study.tell(trial.number, state=TrialState.FAIL)
            if not trial.user_attrs.get("own") and trial.params:
                self._study.enqueue_trial(trial.params)
            log_message(f"trial {trial.number} was killed; its settings are tried again")

    def _view(self, values: Mapping[str, Any]) -> Path:
        """The features that a trial with these settings reads."""
        length = int(values.get(HISTORY_LENGTH, self._space.history_length))
        if length not in self._views:
            folder = self._scratch / f"histories-{length}"
            self._views[length] = hide_test(self._features, folder, length)
        return self._views[length]

    def _trials(self) -> "list[optuna.trial.FrozenTrial]":
        return self._study.get_trials(deepcopy=False)

    def _own_trials(self) -> "list[optuna.trial.FrozenTrial]":
        return [t for t in self._trials() if t.user_attrs.get("worker") == self._name]

    def _best(self) -> float:
        """The highest recall of a measured trial; NaN while there is none."""
        done = [trial.value for trial in self._trials() if outcome_of(trial) == MEASURED]
        return max((value for value in done if value is not None), default=math.nan)


class _Budget:
    """The seconds that a worker may take, and how many it has taken."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ends = self._ticked = 0.0

    def begin(self, spent: float) -> None:
        """Start the clock.

        Args:
            spent: Seconds that earlier processes of the same worker took.
        """
        if spent:
            log_message(
                f"the study goes on: {spent / 60:.1f} of {self._seconds / 60:g} minutes are spent"
            )
        self._ticked = time.monotonic()
        self._ends = self._ticked + self._seconds - spent
        self.meter = Meter("tune", self._seconds, "s", done=min(spent, self._seconds), at_most=True)

    def left(self) -> float:
        """Seconds until the budget is spent; below 0 once it is."""
        return self._ends - time.monotonic()

    def tick(self) -> None:
        """Show how much is spent."""
        now = time.monotonic()
        self.meter.advance(now - self._ticked)
        self._ticked = now

    def measure(self, best: float) -> None:
        """Show the best recall so far."""
        self.tick()
        if best == best:
            self.meter.measure(**{"best validation recall": best})


class _Watch:
    """Keeps a trial's epochs, and decides after each whether it goes on."""

    def __init__(self, trial: "optuna.Trial", budget: _Budget, started: float) -> None:
        self._trial, self._budget, self._started = trial, budget, started
        self._seen = 0
        self.n_epochs = 0
        self.outcome = MEASURED

    def __call__(self, epochs: Sequence[Epoch], just_trained: bool) -> bool:
        for epoch in epochs[self._seen :]:
            self._trial.report(epoch.recall or 0.0, epoch.number)
        if len(epochs) == 1 and just_trained:
            self._trial.set_user_attr("first", self._seconds())
        self._seen = len(epochs)
        # Kept after every epoch, so that the time of a worker that is killed later counts.
        self._trial.set_user_attr("seconds", self._seconds())
        self._trial.set_user_attr("epochs", [epoch.recall for epoch in epochs])
        self._budget.tick()
        if len(epochs) < self.n_epochs:
            if self._trial.should_prune():
                self.outcome = PRUNED
            elif self._budget.left() <= 0:
                self.outcome = OUT_OF_TIME
        return self.outcome == MEASURED

    def end(self) -> None:
        """Keep how the trial ended."""
        self._trial.set_user_attr("seconds", self._seconds())
        self._trial.set_user_attr("outcome", self.outcome)
        self._budget.tick()

    def _seconds(self) -> float:
        return round(time.monotonic() - self._started, 2)


def value_of(settings: TrainSettings, epochs: Sequence[Epoch]) -> float:
    """The recall of what these settings export: of the chosen epoch, or else of the last."""
    recalls = [epoch.recall or 0.0 for epoch in epochs]
    return max(recalls) if settings.choose_epochs else recalls[-1]

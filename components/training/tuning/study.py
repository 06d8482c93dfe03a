"""A study: trials of settings, kept in a database from which a killed worker goes on."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from components.training.train import checkpoint_key
from components.training.tuning.settings import TuneSettings
from components.training.tuning.space import Space
from refit.errors import ServiceUnreachable, UsageError
from refit.features import FeaturesManifest
from refit.files import fingerprint
from refit.remote import is_url

if TYPE_CHECKING:
    import optuna

MEASURED, PRUNED, OUT_OF_TIME, FAILED, KILLED = (
    "measured",
    "stopped early",
    "out of time",
    "failed",
    "killed",
)
"""How trials end; only one that was measured to its end can be chosen."""
RUNNING = "running"


def study_key(space: Space, tuning: TuneSettings, features: Path) -> str:
    """Fingerprint of what makes trials comparable: data, own settings and space, not the budget.

    Args:
        space: What is tried.
        tuning: Its seed counts.
        features: The view that trials read.
    """
    manifest = FeaturesManifest.read(features)
    return fingerprint(
        {
            "training": checkpoint_key(space.own, manifest, features),
            "space": {name: each.model_dump(mode="json") for name, each in space.ranges.items()},
            "seed": tuning.seed,
        }
    )[:16]


def open_study(place: str, key: str) -> "optuna.Study":
    """Open the study of this key, or begin it.

    Args:
        place: A folder, in which the study is a SQLite file, or the URL of a PostgreSQL database.
        key: See ``study_key``.

    Raises:
        ServiceUnreachable: The database cannot be reached.
    """
    import optuna
    from sqlalchemy.exc import OperationalError

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    url = place
    if not is_url(place):
        Path(place).mkdir(parents=True, exist_ok=True)
        url = f"sqlite:///{study_file(place, key).absolute()}"
    try:
        return optuna.create_study(
            storage=optuna.storages.RDBStorage(url),
            study_name=f"refit-{key}",
            direction="maximize",
            load_if_exists=True,
        )
    except OperationalError as error:
        raise ServiceUnreachable(f"the study's database cannot be reached: {error.orig}") from None


def outcome_of(trial: "optuna.trial.FrozenTrial") -> str:
    """How a trial ended. One that has not ended is ``running``, or was killed a moment ago."""
    from optuna.trial import TrialState

    if trial.state == TrialState.COMPLETE:
        return MEASURED
    if trial.state == TrialState.PRUNED:
        return str(trial.user_attrs["outcome"])
    if trial.state == TrialState.FAIL:
        return FAILED if "reason" in trial.user_attrs else KILLED
    return RUNNING


def study_file(folder: str, key: str) -> Path:
    """The SQLite file of a study."""
    return Path(folder) / f"{key}.sqlite"


@contextmanager
def only_worker(place: str, key: str, worker: str) -> Iterator[None]:
    """Keep a second process from taking this worker's running trial for a killed one.

    On a cluster, where the study is in a database, each worker is one pod.

    Raises:
        UsageError: There is one.
    """
    if is_url(place):
        yield
        return
    Path(place).mkdir(parents=True, exist_ok=True)
    with (Path(place) / f"{key}.{worker}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(
                f"another process tunes the same; its study is {study_file(place, key)}"
            ) from None
        yield

"""Checkpoints: weights and optimizer after an epoch, from which a killed training resumes."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tensorflow as tf
from numpy.typing import NDArray

from refit.errors import RefitError, UsageError
from refit.files import read_json, remove, write_atomically, write_json
from refit.model import Epoch, best_epoch
from refit.progress import log_message

STATE_FILE = "state.json"


@contextmanager
def checkpoints_of(key: str, root: Path | None) -> Iterator[Path | None]:
    """The folder of a training's checkpoints under ``root``, removed when the training succeeds.

    A training with the same key, of whatever run, resumes from there. Of several at the same time,
    one gets the folder; the others keep no checkpoints.

    Args:
        key: Fingerprint of settings and data.
        root: Parent of all such folders; None keeps no checkpoints.

    Raises:
        UsageError: ``root`` is not writable.
    """
    if root is None:
        yield None
        return
    folder = root / key[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Beside the folder: a lock file that is removed would no longer exclude others.
        lock = folder.with_suffix(".lock").open("w")
    except OSError as error:
        raise UsageError(
            f"user {os.getuid()} cannot write checkpoints to {root}: {error}; make it "
            "writable, or leave the checkpoint folder out of the settings"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            log_message(
                f"another process trains the same model and uses {folder}: no checkpoints are kept"
            )
            yield None
            return
        yield folder
        remove(folder)


class Checkpoint:
    """The checkpoints of one fit, ``<folder>/<fit>/<epoch>``.

    Args:
        folder: The checkpoint folder; None keeps no checkpoints.
        fit: ``search`` or ``final``, with the number of the pair from the second on.
        key: Fingerprint of settings and data; a checkpoint with another key is ignored.
        resume: False removes existing checkpoints.
        keeps_best: Whether the weights of the best epoch are kept too, for ``restore_best``;
            without a folder, in memory.
    """

    def __init__(
        self, folder: Path | None, fit: str, key: str, resume: bool, keeps_best: bool = False
    ) -> None:
        self._path = folder / fit if folder else None
        self._key = key
        self._keeps_best = keeps_best
        self._best: list[NDArray[Any]] = []
        if self._path and not resume:
            remove(self._path)

    def restore(self, model: tf.keras.Model) -> list[Epoch]:
        """Restore weights and optimizer; returns the epochs they were trained for."""
        latest = max(self._complete(), default=None)
        if latest is None:
            return []
        state = read_json(latest / STATE_FILE)
        if state["key"] != self._key:
            log_message(f"{latest} belongs to other settings or data; training starts from scratch")
            return []
        tracked = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
        tracked.read(str(latest / "weights"))
        epochs = [Epoch.parse(epoch) for epoch in state["epochs"]]
        log_message(f"resuming after epoch {len(epochs)} from {latest}")
        return epochs

    def save(self, model: tf.keras.Model, epochs: list[Epoch]) -> None:
        """Save the state after the last of ``epochs`` and remove those that are not needed."""
        last = len(epochs)
        best = best_epoch(epochs) if self._keeps_best else last
        if not self._path:
            if self._keeps_best and best == last:
                self._best = model.get_weights()
            return
        older = self._complete()
        path = self._of_epoch(self._path, last)
        remove(path)
        with write_atomically(path) as staging:
            staging.mkdir()
            tracked = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
            tracked.write(str(staging / "weights"))
            state = {"key": self._key, "epochs": [e.model_dump(mode="json") for e in epochs]}
            write_json(staging / STATE_FILE, state)
        for folder in older:
            if folder not in (path, self._of_epoch(self._path, best)):
                remove(folder)

    def restore_best(self, model: tf.keras.Model, epochs: list[Epoch]) -> None:
        """Give the model, as it is after the last of ``epochs``, the weights of the best one.

        Raises:
            RefitError: They are gone.
        """
        best = best_epoch(epochs)
        if best == len(epochs):
            return
        if not self._path:
            model.set_weights(self._best)
            return
        path = self._of_epoch(self._path, best)
        if not path.is_dir():
            raise RefitError(
                f"the best epoch's checkpoint, {path}, is gone; remove {self._path} to train again"
            )
        tf.train.Checkpoint(model=model).read(str(path / "weights")).expect_partial()

    @staticmethod
    def _of_epoch(folder: Path, number: int) -> Path:
        return folder / f"{number:05d}"

    def _complete(self) -> list[Path]:
        return sorted(self._path.glob("[0-9]*")) if self._path else []

"""Where a killed training goes on from: weights and optimizer as they stood after an epoch."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tensorflow as tf

from refit.errors import UsageError
from refit.files import read_json, remove, write_atomically, write_json
from refit.model import Epoch
from refit.progress import log_message

STATE_FILE = "state.json"


@contextmanager
def checkpoints_of(key: str, root: Path | None) -> Iterator[Path | None]:
    """One training's own folder under ``root``; it goes when the training ends well.

    Whoever trains the same again, under whatever name, goes on from there. Of several at the same
    time one has the folder, and the others keep nothing.

    Args:
        key: Fingerprint of settings and data.
        root: Where trainings keep their checkpoints; None keeps none.

    Raises:
        UsageError: Nothing can be written there.
    """
    if root is None:
        yield None
        return
    folder = root / key[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Beside the folder, for it stays: a lock that is removed no longer keeps others apart.
        lock = folder.with_suffix(".lock").open("w")
    except OSError as error:
        raise UsageError(
            f"no checkpoint can be kept in {root} by user {os.getuid()}: {error}; let it "
            "write there, or leave the checkpoint folder out of the settings"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            log_message(
                f"somebody else trains the same just now and has {folder}: no checkpoint is kept"
            )
            yield None
            return
        yield folder
        remove(folder)


class Checkpoint:
    """One fit's checkpoints, ``<folder>/<fit>/<epoch>``; without a folder nothing is kept.

    Args:
        folder: The checkpoint folder, or None.
        fit: ``search`` or ``final``.
        key: Fingerprint of settings and data; checkpoints of other ones are not gone on from.
        resume: False forgets what is there.
    """

    def __init__(self, folder: Path | None, fit: str, key: str, resume: bool) -> None:
        self._path = folder / fit if folder else None
        self._key = key
        if self._path and not resume:
            remove(self._path)

    def restore(self, model: tf.keras.Model) -> list[Epoch]:
        """Put the weights back; returns the epochs they have seen, none when there are none."""
        latest = max(self._complete(), default=None)
        if latest is None:
            return []
        state = read_json(latest / STATE_FILE)
        if state["key"] != self._key:
            log_message(f"{latest} belongs to other settings or data; starting clean")
            return []
        tracked = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
        tracked.read(str(latest / "weights"))
        epochs = [Epoch.parse(epoch) for epoch in state["epochs"]]
        log_message(f"going on after epoch {len(epochs)} from {latest}")
        return epochs

    def save(self, model: tf.keras.Model, epochs: list[Epoch]) -> None:
        """Keep the state after the last of ``epochs``, and no older one."""
        if not self._path:
            return
        older = self._complete()
        path = self._path / f"{len(epochs):05d}"
        remove(path)
        with write_atomically(path) as staging:
            staging.mkdir()
            tracked = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
            tracked.write(str(staging / "weights"))
            state = {"key": self._key, "epochs": [e.model_dump(mode="json") for e in epochs]}
            write_json(staging / STATE_FILE, state)
        for folder in older:
            if folder != path:
                remove(folder)

    def _complete(self) -> list[Path]:
        return sorted(self._path.glob("[0-9]*")) if self._path else []

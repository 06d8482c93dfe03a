"""The prediction log: every answer, in Parquet parts that are written atomically.

An answer is put in a bounded queue. A background thread writes it as a line of a journal, and after
``rows`` answers or ``seconds`` it writes the journal as a Parquet part
``date=YYYY-MM-DD/<part>.parquet`` and removes the journal. If a process dies, the next log that is
opened on the folder converts its journal; converting it twice writes the same part.

For a remote log the folder is a local staging area: closed parts are uploaded under the URL with
the same names and then removed. While the store is unreachable they are kept and retried. A start
uploads the parts of earlier processes; the end waits up to ``CLOSE_SECONDS`` for the rest.

Nothing of this delays or fails an answer, and none of it makes a server unready: the others have
the same store, and an answer is worth more than its row. Lost are

- after ``kill -9``, the answers that were still in the queue, from the last twentieth of a second;
- after a crash of the machine, those that the operating system had not yet written, at most the
  last ``seconds`` or ``rows``;
- if a machine, or a pod with its ``emptyDir``, is lost, the parts that were not uploaded.

Dropped are, each counted in ``refit_log_dropped`` with a reason,

- ``disk``: while nothing can be written to the folder (it is full, or may not be written), answers
  wait in the queue; those that come while it is full are dropped;
- ``store``: while the staging area holds ``staging_bytes`` because the store does not take them;
  what is there is kept, new answers are dropped;
- ``slow``: those that come while the queue is full for want of processor;
- ``end``: those that could not be written when the server had to end.
"""

import fcntl
import os
import queue
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow.parquet as pq

from refit.files import write_atomically
from refit.progress import log_message
from refit.remote import open_store, put_whole
from serving.counters import Counters
from serving.journal_lines import read_days, write_lines
from serving.polled_queue import PolledQueue

JOURNAL_FOLDER = "_journal"
CLOSE_SECONDS = 10.0
RETRY_SECONDS = 0.2
MOST_FAILURES = 3
"""After so many failures in a row the store is away, and is tried again at the next round."""
QUICK = {"connect_timeout": 5, "read_timeout": 20, "retries": {"total_max_attempts": 2}}
"""How long S3's client waits: a round that hangs delays all that follow."""
DISK, STORE, SLOW, END = "disk", "store", "slow", "end"


@dataclass(frozen=True)
class Prediction:
    """One answer; the fields of ``PREDICTION_SCHEMA``."""

    request_id: str
    bundle_id: str
    embedding_version: str
    user_id: str | None
    time: datetime
    context: str
    query_embedding: list[float] | None
    item_ids: list[str]
    scores: list[float]
    fallback: str | None
    latency_ms: float
    sources: list[str]
    positions: list[int]
    propensities: list[float] | None
    bucket: str | None
    repeat_item_ids: list[str] | None
    repeat_scores: list[float] | None


class PredictionLog:
    """Writes predictions without delaying an answer.

    Args:
        folder: The log's folder; several processes may write to it.
        rows, seconds: A part is closed after this many answers, or this long after its first one.
        capacity: Maximum number of answers in the queue; further ones are dropped and counted.
        counters: Counts written and dropped answers, and failures.
        url: fsspec URL that closed parts are moved to; empty leaves them in the folder.
        staging_bytes: With a ``url``, the space that the folder may take.
    """

    def __init__(
        self,
        folder: Path,
        rows: int,
        seconds: float,
        capacity: int,
        counters: Counters,
        url: str = "",
        staging_bytes: int = 512 << 20,
    ) -> None:
        self._folder, self._rows, self._seconds = folder, rows, seconds
        self._counters = counters
        self._queue: PolledQueue[Prediction | None] = PolledQueue(capacity)
        self._journal: _Journal | None = None
        self._behind = True
        self._closing = threading.Event()
        self._told = _Told("prediction log", counters, "refit_log_failures")
        self._start_counters()
        with self._told:
            self._recover()
        self._is_stuck = self._told.failed
        staging = _Staging(folder, staging_bytes, seconds, counters) if url else None
        self._staging = staging
        self._uploader = _Uploader(folder, url, seconds, counters, staging) if staging else None
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
        self._thread.start()

    def put(self, prediction: Prediction) -> None:
        """Log an answer without blocking."""
        try:
            self._queue.put_nowait(prediction)
        except queue.Full:
            self._drop(1, DISK if self._is_stuck else SLOW)

    def close(self) -> None:
        """Write the queued answers and stop; safe to repeat."""
        self._closing.set()
        with suppress(queue.Full):  # then it is awake
            self._queue.put_nowait(None)
        self._thread.join(CLOSE_SECONDS)
        if self._uploader:
            self._uploader.close()

    def _start_counters(self) -> None:
        """Export the counters as 0, so that the first drop is an increase."""
        for name in ("refit_log_rows", "refit_log_failures", "refit_log_upload_failures"):
            self._counters.add(name, 0)
        for reason in (DISK, STORE, SLOW, END):
            self._drop(0, reason)

    def _drop(self, answers: int, reason: str) -> None:
        self._counters.add("refit_log_dropped", answers, reason=reason)

    def _run(self) -> None:
        """Take answers and write them; those that cannot be written now are held and retried."""
        held: list[Prediction] = []
        last = float("inf")
        while True:
            if not held:
                held = self._take()
            closing = self._closing.is_set()
            if closing:
                last = min(last, time.monotonic() + CLOSE_SECONDS / 2)
            ends = closing and self._queue.empty()
            with self._told:
                self._write(held, ends)
            self._is_stuck = self._told.failed
            if not self._is_stuck and ends:
                return
            if time.monotonic() >= last:
                self._give_up(held)
                return
            if self._is_stuck:
                time.sleep(RETRY_SECONDS)

    def _give_up(self, held: list[Prediction]) -> None:
        lost = len(held)
        with suppress(queue.Empty):
            while True:
                lost += self._queue.get_nowait() is not None
        self._drop(lost, END)
        log_message(f"prediction log: {lost} answers could not be written before the end")

    def _take(self) -> list[Prediction]:
        """Wait for answers until something is due; return those queued, at most a part of them."""
        timeout = self._seconds if self._behind else None
        if self._closing.is_set():
            timeout = 0.01
        elif self._journal:
            timeout = max(self._journal.opened + self._seconds - time.monotonic(), 0.01)
        batch: list[Prediction] = []
        with suppress(queue.Empty):
            entry = self._queue.get(timeout=timeout)
            while True:
                if entry is not None:
                    batch.append(entry)
                if len(batch) == self._rows:
                    break
                entry = self._queue.get_nowait()
        return batch

    def _write(self, batch: list[Prediction], closing: bool) -> None:
        """Write answers to the journal, which empties ``batch``, and close the part that is due."""
        if batch and self._staging and self._staging.is_full():
            self._drop(len(batch), STORE)
            batch.clear()
        if batch:
            self._journal = self._journal or _Journal(self._folder)
            self._journal.append(batch)
            self._counters.add("refit_log_rows", len(batch))
            batch.clear()  # what fails from here on must not write them again
        journal = self._journal
        if journal and (
            closing
            or journal.rows >= self._rows
            or time.monotonic() >= journal.opened + self._seconds
        ):
            # If writing the part fails, its journal stays and is recovered with the next part.
            self._journal, behind, self._behind = None, self._behind, True
            journal.close()
            self._behind = behind
        if self._behind:
            self._recover()

    def _recover(self) -> None:
        (self._folder / JOURNAL_FOLDER).mkdir(parents=True, exist_ok=True)
        recover(self._folder)
        self._behind = False


class _Told:
    """A block whose errors are counted, and logged once each, since it is repeated."""

    def __init__(self, what: str, counters: Counters, metric: str) -> None:
        self._what, self._counters, self._metric = what, counters, metric
        self._last = ""
        self.failed = False

    def __enter__(self) -> None:
        self.failed = False

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: Any) -> bool:
        if error is None:
            self._last = ""
            return False
        if not isinstance(error, Exception):
            return False
        self.failed = True
        self._counters.add(self._metric)
        if str(error) != self._last:
            self._last = str(error)
            log_message(f"{self._what}: {type(error).__name__}: {error}")
        return True


class _Staging:
    """The space of the parts and journals that wait on the local disk."""

    def __init__(self, folder: Path, most: int, seconds: float, counters: Counters) -> None:
        self._folder, self._most, self._seconds = folder, most, seconds
        self._counters = counters
        self._due = 0.0
        self._is_full = False

    def is_full(self) -> bool:
        """Whether no more may be written; measured once in ``seconds``."""
        if time.monotonic() >= self._due:
            self.measure()
        return self._is_full

    def measure(self) -> None:
        """Measure the folder now."""
        self._due = time.monotonic() + self._seconds
        used = 0
        for pattern in ("date=*/*.parquet", f"{JOURNAL_FOLDER}/*.jsonl"):
            for path in self._folder.glob(pattern):
                with suppress(FileNotFoundError):
                    used += path.stat().st_size
        if used >= self._most and not self._is_full:
            log_message("prediction log: the staging area is full; answers are dropped")
        self._is_full = used >= self._most
        self._counters.set("refit_log_staging_share", used / self._most)


class _Uploader:
    """Moves closed parts to an object store, with retries.

    Two processes that share a folder may both upload a part; both write the same contents.
    """

    def __init__(
        self, folder: Path, url: str, seconds: float, counters: Counters, staging: _Staging
    ) -> None:
        self._folder, self._url, self._counters = folder, url.rstrip("/"), counters
        self._seconds, self._staging = seconds, staging
        self._closing = threading.Event()
        self._told = _Told(f"prediction log: {url}", counters, "refit_log_upload_failures")
        self._thread = threading.Thread(target=self._run, name="prediction-upload", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Upload the remaining parts for up to ``CLOSE_SECONDS``; safe to repeat."""
        self._closing.set()
        self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        while not self._closing.wait(self._seconds):
            self._upload()
        deadline = time.monotonic() + CLOSE_SECONDS
        while not self._upload() and time.monotonic() < deadline:
            time.sleep(RETRY_SECONDS)

    def _upload(self) -> bool:
        """Upload every part; return whether all uploads succeeded."""
        parts = sorted(self._folder.glob("date=*/*.parquet"))
        uploaded = failures = 0
        for part in parts:
            with self._told:
                self._put(part)
            uploaded += not self._told.failed
            # One part that cannot be uploaded does not hold up the others.
            failures = failures + 1 if self._told.failed else 0
            if failures == MOST_FAILURES:
                break
        self._counters.set("refit_log_waiting_parts", len(parts) - uploaded)
        self._staging.measure()
        return uploaded == len(parts)

    def _put(self, part: Path) -> None:
        options = {"config_kwargs": QUICK} if self._url.startswith("s3://") else {}
        store, root = open_store(self._url, **options)
        try:
            put_whole(store, part, f"{root}/{part.relative_to(self._folder).as_posix()}")
        except FileNotFoundError:
            if part.exists():
                raise
        part.unlink(missing_ok=True)


class _Journal:
    """The answers of one part before it is written; its lock shows that its writer is alive."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.path = folder / JOURNAL_FOLDER / f"{uuid.uuid4().hex}.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO = self.path.open("a+b", buffering=0)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self.opened = time.monotonic()
        self.rows = 0
        self._size, self._is_torn = 0, False

    def append(self, predictions: list[Prediction]) -> None:
        """Pass predictions to the operating system; a kill does not lose them afterwards.

        Raises:
            OSError: None of them was written.
        """
        content = write_lines(predictions)
        if self._is_torn:  # what failed before may have written a part
            os.ftruncate(self._file.fileno(), self._size)
        self._is_torn = True
        waiting = memoryview(content)
        while waiting:
            waiting = waiting[self._file.write(waiting) :]
        self._is_torn = False
        self._size += len(content)
        self.rows += len(predictions)

    def close(self) -> None:
        """Convert the journal to its part."""
        try:
            _write_part(self._folder, self.path, self._file)
        finally:
            self._file.close()


def recover(folder: Path) -> int:
    """Convert the journals of dead writers to parts.

    Returns:
        The number of converted journals.
    """
    recovered = 0
    for path in sorted((folder / JOURNAL_FOLDER).glob("*.jsonl")):
        try:
            with path.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if path.exists():
                    _write_part(folder, path, file)
                    recovered += 1
        except (BlockingIOError, FileNotFoundError):
            continue
    if recovered:
        log_message(f"prediction log: recovered {recovered} part(s) of writers that were killed")
    return recovered


def _write_part(folder: Path, path: Path, journal: BinaryIO) -> None:
    """Write a journal as a part; its caller holds the journal's lock."""
    for left in folder.glob(f"date=*/.{path.stem}.parquet.*.partial"):
        left.unlink(missing_ok=True)  # of a writer that was killed
    journal.seek(0)
    for day, table in read_days(journal.read()).items():
        with write_atomically(folder / f"date={day}" / f"{path.stem}.parquet") as staging:
            pq.write_table(table, staging, compression="zstd")
    path.unlink(missing_ok=True)

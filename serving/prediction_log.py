"""The prediction log: every answer, in Parquet parts that are written atomically.

An answer is put in a bounded queue. A background thread writes it as a line of a journal, and after
``rows`` answers or ``seconds`` it writes the journal as a Parquet part
``date=YYYY-MM-DD/<part>.parquet`` and removes the journal. If a process dies, the next log that is
opened on the folder converts its journal; converting it twice writes the same part.

These answers may be lost: after ``kill -9``, those still in the queue, from the last milliseconds;
after a crash of the machine, those that the operating system had not yet written, at most the last
``seconds`` or ``rows``; and those that arrive while the queue is full, which are counted. A full
disk loses nothing that is in the journal: the part is written once there is space.

For a remote log the folder is a local staging area: closed parts are uploaded under the URL with
the same names and then removed. While the store is unreachable they are kept and retried, and the
failures are counted. A start uploads the parts of earlier processes; the end waits up to
``CLOSE_SECONDS`` for the rest. If a machine, or a pod with its ``emptyDir``, is lost, so are the
parts that were not uploaded: the last ``seconds`` or ``rows``, or all since the store failed.
"""

import fcntl
import queue
import threading
import time
import uuid
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TextIO

import fsspec
import pyarrow.parquet as pq

from refit.files import write_atomically
from refit.progress import log_message
from serving.counters import Counters
from serving.journal_lines import read_days, write_lines
from serving.polled_queue import PolledQueue

JOURNAL_FOLDER = "_journal"
CLOSE_SECONDS = 10.0


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


class PredictionLog:
    """Writes predictions without delaying an answer.

    Args:
        folder: The log's folder; several processes may write to it.
        rows, seconds: A part is closed after this many answers, or this long after its first one.
        capacity: Maximum number of answers in the queue; further ones are dropped and counted.
        counters: Counts written and dropped answers, and failures.
        url: fsspec URL that closed parts are moved to; empty leaves them in the folder.
    """

    def __init__(
        self,
        folder: Path,
        rows: int,
        seconds: float,
        capacity: int,
        counters: Counters,
        url: str = "",
    ) -> None:
        self._folder, self._rows, self._seconds = folder, rows, seconds
        self._counters = counters
        self._queue: PolledQueue[Prediction | None] = PolledQueue(capacity)
        self._journal: _Journal | None = None
        self._behind = False
        (folder / JOURNAL_FOLDER).mkdir(parents=True, exist_ok=True)
        recover(folder)
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
        self._thread.start()
        self._uploader = _Uploader(folder, url, seconds, counters) if url else None

    def put(self, prediction: Prediction) -> None:
        """Log an answer without blocking."""
        try:
            self._queue.put_nowait(prediction)
        except queue.Full:
            self._counters.add("refit_log_dropped")

    def close(self) -> None:
        """Write the queued answers and stop; safe to repeat."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join(CLOSE_SECONDS)
        if self._uploader:
            self._uploader.close()

    def _run(self) -> None:
        while True:
            batch, closing = self._take()
            try:
                self._write(batch, closing)
            except Exception as error:  # a full disk must not end the thread
                self._counters.add("refit_log_failures")
                log_message(f"prediction log: {type(error).__name__}: {error}")
                time.sleep(0.1)
            if closing:
                return

    def _take(self) -> tuple[list[Prediction], bool]:
        """Wait for answers until the part is due; return those queued, and whether to stop."""
        due = self._journal.opened + self._seconds if self._journal else None
        timeout = None if due is None else max(due - time.monotonic(), 0.01)
        batch: list[Prediction] = []
        try:
            entry = self._queue.get(timeout=timeout)
            while entry is not None:
                batch.append(entry)
                if len(batch) == self._rows:
                    return batch, False
                entry = self._queue.get_nowait()
        except queue.Empty:
            return batch, False
        return batch, True

    def _write(self, batch: list[Prediction], closing: bool) -> None:
        if batch:
            self._journal = self._journal or _Journal(self._folder)
            self._journal.append(batch)
            self._counters.add("refit_log_rows", len(batch))
        journal = self._journal
        if journal and (
            closing
            or journal.rows >= self._rows
            or time.monotonic() >= journal.opened + self._seconds
        ):
            # If writing the part fails, its journal stays and is recovered with the next part.
            self._journal, behind, self._behind = None, self._behind, True
            journal.close()
            if behind:
                recover(self._folder)
            self._behind = False


class _Uploader:
    """Moves closed parts to an object store, with retries.

    Two processes that share a folder may both upload a part; both write the same contents.
    """

    def __init__(self, folder: Path, url: str, seconds: float, counters: Counters) -> None:
        self._folder, self._url, self._counters = folder, url.rstrip("/"), counters
        self._seconds = seconds
        self._closing = threading.Event()
        self._last_failure = ""
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
            time.sleep(0.2)

    def _upload(self) -> bool:
        """Upload every part; return whether all uploads succeeded."""
        parts = sorted(self._folder.glob("date=*/*.parquet"))
        uploaded = 0
        try:
            for part in parts:
                self._put(part)
                uploaded += 1
            self._last_failure = ""
        except Exception as error:  # after any failure the parts are kept for the next attempt
            self._counters.add("refit_log_upload_failures")
            if str(error) != self._last_failure:
                self._last_failure = str(error)
                log_message(f"prediction log: {self._url}: {type(error).__name__}: {error}")
        self._counters.set("refit_log_waiting_parts", len(parts) - uploaded)
        return uploaded == len(parts)

    def _put(self, part: Path) -> None:
        fs, root = fsspec.core.url_to_fs(self._url)
        try:
            fs.put_file(str(part), f"{root}/{part.relative_to(self._folder).as_posix()}")
        except FileNotFoundError:
            if part.exists():
                raise
        part.unlink(missing_ok=True)


class _Journal:
    """The answers of one part before it is written; its lock shows that its writer is alive."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.path = folder / JOURNAL_FOLDER / f"{uuid.uuid4().hex}.jsonl"
        self._file: TextIO = self.path.open("a", encoding="utf-8")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self.opened = time.monotonic()
        self.rows = 0

    def append(self, predictions: list[Prediction]) -> None:
        """Pass predictions to the operating system; a kill does not lose them afterwards."""
        self._file.write(write_lines(predictions))
        self._file.flush()
        self.rows += len(predictions)

    def close(self) -> None:
        """Convert the journal to its part."""
        try:
            _write_part(self._folder, self.path)
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
            with path.open("r+", encoding="utf-8") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if path.exists():
                    _write_part(folder, path)
                    recovered += 1
        except (BlockingIOError, FileNotFoundError):
            continue
    if recovered:
        log_message(f"prediction log: recovered {recovered} part(s) of writers that were killed")
    return recovered


def _write_part(folder: Path, journal: Path) -> None:
    for day, table in read_days(journal.read_bytes()).items():
        path = folder / f"date={day}" / f"{journal.stem}.parquet"
        with write_atomically(path) as staging:
            pq.write_table(table, staging, compression="zstd")
    journal.unlink()

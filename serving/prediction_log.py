"""The prediction log: every answer, as Parquet parts that a crash cannot tear.

An answer is put in a bounded queue and written by a background thread: first as a line of a
journal, then, after ``rows`` answers or ``seconds``, together with the others as a Parquet part
``date=YYYY-MM-DD/<part>.parquet``, after which the part's journal is removed. A journal whose
process is dead is turned into its part by the next log that is opened on the folder; doing that
twice writes the same part.

What may be lost: by ``kill -9`` the answers still in the queue, which is what the last
milliseconds brought; by a crash of the machine what the operating system had not yet written,
at most the last ``seconds`` or ``rows``; and what came while the queue was full, which is counted.
A full disk loses nothing that is in the journal: the part is written once there is room.

For a remote log the folder is a staging area on this machine: closed parts are uploaded to the
same names under the URL and then removed here. While the store is away they stay and are tried
again, which is counted; a start uploads what an earlier process left, and the end waits a little
for the rest. A machine, or a pod with its ``emptyDir``, that is lost takes with it what was not
uploaded yet: the last ``seconds`` or ``rows``, or all since the store went away.
"""

import fcntl
import json
import queue
import threading
import time
import uuid
from collections import defaultdict
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from refit.files import write_atomically
from refit.prediction import PREDICTION_SCHEMA
from refit.progress import log_message
from serving.counters import Counters

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


class PredictionLog:
    """Writes predictions without ever making an answer wait.

    Args:
        folder: The log's folder; several processes may write to it.
        rows, seconds: A part is closed after so many answers, or so long after its first one.
        capacity: Answers waiting to be written; beyond it they are dropped and counted.
        counters: Where dropped and written answers are counted.
        url: Where closed parts are uploaded; empty leaves them in the folder.
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
        self._queue: queue.Queue[Prediction | None] = queue.Queue(capacity)
        self._journal: _Journal | None = None
        self._behind = False
        (folder / JOURNAL_FOLDER).mkdir(parents=True, exist_ok=True)
        recover(folder)
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
        self._thread.start()
        self._uploader = _Uploader(folder, url, seconds, counters) if url else None

    def put(self, prediction: Prediction) -> None:
        """Log an answer; returns at once."""
        try:
            self._queue.put_nowait(prediction)
        except queue.Full:
            self._counters.add("refit_log_dropped")

    def close(self) -> None:
        """Write what is waiting and stop; safe to repeat."""
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
            except Exception as error:  # a full disk must not end the log for good
                self._counters.add("refit_log_failures")
                log_message(f"prediction log: {type(error).__name__}: {error}")
                time.sleep(0.1)
            if closing:
                return

    def _take(self) -> tuple[list[Prediction], bool]:
        """What is waiting now, or what comes within the part's time; and whether to stop."""
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
            # Should writing the part fail, its journal stays and is taken up with the next part.
            self._journal, behind, self._behind = None, self._behind, True
            journal.close()
            if behind:
                recover(self._folder)
            self._behind = False


class _Uploader:
    """Moves closed parts to an object store, again and again until each is there.

    Two processes that share a folder may both upload a part: it is the same part either way.
    """

    def __init__(self, folder: Path, url: str, seconds: float, counters: Counters) -> None:
        self._folder, self._url, self._counters = folder, url.rstrip("/"), counters
        self._seconds = seconds
        self._closing = threading.Event()
        self._last_failure = ""
        self._thread = threading.Thread(target=self._run, name="prediction-upload", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Upload what is left, for a little while; safe to repeat."""
        self._closing.set()
        self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        while not self._closing.wait(self._seconds):
            self._upload()
        deadline = time.monotonic() + CLOSE_SECONDS
        while not self._upload() and time.monotonic() < deadline:
            time.sleep(0.2)

    def _upload(self) -> bool:
        """Upload every part; False when the store would not take one."""
        parts = sorted(self._folder.glob("date=*/*.parquet"))
        uploaded = 0
        try:
            for part in parts:
                self._put(part)
                uploaded += 1
            self._last_failure = ""
        except Exception as error:  # whatever the store says, the parts are kept for the next try
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
    """The answers of one part before it is written; its lock shows that its writer lives."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.path = folder / JOURNAL_FOLDER / f"{uuid.uuid4().hex}.jsonl"
        self._file: TextIO = self.path.open("a", encoding="utf-8")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self.opened = time.monotonic()
        self.rows = 0

    def append(self, predictions: list[Prediction]) -> None:
        """Hand predictions to the operating system; from here on a kill does not lose them."""
        lines = (json.dumps(asdict(one), default=_iso) + "\n" for one in predictions)
        self._file.write("".join(lines))
        self._file.flush()
        self.rows += len(predictions)

    def close(self) -> None:
        """Turn the journal into its part."""
        try:
            _write_part(self._folder, self.path)
        finally:
            self._file.close()


def recover(folder: Path) -> int:
    """Turn the journals of dead writers into parts.

    Returns:
        How many were found.
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
    days: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in _read_journal(journal):
        days[f"{row['time']:%Y-%m-%d}"].append(row)
    for day, rows in days.items():
        table = pa.Table.from_pylist(rows, schema=PREDICTION_SCHEMA)
        path = folder / f"date={day}" / f"{journal.stem}.parquet"
        with write_atomically(path) as staging:
            pq.write_table(table, staging, compression="zstd")
    journal.unlink()


def _read_journal(path: Path) -> list[dict[str, Any]]:
    rows = []
    for line in path.read_bytes().split(b"\n"):
        # A kill may tear the last line; it was never promised to anybody.
        if line.endswith(b"}"):
            try:
                row = json.loads(line)
            except ValueError:
                continue
            row["time"] = datetime.fromisoformat(row["time"]).astimezone(UTC)
            rows.append(row)
    return rows


def _iso(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no place in the prediction log")

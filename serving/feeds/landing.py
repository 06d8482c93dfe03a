"""Activity as a table of events that ingestion reads: ``python -m serving.feeds.landing``.

::

    python -m serving.feeds.landing --activity kafka://kafka:9092/activity --to s3://refit/activity

It writes what came since the last call and ends: run it every few minutes, one at a time.
``<to>/events`` has Parquet files in the columns of the contract, for ``ingestion.paths.events``;
``<to>/impressions`` has what was shown. A ``not_interested`` is written as ``hide``.

How far it came is in ``<to>/positions.json``, which is written after the rows: a call that was
killed writes some rows twice, which ingestion counts as duplicates, and loses none. Lines that
break the contract are in ``<to>/dead_letters``, with their reasons. Exit codes are those of
``refit``; 5 means that the feed or the store does not answer.
"""

import argparse
import json
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from refit.errors import RefitError, ServiceUnreachable
from refit.progress import log_message, set_up_logging
from refit.remote import open_store, put_whole
from serving.counters import Counters
from serving.feeds.activity import IMPRESSION, NOT_INTERESTED, ActivityEvent
from serving.feeds.dead_letters import DeadLetters
from serving.feeds.feed import LiveFeed
from serving.feeds.lines import FeedReader
from serving.feeds.opening import open_feed
from serving.feeds.settings import LiveFeedSettings

POSITIONS = "positions.json"
ROWS = 100_000
"""So many rows are written at once."""
EVER = datetime(1990, 1, 1, tzinfo=UTC)
_TIME = pa.timestamp("us", "UTC")
_EVENTS = {
    "user_id": pa.string(),
    "item_id": pa.string(),
    "event_type": pa.string(),
    "event_time": _TIME,
    "session_id": pa.string(),
    "request_id": pa.string(),
    "surface": pa.string(),
    "price": pa.float64(),
}
_IMPRESSIONS = {**_EVENTS, "position": pa.int32(), "seen": pa.bool_()}


@dataclass
class Landing:
    """Writes the lines of an activity feed as tables.

    Args:
        feed: The activity feed.
        to: Folder or fsspec URL.
        context: Columns beyond the contract that are written too, as text.
        ahead: How far in the future the time of an event may be.
    """

    feed: LiveFeed
    to: str
    context: tuple[str, ...] = ()
    ahead: timedelta = timedelta(minutes=5)
    counters: Counters = field(default_factory=Counters)
    _events: list[dict[str, Any]] = field(default_factory=list)
    _impressions: list[dict[str, Any]] = field(default_factory=list)

    def land(self) -> int:
        """Write what came since the last call; return the number of rows.

        Raises:
            ServiceUnreachable: The feed or the store does not answer.
        """
        self._store, root = open_store(self.to)
        self._root = root.rstrip("/")
        self.feed.resume(self._read_positions())
        with tempfile.TemporaryDirectory() as folder:
            letters = DeadLetters(Path(folder) / "letters.jsonl", self.counters, "refused")
            reader = FeedReader(self.feed, ActivityEvent, letters, self.ahead)
            landed = 0
            for _ in self._read(reader):
                self._put_letters(letters.path)
                landed += self._write()
        if refused := int(self.counters.total("refused")):
            log_message(f"{refused} lines were set aside in {self.to}/dead_letters")
        return landed

    def _read(self, reader: FeedReader[ActivityEvent]) -> Iterator[None]:
        """Read the feed to its end; give way whenever enough rows are there, and at the end."""
        for event in reader.parsed():
            self._add(event)
            if len(self._events) + len(self._impressions) >= ROWS:
                yield
        yield

    def _add(self, event: ActivityEvent) -> None:
        row = {name: getattr(event, name) for name in _IMPRESSIONS}
        more = event.model_extra or {}
        row |= {name: _as_text(more.get(name)) for name in self.context}
        if event.event_type == NOT_INTERESTED:
            row["event_type"] = "hide"
        (self._impressions if event.event_type == IMPRESSION else self._events).append(row)

    def _write(self) -> int:
        rows = len(self._events) + len(self._impressions)
        for name, columns, part in (
            ("events", _EVENTS, self._events),
            ("impressions", _IMPRESSIONS, self._impressions),
        ):
            if part:
                schema = pa.schema({**columns, **dict.fromkeys(self.context, pa.string())})
                table = pa.Table.from_pylist(part, schema=schema)
                self._put(f"{name}/{_stamp()}.parquet", table)
                part.clear()
        self._put_bytes(POSITIONS, json.dumps(self.feed.positions, indent=1).encode())
        return rows

    def _put_letters(self, path: Path) -> None:
        """Keep what was refused, before the position is past it."""
        if path.exists():
            self._put_bytes(f"dead_letters/{_stamp()}.jsonl", path.read_bytes())
            path.unlink()

    def _put(self, name: str, table: pa.Table) -> None:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        self._put_bytes(name, sink.getvalue().to_pybytes())

    def _put_bytes(self, name: str, content: bytes) -> None:
        """Write a file; what reads the folder sees it whole or not."""
        try:
            put_whole(self._store, content, f"{self._root}/{name}")
        except OSError as error:
            raise ServiceUnreachable(f"{self.to} cannot be written: {error}") from None

    def _read_positions(self) -> dict[str, Any]:
        try:
            content = self._store.cat_file(f"{self._root}/{POSITIONS}")
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise ServiceUnreachable(f"{self.to} cannot be read: {error}") from None
        return dict(json.loads(content))


def _stamp() -> str:
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value)


def main(arguments: list[str] | None = None) -> None:
    """Run the command; a RefitError ends it with its message and exit code."""
    parser = argparse.ArgumentParser(prog="serving.feeds.landing", description=__doc__)
    parser.add_argument("--activity", required=True, help="address of the feed; empty: none")
    parser.add_argument("--to", required=True, help="folder or URL of the tables")
    parser.add_argument("--context", default="", help="further columns, with commas between them")
    parser.add_argument("--kafka-properties", default="", help="file of settings of the client")
    options = parser.parse_args(arguments)
    set_up_logging()
    try:
        settings = LiveFeedSettings(kafka_properties=options.kafka_properties)
        feed = open_feed(options.activity, settings, EVER)
        if feed is None:  # an installation without feeds has nothing to land, and no fault
            log_message("no activity feed is named: nothing is written")
            return
        context = tuple(name for name in options.context.split(",") if name)
        with closing(feed):
            rows = Landing(feed, options.to, context).land()
        log_message(f"wrote {rows:,} rows to {options.to}")
    except RefitError as error:
        log_message(f"error: {error}")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()

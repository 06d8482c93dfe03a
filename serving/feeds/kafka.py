"""A feed as a Kafka topic, with one JSON line as the value of each message.

Each process reads every partition by itself, from the time of its bundle on: there is no consumer
group, so nothing is rebalanced, and nothing is committed. A message without a value, with which a
compacted topic forgets a key, says nothing.
"""

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from refit.errors import ServiceUnreachable, UsageError
from refit.progress import log_message
from serving.feeds.feed import MAX_LINE_BYTES, Line, Position

MESSAGES = 1000
"""So many messages are taken at once."""
READ_SECONDS = 0.2
"""So long a call reads on while lines come in, once the topic was read to its end."""
TIMEOUT_SECONDS = 6.0
SILENT_SECONDS = 10.0
"""So long nothing may come while the topic is not at its end."""
LOOK_SECONDS = 5.0
"""Interval at which brokers are asked whether they are there, and for new partitions."""
CHECK_SECONDS = 1.0
"""So long they may take to say so; and the interval while they do not."""
_SETTINGS: Mapping[str, Any] = {
    "group.id": "refit",  # the client wants one; nothing is joined or committed
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",  # so that a gap is seen
    "enable.partition.eof": True,
    "allow.auto.create.topics": False,
    "reconnect.backoff.max.ms": 500,
    "fetch.wait.max.ms": 50,
    "queued.max.messages.kbytes": 16_384,
    "log_level": 0,
}
_WRITER_SETTINGS: Mapping[str, Any] = {
    "enable.idempotence": True,
    "delivery.timeout.ms": 5000,
    "linger.ms": 2,
    "allow.auto.create.topics": False,
    "reconnect.backoff.max.ms": 1000,
    "log_level": 0,
}
DELIVERY_SECONDS = 6.0
_OUT_OF_RANGE = (KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET)


class KafkaFeed:
    """A topic as a feed; see ``serving.feeds.feed.LiveFeed``.

    Args:
        servers: ``host:port,host:port``.
        topic: The topic.
        since: Messages that were written before need not be read.
        properties: Further settings of the client.

    Raises:
        UsageError: The client does not take the properties.
    """

    def __init__(
        self, servers: str, topic: str, since: datetime, properties: Mapping[str, str]
    ) -> None:
        self._servers, self._topic = servers, topic
        self._since_ms = int(since.timestamp() * 1000)
        self._offsets: dict[int, int] = {}
        self._at_end: set[int] = set()
        self._buffer: deque[Message] = deque()
        self._look_at = 0.0
        self._was_read = False
        self._away = ""
        self._resumed: dict[str, int] = {}
        self.gaps = 0
        try:
            self._consumer = Consumer({**properties, **_SETTINGS, "bootstrap.servers": servers})
        except KafkaException as error:
            raise UsageError(f"feeds.kafka_properties: {error.args[0].str()}") from None

    @classmethod
    def at(cls, address: str, properties: str, since: datetime) -> Self:
        """Open the topic of an address, ``kafka://host:port,host:port/topic``.

        Raises:
            UsageError: The address or the file of properties is malformed.
        """
        servers, topic = split_address(address)
        return cls(servers, topic, since, read_properties(properties))

    def read(self) -> Iterator[Line]:
        """The lines since the last call; the first call goes on until the topic's end.

        Raises:
            ServiceUnreachable: No broker answers, or there is no such topic.
        """
        try:
            yield from self._read()
            if time.monotonic() >= self._look_at:
                self._look(CHECK_SECONDS)
        except KafkaException as error:
            self._away = error.args[0].str()
        if self._away:
            raise self._unreachable(self._away)

    @property
    def behind(self) -> int | None:
        """Messages that are not read yet, as far as the brokers have said."""
        behind = 0
        for number, offset in self._offsets.items():
            known = self._consumer.get_watermark_offsets(
                TopicPartition(self._topic, number), cached=True
            )
            if known is None or known[1] < 0:
                return None
            behind += max(known[1] - max(offset, known[0], 0), 0)
        return behind

    @property
    def positions(self) -> dict[str, int]:
        """The next offset of each partition."""
        return {f"{self._topic}/{n}": offset for n, offset in self._offsets.items() if offset >= 0}

    def resume(self, positions: Mapping[str, Any]) -> None:
        """Go on from earlier positions; one that is gone is read from the partition's start."""
        self._resumed = dict(positions)

    def close(self) -> None:
        """Disconnect."""
        self._consumer.close()

    def _read(self) -> Iterator[Line]:
        if not self._offsets:
            self._look(TIMEOUT_SECONDS)
        started = time.monotonic()
        silent_at = started + SILENT_SECONDS
        while True:
            while self._buffer:
                line = self._take(self._buffer[0])
                if line is not None:
                    yield line
                self._buffer.popleft()
            is_at_end = self._at_end >= self._offsets.keys()
            self._was_read |= is_at_end
            if self._was_read and time.monotonic() > started + READ_SECONDS:
                return
            wait = 0.0 if self._was_read else 0.2
            self._buffer.extend(self._consumer.consume(MESSAGES, wait))
            if self._buffer:
                silent_at = time.monotonic() + SILENT_SECONDS
            elif self._was_read:
                return
            elif time.monotonic() > silent_at:
                raise self._unreachable(f"silent for {SILENT_SECONDS:.0f} s before its end")

    def _take(self, message: Message) -> Line | None:
        """What a message says; an event of the client itself says nothing."""
        number, error = message.partition() or 0, message.error()
        if error is None:
            offset = message.offset() or 0
            self._at_end.discard(number)
            self._offsets[number], self._away = offset + 1, ""
            return _as_line(message.value(), Position(f"{self._topic}/{number}", offset))
        if error.code() == KafkaError._PARTITION_EOF:
            self._at_end.add(number)
        elif error.code() in _OUT_OF_RANGE:
            log_message(f"feed: {self._topic}/{number}: lines are gone; it is read from its start")
            self.gaps += 1
            self._at_end.discard(number)
            self._consumer.incremental_unassign([TopicPartition(self._topic, number)])
            self._assign({number: OFFSET_BEGINNING})
        elif not error.retriable() and error.code() != KafkaError._ALL_BROKERS_DOWN:
            log_message(f"feed: {self._topic}/{number}: {error.str()}")
        return None

    def _look(self, timeout: float) -> None:
        """Ask the brokers for the topic's partitions, and read those that are new."""
        self._look_at = time.monotonic() + (CHECK_SECONDS if self._away else LOOK_SECONDS)
        topic = self._consumer.list_topics(self._topic, timeout).topics[self._topic]
        if topic.error is not None:
            self._away = topic.error.str()
            raise self._unreachable(self._away)
        new = topic.partitions.keys() - self._offsets.keys()
        if new and self._offsets:
            self._assign(dict.fromkeys(new, OFFSET_BEGINNING))
        elif new:
            self._assign(self._find_offsets(sorted(new)))
        self._away = ""

    def _find_offsets(self, numbers: list[int]) -> dict[int, int]:
        """Where each partition is read from: the first message written since."""
        partitions = [TopicPartition(self._topic, n, self._since_ms) for n in numbers]
        # The ends are read first, so that no message comes between the two answers.
        ends = [self._consumer.get_watermark_offsets(p, TIMEOUT_SECONDS) for p in partitions]
        found = self._consumer.offsets_for_times(partitions, TIMEOUT_SECONDS)
        offsets = {}
        for (low, high), start in zip(ends, found, strict=True):
            if start.error is not None:
                raise KafkaException(start.error)
            offsets[start.partition] = start.offset if start.offset >= 0 else high
            resumed = self._resumed.get(f"{self._topic}/{start.partition}")
            if resumed is not None:
                offsets[start.partition] = resumed
                continue
            if low > 0 and start.offset == low:
                self.gaps += 1
                log_message(
                    f"feed: {self._topic}/{start.partition}: what was written before offset {low} "
                    "is gone; keep messages for longer than an index is in use"
                )
        return offsets

    def _assign(self, offsets: Mapping[int, int]) -> None:
        self._consumer.incremental_assign(
            [TopicPartition(self._topic, number, offset) for number, offset in offsets.items()]
        )
        self._offsets.update(offsets)

    def _unreachable(self, why: str) -> ServiceUnreachable:
        return ServiceUnreachable(f"the topic {self._topic} at {self._servers}: {why}")


class KafkaWriter:
    """Writes lines to a topic; see ``serving.feeds.writing.FeedWriter``.

    Args:
        servers: ``host:port,host:port``.
        topic: The topic.
        properties: Further settings of the client.

    Raises:
        UsageError: The client does not take the properties.
    """

    def __init__(self, servers: str, topic: str, properties: Mapping[str, str]) -> None:
        self._servers, self._topic = servers, topic
        settings = {**properties, **_WRITER_SETTINGS, "bootstrap.servers": servers}
        try:
            self._producer = Producer(settings)
        except KafkaException as error:
            raise UsageError(f"feeds.kafka_properties: {error.args[0].str()}") from None

    @classmethod
    def at(cls, address: str, properties: str) -> Self:
        """Open the topic of an address.

        Raises:
            UsageError: The address or the file of properties is malformed.
        """
        return cls(*split_address(address), read_properties(properties))

    def append(self, lines: Sequence[tuple[str, bytes]]) -> None:
        """Write lines by their keys, and wait until the brokers have all of them.

        Raises:
            ServiceUnreachable: They do not; some lines may have arrived, so send all again.
        """
        failures: list[str] = []

        def note(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                failures.append(error.str())

        try:
            for key, content in lines:
                self._producer.produce(self._topic, content, key, on_delivery=note)
                self._producer.poll(0)
        except (KafkaException, BufferError) as error:
            failures.append(str(error))
        waiting = self._producer.flush(DELIVERY_SECONDS)
        if failures or waiting:
            why = failures[0] if failures else f"{waiting} lines are not acknowledged"
            raise ServiceUnreachable(f"the topic {self._topic} at {self._servers}: {why}")

    def close(self) -> None:
        """Wait for what is under way."""
        self._producer.flush(DELIVERY_SECONDS)


def split_address(address: str) -> tuple[str, str]:
    """Servers and topic of ``kafka://host:port,host:port/topic``.

    Raises:
        UsageError: It is malformed.
    """
    servers, _, topic = address.removeprefix("kafka://").partition("/")
    if not servers or not topic or "/" in topic:
        raise UsageError(f"{address!r} must be kafka://host:port,host:port/topic")
    return servers, topic


def _as_line(content: bytes | None, position: Position) -> Line | None:
    if not content or not content.strip():
        return None
    fault = f"longer than {MAX_LINE_BYTES} bytes" if len(content) > MAX_LINE_BYTES else ""
    return Line(content, position, fault)


def read_properties(path: str) -> dict[str, str]:
    """Read a file of ``name=value`` lines; ``#`` begins a comment line; no path, no properties.

    Raises:
        UsageError: It cannot be read, or a line has no ``=``.
    """
    if not path:
        return {}
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UsageError(f"feeds.kafka_properties: {error}") from None
    properties = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, separator, value = text.partition("=")
        if not separator:
            raise UsageError(f"feeds.kafka_properties: line {number} of {path} has no `=`")
        properties[name.strip()] = value.strip()
    return properties

"""How a feed is opened by its address."""

from datetime import datetime
from pathlib import Path

from refit.errors import UsageError
from serving.feeds.feed import LiveFeed
from serving.feeds.folder import FolderFeed
from serving.feeds.settings import LiveFeedSettings
from serving.feeds.writing import FeedWriter, FolderWriter

KAFKA = "kafka://"


def open_writer(address: str, settings: LiveFeedSettings) -> FeedWriter:
    """Open a feed to write to it.

    Raises:
        UsageError: The address is malformed.
    """
    if address.startswith(KAFKA):
        from serving.feeds.kafka import KafkaWriter

        return KafkaWriter.at(address, settings.kafka_properties)
    _check_folder(address)
    return FolderWriter(Path(address))


def open_feed(address: str, settings: LiveFeedSettings, since: datetime) -> LiveFeed | None:
    """Open a feed.

    Args:
        address: ``settings.stock`` or ``settings.activity``; empty for none.
        settings: Settings of the feeds.
        since: Lines that were written before need not be read.

    Raises:
        UsageError: The address is malformed.
    """
    if not address:
        return None
    if address.startswith(KAFKA):
        from serving.feeds.kafka import KafkaFeed

        return KafkaFeed.at(address, settings.kafka_properties, since)
    _check_folder(address)
    return FolderFeed(address)


def _check_folder(address: str) -> None:
    if "://" in address:
        raise UsageError(
            f"a feed is a local folder or {KAFKA}host:port/topic, not {address!r}; "
            "correct feeds.stock or feeds.activity"
        )

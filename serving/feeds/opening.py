"""How a feed is opened by its address."""

from refit.errors import UsageError
from serving.feeds.feed import LiveFeed
from serving.feeds.folder import FolderFeed


def open_feed(address: str) -> LiveFeed | None:
    """Open a feed; None for an empty address.

    Raises:
        UsageError: The address is malformed.
    """
    if not address:
        return None
    if "://" in address:
        raise UsageError(f"a feed is a local folder, not {address!r}; correct feeds.stock")
    return FolderFeed(address)

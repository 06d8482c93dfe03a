"""Pages of one list: a cursor holds what was shown, so that no page repeats an item.

A cursor is the ids of all items of the earlier pages, compressed. Nothing is kept on the server,
and any pod can continue a list, also after another bundle has taken over: it excludes what was
shown, and answers with the best of the rest. Whoever changes a cursor excludes other items, which
``exclude`` of a request does as well; so it needs no signature. A page without items ends a list:
it shows nothing, so that it is neither logged nor counted as an answer without items.
"""

import base64
import binascii
import json
import zlib
from collections.abc import Sequence

from serving.request import MAX_CURSOR, MAX_EXCLUDE, RequestError

MOST_BYTES = 1 << 22
"""Of a cursor, decompressed."""
_UNREADABLE = 'cursor: cannot be read; send that of the answer before, or "" for the first page'


def read_cursor(cursor: str | None) -> tuple[str, ...]:
    """Ids of the items of the earlier pages; none for the first page.

    Raises:
        RequestError: It is damaged, or no cursor.
    """
    if not cursor:
        return ()
    try:
        reader = zlib.decompressobj()
        text = reader.decompress(base64.urlsafe_b64decode(cursor.encode("ascii")), MOST_BYTES)
        shown = json.loads(text) if reader.eof else None
        if isinstance(shown, list):
            "".join(shown).encode()  # neither numbers nor half characters
    except (TypeError, ValueError, RecursionError, binascii.Error, zlib.error):
        raise RequestError(_UNREADABLE) from None
    if not isinstance(shown, list):
        raise RequestError(_UNREADABLE)
    if len(shown) > MAX_EXCLUDE:
        raise RequestError(f"cursor: holds more than {MAX_EXCLUDE} items")
    return tuple(shown)


def write_cursor(shown: Sequence[str]) -> str | None:
    """The cursor of the page after these items; None where there are too many for one more."""
    text = json.dumps(list(shown), ensure_ascii=False, separators=(",", ":")).encode()
    cursor = base64.urlsafe_b64encode(zlib.compress(text)).decode("ascii")
    fits = len(shown) < MAX_EXCLUDE and len(text) <= MOST_BYTES and len(cursor) <= MAX_CURSOR
    return cursor if fits else None

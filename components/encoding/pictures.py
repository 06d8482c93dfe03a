"""Read pictures from files and URLs; one that cannot be read is counted, with its reason."""

import io
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from components.encoding.settings import EncodingSettings
from refit.errors import UsageError
from refit.remote import is_url, open_store

if TYPE_CHECKING:
    from PIL import Image

MOST_PIXELS = 64_000_000
"""Larger pictures are not decoded: they may be made to fill the memory."""
ENOUGH_PIXELS = 1024
"""The shorter edge of a picture is scaled down to this, which is above what encoders read."""
AGAIN_SECONDS = 0.5
"""A picture whose store does not answer is asked for once more, after so long."""
AWAY_STATUS = (401, 403, 408, 425, 429)
"""HTTP answers that say more of the server than of one picture, beside those from 500 on."""


@dataclass(frozen=True)
class Unread:
    """Why a picture is not read.

    Attributes:
        reason: Such as ``there is no such file``.
        is_away: Whether the store that holds it does not answer, so that others fail likewise.
    """

    reason: str
    is_away: bool = False


class PictureReader:
    """Reads pictures below some roots.

    Args:
        roots: Places below which pictures may be read.
        settings: Bounds of size and time.
    """

    def __init__(self, roots: Sequence[str], settings: EncodingSettings) -> None:
        self._roots = tuple(root if root.endswith("/") else f"{root}/" for root in roots)
        self._most_bytes = int(settings.largest_picture_mb * 1e6)
        self._seconds = settings.fetch_seconds

    def read(self, place: str) -> "Image.Image | Unread":
        """Read one picture, as RGB.

        Raises:
            UsageError: No installed library reads such URLs.
        """
        if not self._is_below_a_root(place):
            return Unread("it is below none of the roots")
        found = self._try(place)
        if isinstance(found, Unread) and found.is_away:
            time.sleep(AGAIN_SECONDS)
            found = self._try(place)
        return found

    def _try(self, place: str) -> "Image.Image | Unread":
        try:
            content = self._fetch(place)
        except FileNotFoundError:
            return Unread("there is no such file")
        except ImportError as error:
            raise UsageError(f"pictures: {place} cannot be read: {error}") from error
        except ValueError as error:
            return Unread(f"its place is invalid: {error}"[:200])
        except Exception as error:  # clients of stores have errors of their own
            status = getattr(error, "status", None)
            if status is not None and 400 <= status < 500 and status not in AWAY_STATUS:
                return Unread(f"the server answers {status}")
            return Unread(f"{type(error).__name__}: {error}"[:200], is_away=True)
        if len(content) > self._most_bytes:
            return Unread(f"it has more than {self._most_bytes:,} bytes")
        return decode_picture(content)

    def _is_below_a_root(self, place: str) -> bool:
        path = place.partition("://")[2] if is_url(place) else place
        return ".." not in PurePosixPath(path).parts and place.startswith(self._roots)

    def _fetch(self, place: str) -> bytes:
        options: dict[str, Any] = {}
        if place.startswith(("http://", "https://")):
            import aiohttp

            timeout = aiohttp.ClientTimeout(total=self._seconds)
            options = {"client_kwargs": {"timeout": timeout}}
        files, path = open_store(place, **options)
        content: bytes = files.cat_file(path, start=0, end=self._most_bytes + 1)
        return content


def decode_picture(content: bytes) -> "Image.Image | Unread":
    """Decode a picture as RGB, scaled down where it is larger than any encoder needs."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content)) as opened:
            if opened.width * opened.height > MOST_PIXELS:
                return Unread(f"it has more than {MOST_PIXELS:,} pixels")
            opened.draft("RGB", (2 * ENOUGH_PIXELS, 2 * ENOUGH_PIXELS))
            picture = ImageOps.exif_transpose(opened).convert("RGB")
            shorter = min(picture.size)
            if shorter > ENOUGH_PIXELS:
                scale = ENOUGH_PIXELS / shorter
                width, height = (max(round(edge * scale), 1) for edge in picture.size)
                picture = picture.resize((width, height), Image.Resampling.BICUBIC)
            return picture
    except (UnidentifiedImageError, Image.DecompressionBombError):
        return Unread("it is no picture that can be decoded")
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError) as error:
        return Unread(f"it cannot be decoded: {error}"[:200])


def read_ahead(
    reader: PictureReader, places: Iterator[tuple[int, str]], threads: int, ahead: int
) -> "Iterator[tuple[int, str, Image.Image | Unread]]":
    """Read pictures in several threads, in order.

    Args:
        reader: Reads one.
        places: Numbers of pictures, and their places.
        threads: Pictures that are read at the same time.
        ahead: Pictures that may be in memory.

    Yields:
        Number, place, and the picture or why it is not read.
    """
    with ThreadPoolExecutor(threads, "pictures") as pool:
        waiting: deque[tuple[int, str, Future[Image.Image | Unread]]] = deque()
        try:
            for number, place in places:
                waiting.append((number, place, pool.submit(reader.read, place)))
                if len(waiting) >= ahead:
                    number, place, first = waiting.popleft()
                    yield number, place, first.result()
            while waiting:
                number, place, first = waiting.popleft()
                yield number, place, first.result()
        finally:
            for _, _, future in waiting:
                future.cancel()

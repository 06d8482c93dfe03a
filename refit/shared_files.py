"""Small text files that several processes replace by compare and set, in a folder or at a URL.

A file is replaced only while it holds what the writer has read. Of two writers that have read the
same, exactly one succeeds, and the other reads again. No writer has to trust a clock or the end of
another one: a killed writer holds nothing that others wait for.

- In a folder an advisory lock of the operating system covers each comparison. It ends with the
  process that holds it.
- In S3 the store itself compares, by conditional writes (``If-Match``, ``If-None-Match``). Before
  its first write a process checks that the store honours them.
- For other stores, a PostgreSQL database holds what is current, see ``DatabaseFiles``.
"""

import fcntl
import threading
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from refit.errors import ServiceUnreachable, UsageError
from refit.files import write_atomically

LOCK_FILE = ".lock"
MEMORY_LOCK = threading.RLock()
CONFLICTS = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "409", "412"})
PUBLISH_ATTEMPTS = 10


@dataclass(frozen=True)
class Seen:
    """What a file held when it was read.

    Attributes:
        text: Its content; None if it did not exist.
        version: The store's name of this content; "" if the store has none.
    """

    text: str | None
    version: str = ""


class SharedFiles(Protocol):
    """Files by name, such as ``champion.json``."""

    def read(self, name: str) -> Seen:
        """Read a file."""

    def replace(self, name: str, text: str, seen: Seen) -> bool:
        """Replace a file if it still is as it was seen; returns whether it was replaced."""


class FolderFiles:
    """Files of a local folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, name: str) -> Seen:
        """Read a file."""
        try:
            return Seen((self._root / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return Seen(None)

    def replace(self, name: str, text: str, seen: Seen) -> bool:
        """Replace a file if it still is as it was seen; returns whether it was replaced."""
        self._root.mkdir(parents=True, exist_ok=True)
        with (self._root / LOCK_FILE).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self.read(name).text != seen.text:
                return False
            with write_atomically(self._root / name) as staging:
                staging.write_text(text, encoding="utf-8")
            return True


class PlainFiles:
    """Files of any fsspec file system; a comparison holds against the threads of one process."""

    def __init__(self, fs: Any, root: str) -> None:
        self._fs, self._root = fs, root

    def read(self, name: str) -> Seen:
        """Read a file."""
        try:
            return Seen(bytes(self._fs.cat_file(f"{self._root}/{name}")).decode())
        except FileNotFoundError:
            return Seen(None)

    def replace(self, name: str, text: str, seen: Seen) -> bool:
        """Replace a file if it still is as it was seen; returns whether it was replaced."""
        with MEMORY_LOCK:
            if self.read(name).text != seen.text:
                return False
            self.write(name, text)
            return True

    def write(self, name: str, text: str) -> None:
        """Write a file, whatever it holds."""
        self._fs.pipe_file(f"{self._root}/{name}", text.encode())


class S3Files:
    """Files of an S3 bucket, whose ETag is the version.

    Args:
        fs: An ``s3fs.S3FileSystem``.
        root: Bucket and folder.
    """

    def __init__(self, fs: Any, root: str) -> None:
        self._fs = fs
        self._bucket, _, self._folder = root.partition("/")
        self._is_checked = False

    def read(self, name: str) -> Seen:
        """Read a file."""
        from fsspec.asyn import sync

        try:
            content, version = sync(self._fs.loop, self._get, self._key(name))
        except FileNotFoundError:
            return Seen(None)
        return Seen(content.decode(), version)

    def replace(self, name: str, text: str, seen: Seen) -> bool:
        """Replace a file if it still is as it was seen; returns whether it was replaced.

        Raises:
            UsageError: The store ignores conditions.
        """
        self._check_store()
        return self._put(name, text, seen)

    async def _get(self, key: str) -> tuple[bytes, str]:
        answer = await self._fs._call_s3("get_object", Bucket=self._bucket, Key=key)
        async with answer["Body"] as body:
            return await body.read(), answer["ETag"]

    def _put(self, name: str, text: str, seen: Seen) -> bool:
        condition = {"IfNoneMatch": "*"} if seen.text is None else {"IfMatch": seen.version}
        place = {"Bucket": self._bucket, "Key": self._key(name)}
        try:
            self._fs.call_s3("put_object", **place, Body=text.encode(), **condition)
        except OSError as error:
            if s3_code(error) not in CONFLICTS and not isinstance(error, FileExistsError):
                raise
            # The client repeats a write whose answer was lost; then the conflict is with itself.
            return self.read(name).text == text
        return True

    def _check_store(self) -> None:
        """Check that the store refuses a write whose condition does not hold."""
        if self._is_checked:
            return
        name = f".condition-{uuid.uuid4().hex}"
        if not self._put(name, "1", Seen(None)):
            raise ServiceUnreachable(f"s3://{self._bucket} holds a file that was never written")
        try:
            if self._put(name, "2", Seen(None)) or self._put(name, "3", Seen("0", f'"{"0" * 32}"')):
                raise UsageError(
                    f"the store of s3://{self._bucket} ignores the conditions of a write, so that "
                    "two changes of the champion at once could both succeed; name a PostgreSQL "
                    "database for this registry: refit bundles coordinate DATABASE"
                )
        finally:
            self._fs.call_s3("delete_object", Bucket=self._bucket, Key=self._key(name))
        self._is_checked = True

    def _key(self, name: str) -> str:
        return f"{self._folder}/{name}" if self._folder else name


def open_shared_files(fs: Any, root: str) -> SharedFiles | None:
    """Files of a file system that compares before it writes; None where Refit knows no way.

    Args:
        fs: An fsspec file system.
        root: The folder in it, without a slash at its end.
    """
    if "file" in fs.protocol:
        return FolderFiles(Path(root))
    if "memory" in fs.protocol:
        return PlainFiles(fs, root)
    return S3Files(fs, root) if "s3" in fs.protocol else None


class DatabaseFiles:
    """Files of a store without conditional writes; a PostgreSQL database holds what is current.

    A row holds a file's text and a number that grows with each change. A change first becomes
    current in the database, in a transaction without other writers, and is then published: written
    to the store, for those who only read. Publishing reads the row again under the same lock and
    repeats itself until its transaction commits. A writer that stalls for so long that the server
    ends its session therefore replaces what it wrote late by what is current then. What a killed
    writer has not published, the next reader of this class publishes.

    Args:
        files: The store.
        place: ``postgresql+psycopg://USER@HOST/DATABASE``; the password is in PGPASSWORD.
        registry: Name of the registry, since one database may serve several.

    Raises:
        UsageError: The place is no PostgreSQL database, or holds a password.
    """

    def __init__(self, files: PlainFiles, place: str, registry: str) -> None:
        from sqlalchemy import BigInteger, Column, MetaData, Table, Text

        from refit.database import POSTGRESQL, Database, parse_place

        if parse_place(place, "the registry's database").drivername not in POSTGRESQL:
            raise UsageError(f"{place} is no PostgreSQL database")
        self._files, self._registry = files, registry
        self._database = Database(place, what="the registry's database")
        self._table = Table(
            "registry_files",
            MetaData(),
            Column("registry", Text, primary_key=True),
            Column("name", Text, primary_key=True),
            Column("text", Text, nullable=False),
            Column("number", BigInteger, nullable=False),
            Column("published", BigInteger, nullable=False),
        )

    def read(self, name: str) -> Seen:
        """Read a file; one that was not published is published first."""
        with self._database.writing() as connection:
            self._table.create(connection, checkfirst=True)
            row = self._find(connection, name)
        if row is None:
            return self._files.read(name)
        if row.published < row.number:
            self._publish(name)
        return Seen(row.text, str(row.number))

    def replace(self, name: str, text: str, seen: Seen) -> bool:
        """Replace a file if it still is as it was seen; returns whether it was replaced."""
        with self._database.writing() as connection:
            self._table.create(connection, checkfirst=True)
            row = self._find(connection, name)
            current = row.text if row else self._files.read(name).text
            if current != seen.text:
                return False
            values = {"text": text, "number": row.number + 1 if row else 1}
            keys = {"registry": self._registry, "name": name}
            insert = self._database.insert(self._table).values(**keys, **values, published=0)
            connection.execute(insert.on_conflict_do_update(index_elements=list(keys), set_=values))
        self._publish(name)
        return True

    def forget(self) -> None:
        """Remove the registry's rows: what the store holds is then current."""
        with self._database.writing() as connection:
            self._table.create(connection, checkfirst=True)
            rows = self._table.c.registry == self._registry
            connection.execute(self._table.delete().where(rows))

    def _find(self, connection: Any, name: str) -> Any:
        columns = self._table.c
        wanted = (columns.registry == self._registry) & (columns.name == name)
        return connection.execute(self._table.select().where(wanted)).one_or_none()

    def _publish(self, name: str) -> None:
        """Write what is current to the store, until nothing has become current meanwhile."""
        columns = self._table.c
        wanted = (columns.registry == self._registry) & (columns.name == name)
        for attempt in range(PUBLISH_ATTEMPTS):
            try:
                with self._database.writing() as connection:
                    row = self._find(connection, name)
                    self._files.write(name, row.text)
                    published = self._table.update().where(wanted).values(published=row.number)
                    connection.execute(published)
                return
            except ServiceUnreachable:
                if attempt + 1 == PUBLISH_ATTEMPTS:
                    raise


def s3_code(error: OSError) -> str:
    """The S3 error code that an error of s3fs was made from."""
    response = getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))

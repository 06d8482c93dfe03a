"""The parts of a prediction log, as its readers see them.

A log has a folder ``date=YYYY-MM-DD`` for each day (UTC). Servers add small parts, which appear
whole and never change. ``refit.log_keeping`` merges them: the day's ``_parts.json`` names the
merged parts that count, and those that they replaced. It is changed by compare and set, so that an
answer counts once at any moment, whatever is merged or killed meanwhile. What was replaced stays
for an hour, for those who are reading it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from refit.errors import RefitError, ServiceUnreachable, UsageError
from refit.remote import open_store
from refit.settings import Settings
from refit.shared_files import Seen, SharedFiles, open_shared_files

DAY = "date="
MANIFEST = "_parts.json"
MERGED = "merged-"
LAST_DAY = "9999-12-31"
ATTEMPTS = 3
"""How often a log is listed again because a part went away while it was copied."""


class MergedParts(Settings):
    """Which parts of one day count.

    Attributes:
        epoch: Grows with every change.
        parts: Names of the merged parts; others that are there do not count.
        replaced: By ISO time, names of the parts that were replaced then. Names are kept when the
            parts are gone: a server that lost a reply may upload its part again.
    """

    epoch: int = 0
    parts: tuple[str, ...] = ()
    replaced: Mapping[str, tuple[str, ...]] = {}

    @cached_property
    def gone(self) -> frozenset[str]:
        """Names of all parts that were replaced."""
        return frozenset(name for names in self.replaced.values() for name in names)

    def replace(self, names: Iterable[str], by: Iterable[str], at: datetime) -> "MergedParts":
        """The manifest after parts were replaced by merged ones."""
        lost = set(names)
        kept = [name for name in self.parts if name not in lost]
        replaced, when = dict(self.replaced), at.isoformat()
        if lost:
            replaced[when] = (*replaced.get(when, ()), *sorted(lost))
        return MergedParts(epoch=self.epoch + 1, parts=(*kept, *by), replaced=replaced)

    def replaced_before(self, moment: datetime) -> set[str]:
        """Names of the parts that were replaced before a time."""
        times = ((datetime.fromisoformat(at), names) for at, names in self.replaced.items())
        return {name for at, names in times if at <= moment for name in names}

    def select(self, names: Iterable[str]) -> list[str]:
        """Names of the parts that count, of those in the day's folder."""
        small = {name for name in names if is_part(name) and not name.startswith(MERGED)}
        return sorted((small - self.gone) | set(self.parts))

    def find_unnamed(self, names: Iterable[str]) -> list[str]:
        """Merged parts that never counted: of a merge that goes on, or was killed."""
        merged = {name for name in names if is_part(name) and name.startswith(MERGED)}
        return sorted(merged - set(self.parts) - self.gone)


def is_part(name: str) -> bool:
    """Whether a file's name is that of a part."""
    return name.endswith(".parquet") and not name.startswith((".", "_"))


@dataclass(frozen=True)
class LogParts:
    """A prediction log's parts, day by day.

    Attributes:
        place: The log's folder or URL, as it was given.
        store: The file system.
        root: The log's place in it.
    """

    place: str
    store: Any
    root: str

    @classmethod
    def at(cls, place: str | Path) -> "LogParts":
        """The parts of a log in a folder or at a URL.

        Raises:
            UsageError: No installed library supports the URL.
        """
        try:
            store, root = open_store(str(place))
        except (ValueError, ImportError) as error:
            raise UsageError(f"{place} cannot be read: {error}") from error
        return cls(str(place), store, root.rstrip("/"))

    def days(self, first: str = "", last: str = LAST_DAY) -> list[str]:
        """The days from ``first`` to ``last`` that have a folder, such as ``2026-03-01``."""
        names = (name for name in self._list(self.root) if name.startswith(DAY))
        return sorted(day for name in names if first <= (day := name.removeprefix(DAY)) <= last)

    def list_day(self, day: str) -> list[str]:
        """Names of all files of a day."""
        names = self._list(f"{self.root}/{DAY}{day}")
        return [name for name in names if name != f"{DAY}{day}"]  # as S3 lists an empty folder

    def path(self, day: str, name: str) -> str:
        """The path of a part in the file system."""
        return f"{self.root}/{DAY}{day}/{name}"

    def live(self, day: str) -> list[str]:
        """Names of a day's parts that count."""
        # Listed first: what is merged in between is named by the manifest.
        names = self.list_day(day)
        return (self.read_manifest(day) if MANIFEST in names else MergedParts()).select(names)

    def find(self, first: str = "", last: str = LAST_DAY) -> list[str]:
        """Paths of the parts that count, of the days from ``first`` to ``last``.

        Raises:
            OSError: The log cannot be read.
        """
        days = self.days(first, last)
        return [self.path(day, name) for day in days for name in self.live(day)]

    def read_manifest(self, day: str) -> MergedParts:
        """A day's manifest; without one, nothing was merged."""
        try:
            text = bytes(self.store.cat_file(self.path(day, MANIFEST))).decode()
        except FileNotFoundError:
            return MergedParts()
        return parse_manifest(text, self.path(day, MANIFEST))

    def see_manifest(self, day: str) -> tuple[Seen, MergedParts]:
        """A day's manifest, to be replaced."""
        seen = self.shared.read(f"{DAY}{day}/{MANIFEST}")
        parsed = MergedParts()
        if seen.text is not None:
            parsed = parse_manifest(seen.text, self.path(day, MANIFEST))
        return seen, parsed

    def replace_manifest(self, day: str, seen: Seen, manifest: MergedParts) -> bool:
        """Replace a day's manifest if it still is as it was seen; returns whether it was."""
        try:
            return self.shared.replace(f"{DAY}{day}/{MANIFEST}", manifest.to_json(), seen)
        except UsageError:
            raise self._no_conditions() from None

    @cached_property
    def shared(self) -> SharedFiles:
        """How the manifests are changed.

        Raises:
            UsageError: The store cannot compare before it writes.
        """
        if (files := open_shared_files(self.store, self.root)) is None:
            raise self._no_conditions()
        return files

    def _no_conditions(self) -> UsageError:
        return UsageError(
            f"{self.place}: its store has no conditional writes that Refit knows, so its parts "
            "cannot be replaced; keep the log in a folder or in S3"
        )

    def copy(self, folder: Path, first: str = "") -> Path:
        """Copy the parts that count into a new folder, which is a log then.

        Args:
            folder: Where the copy is made.
            first: The first day that is copied.

        Returns:
            The copy.

        Raises:
            ServiceUnreachable: The log cannot be read.
        """
        for attempt in range(ATTEMPTS):
            try:
                return self._copy(folder / f"copy-{attempt}", first)
            except FileNotFoundError:  # what it had listed was replaced, and is gone
                continue
            except RefitError:
                raise
            except Exception as error:  # clients of stores have errors of their own
                raise ServiceUnreachable(f"{self.place} cannot be read: {error}") from error
        raise ServiceUnreachable(f"{self.place} cannot be read: its parts go away while it is read")

    def _copy(self, folder: Path, first: str) -> Path:
        folder.mkdir(parents=True)
        for day in self.days(first):
            names, target = self.live(day), folder / f"{DAY}{day}"
            target.mkdir()
            paths = [self.path(day, name) for name in names]
            self.store.get(paths, [str(target / name) for name in names])
            merged = MergedParts(parts=tuple(n for n in names if n.startswith(MERGED)))
            (target / MANIFEST).write_text(merged.to_json(), encoding="utf-8")
        return folder

    def _list(self, folder: str) -> list[str]:
        try:
            found = self.store.ls(folder, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [str(path).rstrip("/").rsplit("/", 1)[-1] for path in found]


def parse_manifest(text: str, path: str) -> MergedParts:
    """Read a manifest.

    Raises:
        RefitError: It is none.
    """
    try:
        return MergedParts.model_validate_json(text)
    except ValidationError as error:
        raise RefitError(f"{path} is damaged: {error}") from None


def find_local_parts(folder: Path) -> list[Path]:
    """The parts of one local folder that count, such as a day's."""
    names = [path.name for path in folder.iterdir()]
    manifest, path = MergedParts(), folder / MANIFEST
    if MANIFEST in names:
        manifest = parse_manifest(path.read_text(encoding="utf-8"), str(path))
    return [folder / name for name in manifest.select(names)]

"""The ledger: every judgement of a model on a test window, kept in the registry.

A model that is no better passes a test of level 5% sooner or later, if enough models are tried on
the same window. So every judgement is one JSON object of its own below ``ledger/``; a later one on
the same window is a further *look*, and has to clear a wider interval.

The k-th look gets the error ``0.05 / k**2``: the first look is the usual 95% interval, and by
Bonferroni's inequality a model that is no better passes in all looks together with a probability of
at most pi**2 / 6 = 1.64 times that of one look. The sum holds as long as what is tried next depends
on earlier looks only through "refused" (Blum & Hardt 2015, The Ladder); who reads the report and
tunes on its numbers learns more than that, which is why a window also becomes due for replacement.
"""

import getpass
import hashlib
import json
import os
import socket
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from fsspec.implementations.local import LocalFileSystem
from numpy.typing import NDArray
from pydantic import Field

from refit.errors import RefitError, ServiceUnreachable
from refit.files import write_atomically
from refit.remote import open_store
from refit.settings import Settings

LEDGER_FOLDER = "ledger"
ERROR = 0.05
"""The error of the first look's two-sided interval."""
SKETCH_SIZE = 256
"""Hashes kept of a window: the share of shared queries is known to about 0.03."""


class LookSettings(Settings):
    """How judgements on the same test window are counted, and when a fresh one is due.

    Attributes:
        same_window: Two windows count as the same when at least this share of the later one's
            test queries (user, item and time) are in the earlier one. A window that is moved by a
            day, or cut a little differently, stays the same window.
        most: After this many looks the report says that a fresh window is due.
        refuse: Whether the gate then refuses, whatever the model.
    """

    same_window: float = Field(default=0.5, gt=0.0, le=1.0)
    most: int = Field(default=10, ge=1)
    refuse: bool = False


class JudgedWindow(Settings):
    """A test window: when it was, and which queries it holds.

    Attributes:
        start, until: Times of its first and last query.
        queries: Their number.
        sketch: The smallest hashes of (user, item, time) over its queries, rising. Two sketches
            tell how many queries two windows share (Broder 1997, bottom-k).
    """

    start: datetime
    until: datetime
    queries: int = Field(ge=1)
    sketch: tuple[int, ...]

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the sketch, in hex; the same queries have the same."""
        text = f"{self.queries}:{','.join(map(str, self.sketch))}"
        return hashlib.sha256(text.encode()).hexdigest()

    def share_in(self, other: "JudgedWindow") -> float:
        """Which share of this window's queries the other one holds too, 0 to 1; an estimate."""
        both = set(self.sketch) & set(other.sketch)
        union = sorted(set(self.sketch) | set(other.sketch))[:SKETCH_SIZE]
        jaccard = sum(1 for value in union if value in both) / len(union)
        shared = jaccard * (self.queries + other.queries) / (1 + jaccard)
        return min(1.0, shared / self.queries)


class Judgement(Settings):
    """One judgement of a model on a test window.

    Attributes:
        name: Its file's name, without the suffix.
        look: Its number among the looks at this window, from 1.
        at: When it was judged.
        by, host: The account and the machine that judged.
        run: The run that it was part of.
        window: The test window.
        model: The ``embedding_version`` of the towers.
        metrics: The primary metric and the guard metric.
        settings: Fingerprint of the evaluation settings.
        champion: The embedding version of the champion it was compared with, if any.
        result: ``unfinished`` until there is a verdict; that counts as a look, too.
        reasons: Why it was refused.
        value: The model's primary metric.
        gains: By method, the paired gain of the primary metric.
    """

    name: str
    look: int = 0
    at: datetime
    by: str
    host: str
    run: str
    window: JudgedWindow
    model: str
    metrics: tuple[str, ...]
    settings: str
    champion: str = ""
    result: Literal["unfinished", "passed", "refused", "cannot tell"] = "unfinished"
    reasons: tuple[str, ...] = ()
    value: float | None = None
    gains: dict[str, float | None] = {}

    @property
    def question(self) -> tuple[str, ...]:
        """What was asked: a repeated judgement of the same model by the same metrics is no look."""
        return (self.model, *self.metrics)


class Looks(Settings):
    """How often a test window was looked at, this judgement included.

    Attributes:
        number: The number of this look; None where no ledger was kept.
        most: After how many a fresh window is due.
        earlier_passes: How many of the other models passed on this window.
    """

    number: int | None = None
    most: int = 10
    earlier_passes: int = 0

    @property
    def due(self) -> bool:
        """Whether a fresh window is due."""
        return self.number is not None and self.number > self.most

    @property
    def level(self) -> float:
        """Confidence level of the two-sided interval that this look has to clear."""
        return confidence(self.number or 1)

    def describe(self) -> str:
        """The looks in words, for the report."""
        if self.number is None:
            return (
                "Looks at this test window were not counted, since the evaluation was given no "
                "registry."
            )
        if self.number == 1:
            return "This is the first look at this test window."
        text = (
            f"This is look {self.number} at this test window: {self.number - 1} other "
            f"{'model was' if self.number == 2 else 'models were'} judged on it, "
            f"{self.earlier_passes or 'none'} of them passed. The gate therefore takes the lower "
            f"ends of {100 * self.level:.4g}% intervals in place of 95%."
        )
        if self.due:
            text += (
                f" A fresh window is due: after {self.most} looks what is learned from the "
                "window is more and more its chance. Take later data, or move ingestion.end."
            )
        return text

    def widen(self, value: float, end: float) -> float:
        """An end of an interval at this look's level.

        Args:
            value: The estimate.
            end: The lower or the upper end of its 95% interval, whose distance is stretched by the
                ratio of the normal quantiles.
        """
        return value + (end - value) * stretch(self.number or 1)


def confidence(look: int) -> float:
    """Confidence level of the k-th look: 1 - 0.05 / k**2."""
    return 1.0 - ERROR / look**2


def stretch(look: int) -> float:
    """How much wider the k-th look's interval is than the 95% interval."""
    normal = NormalDist()
    return normal.inv_cdf(1.0 - ERROR / (2 * look**2)) / normal.inv_cdf(1.0 - ERROR / 2)


def describe_window(
    user_ids: Iterable[str],
    item_ids: Iterable[str],
    user: NDArray[Any],
    item: NDArray[Any],
    time: NDArray[np.int64],
) -> JudgedWindow:
    """Describe the queries of a test window.

    Args:
        user_ids: Ids of the users by number.
        item_ids: Ids of the items by number.
        user: [n] number of each query's user.
        item: [n] number of its positive item.
        time: [n] microseconds since 1970.
    """
    hashes = _mix(_hash(user_ids)[user])
    hashes = _mix(hashes ^ _hash(item_ids)[item])
    hashes = np.unique(_mix(hashes ^ time.astype(np.uint64)))
    first, last = (datetime.fromtimestamp(int(t) / 1e6, UTC) for t in (time.min(), time.max()))
    return JudgedWindow(
        start=first,
        until=last,
        queries=len(hashes),
        sketch=tuple(int(value) for value in hashes[:SKETCH_SIZE]),
    )


class Ledger:
    """The judgements of a registry. It needs no lock: nobody writes another one's object.

    Args:
        registry: Folder or URL of the registry.
    """

    def __init__(self, registry: str | Path) -> None:
        self.fs, root = open_store(str(registry))
        self.root = f"{root.rstrip('/')}/{LEDGER_FOLDER}"

    def begin(self, draft: Judgement, settings: LookSettings) -> tuple[Judgement, Looks]:
        """Write an unfinished judgement, then count the looks at its window.

        Of two that are written at the same time each counts the other. A model that was judged on
        this window before keeps the number of that look.

        Returns:
            The judgement with the number of its look, and the looks.

        Raises:
            RefitError: An entry of the ledger cannot be read.
            ServiceUnreachable: The registry does not answer.
        """
        self._write(draft)
        same = [
            other
            for other in self.read()
            if other.name != draft.name
            and draft.window.share_in(other.window) >= settings.same_window
        ]
        known = [one.look for one in same if one.question == draft.question and one.look]
        others = {one.question for one in same if one.question != draft.question}
        passed = {
            one.question
            for one in same
            if one.result == "passed" and one.question != draft.question
        }
        number = min(known) if known else len(others) + 1
        judgement = draft.model_copy(update={"look": number})
        return judgement, Looks(number=number, most=settings.most, earlier_passes=len(passed))

    def finish(self, judgement: Judgement) -> None:
        """Write a judgement in place of its unfinished one."""
        self._write(judgement)

    def read(self) -> tuple[Judgement, ...]:
        """All judgements, oldest first.

        Raises:
            RefitError: An entry cannot be read; the message names it.
            ServiceUnreachable: The registry does not answer.
        """
        with self._translated_errors():
            paths = sorted(self.fs.glob(f"{self.root}/*.json"))
            texts = self.fs.cat(paths) if paths else {}
        return tuple(_parse(path, texts[path]) for path in sorted(texts))

    def _write(self, judgement: Judgement) -> None:
        path = f"{self.root}/{judgement.name}.json"
        text = judgement.model_dump_json(indent=2) + "\n"
        with self._translated_errors():
            if isinstance(self.fs, LocalFileSystem):
                with write_atomically(Path(path)) as staging:
                    staging.write_text(text, encoding="utf-8")
            else:
                self.fs.pipe_file(path, text.encode())

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except RefitError:
            raise
        except Exception as error:
            if isinstance(self.fs, LocalFileSystem):
                raise
            raise ServiceUnreachable(f"ledger {self.root} cannot be reached: {error}") from error


def draft_judgement(**values: Any) -> Judgement:
    """A judgement of now, by this account on this machine, before its look is counted.

    Args:
        **values: The other attributes of a ``Judgement``.
    """
    now = datetime.now(UTC)
    return Judgement(
        name=f"{now:%Y%m%dT%H%M%S.%f}-{uuid.uuid4().hex[:8]}",
        at=now,
        by=_account(),
        host=socket.gethostname(),
        **values,
    )


def _account() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return str(os.getuid())


def _parse(path: str, text: bytes) -> Judgement:
    try:
        return Judgement.model_validate(json.loads(text))
    except ValueError as error:
        name = PurePosixPath(path).name
        raise RefitError(
            f"{path} is not a judgement: {error}. Without it the looks at a test window cannot be "
            f"counted; restore {name} or move it out of the ledger"
        ) from None


def _hash(ids: Iterable[str]) -> NDArray[np.uint64]:
    """[N] one 64-bit hash for each id, the same on every machine."""
    digests = b"".join(hashlib.blake2b(str(i).encode(), digest_size=8).digest() for i in ids)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of SplitMix64 (Steele et al. 2014): every bit depends on every bit."""
    with np.errstate(over="ignore"):
        mixed = values + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))

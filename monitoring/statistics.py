"""How far two samples lie apart: each statistic reads a column and compares two of them.

A statistic has two halves. ``encode`` turns a table's column into an array with one row a unit
(an answer, a listing, an event); ``compare`` maps two such arrays to one number, larger when they
differ more. Calibration resamples encoded rows, so both halves agree by construction.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon as _scipy_jensenshannon
from scipy.stats import wasserstein_distance

from refit.errors import ContractBroken

Array = NDArray[Any]
Encoded = tuple[Array, NDArray[np.int64]]
OTHER = "(other)"


@dataclass(frozen=True)
class Frame:
    """Columns of equal length.

    Attributes:
        day: The day number that each row belongs to, -1 where it is not known.
        lacking: Columns that could not be made, with the reason.
    """

    columns: Mapping[str, Array]
    day: NDArray[np.int64]
    lacking: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.day)

    def column(self, name: str) -> Array:
        """The column ``name``.

        Raises:
            ContractBroken: It is not there.
        """
        if name in self.lacking:
            raise ContractBroken(self.lacking[name])
        if name not in self.columns:
            have = ", ".join(sorted(self.columns)) or "no columns"
            raise ContractBroken(f"column {name!r} is missing; there are: {have}")
        return self.columns[name]


@dataclass(frozen=True)
class Statistic:
    """One way of telling two samples apart.

    Attributes:
        encode: (frame, column, by, values) -> the usable rows encoded, and their positions;
            ``values`` is the vocabulary.
        compare: (reference, current) -> a number >= 0, 0 when they are the same.
        unit: What the value means, for a reader.
        flat: Encoded rows are single numbers.
    """

    encode: Callable[[Frame, str, str, Sequence[str]], Encoded]
    compare: Callable[[Array, Array], float]
    unit: str
    flat: bool = False


def is_missing(values: Array, length: int | None = None) -> NDArray[np.bool_]:
    """Which entries are null, NaN, "" or, for vectors, not finite or not of this length."""
    if values.dtype != object:
        return np.isnan(values) if values.dtype.kind == "f" else np.zeros(len(values), dtype=bool)
    return np.fromiter((_missing(value, length) for value in values), bool, len(values))


def _missing(value: Any, length: int | None) -> bool:
    if length is not None:
        return value is None or len(value) != length or not np.isfinite(value).all()
    return value is None or (isinstance(value, float) and value != value) or value == ""


def vectors(column: Array, length: int) -> Encoded:
    """[n, length] the usable vectors of a column, and their positions; others are left out."""
    positions = np.flatnonzero(~is_missing(column, length))
    if not len(positions):
        return np.empty((0, length)), positions
    return np.stack(list(column[positions])).astype(np.float64), positions


def _encode_vectors(frame: Frame, column: str, by: str, values: Sequence[str]) -> Encoded:
    return vectors(frame.column(column), int(values[0]))


def _encode_numbers(frame: Frame, column: str, by: str, values: Sequence[str]) -> Encoded:
    numbers = np.asarray(frame.column(column), dtype=np.float64)
    positions = np.flatnonzero(np.isfinite(numbers))
    return numbers[positions], positions


def _encode_mix(frame: Frame, column: str, by: str, values: Sequence[str]) -> Encoded:
    """[n, K+1] how often each value occurs in a row; the last column counts all other values."""
    cells = frame.column(column)
    place = {value: position for position, value in enumerate(values)}
    rest = len(values)
    counts = np.zeros((len(cells), rest + 1))
    for row, cell in enumerate(cells):
        for value in cell if isinstance(cell, list | tuple | np.ndarray) else (cell,):
            if not _missing(value, None):
                counts[row, place.get(str(value), rest)] += 1
    positions = np.flatnonzero(counts.any(axis=1))
    return counts[positions], positions


def _encode_missing(frame: Frame, column: str, by: str, values: Sequence[str]) -> Encoded:
    length = int(values[0]) if values else None
    missing = is_missing(frame.column(column), length).astype(np.float64)
    return missing, np.arange(len(missing))


def _encode_codes(frame: Frame, column: str, by: str, values: Sequence[str]) -> Encoded:
    """[n] the place of each value in the vocabulary, -1 for a value that is not in it."""
    cells = frame.column(column)
    place = {value: position for position, value in enumerate(values)}
    positions = np.flatnonzero(~is_missing(cells))
    codes = (place.get(str(value), -1) for value in cells[positions])
    return np.fromiter(codes, np.int64, len(positions)), positions


def _encode_grouped_vectors(frame: Frame, column: str, by: str, values: Sequence[str]) -> Encoded:
    """[n, 1+d] the code of the row's group, then its vector."""
    length, groups = int(values[0]), values[1:]
    rows, positions = vectors(frame.column(column), length)
    place = {value: position for position, value in enumerate(groups)}
    names = frame.column(by)[positions] if by else np.full(len(rows), "", dtype=object)
    codes = np.array([place.get(str(name), -1) for name in names], dtype=np.float64)
    return np.column_stack([codes, rows]), positions


def _encode_members(frame: Frame, column: str, by: str, values: Sequence[str]) -> Encoded:
    """[n, k] codes of the values that a row lists, -1 where it lists fewer than k."""
    cells = frame.column(column)
    codes: dict[str, int] = {}
    rows = np.full((len(cells), int(values[0])), -1.0)
    for row, cell in enumerate(cells):
        present = [str(value) for value in cell if not _missing(value, None)]
        for place, value in enumerate(present[: rows.shape[1]]):
            rows[row, place] = codes.setdefault(value, len(codes))
    positions = np.flatnonzero((rows >= 0).any(axis=1))
    return rows[positions], positions


def frechet(reference: Array, current: Array) -> float:
    """Fréchet distance of the two samples' Gaussians, as a share of the reference's variance.

    Both samples are [n, d]. |m1-m2|^2 + tr(S1 + S2 - 2 (S1^.5 S2 S1^.5)^.5), over tr(S1).
    Source: Dowson and Landau, 1982.
    """
    first, second = np.cov(reference, rowvar=False), np.cov(current, rowvar=False)
    first, second = np.atleast_2d(first), np.atleast_2d(second)
    values, basis = np.linalg.eigh(first)
    root = (basis * np.sqrt(np.clip(values, 0, None))) @ basis.T
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ second @ root), 0, None)).sum()
    moved = np.square(reference.mean(axis=0) - current.mean(axis=0)).sum()
    spread = max(float(np.trace(first)), 1e-12)
    return max(0.0, float(moved + np.trace(first) + np.trace(second) - 2 * cross) / spread)


def wasserstein(reference: Array, current: Array) -> float:
    """First Wasserstein distance over the reference's standard deviation, as Evidently's."""
    scale = max(float(np.std(reference)), 0.001)
    return float(wasserstein_distance(reference, current)) / scale


def jensenshannon(reference: Array, current: Array) -> float:
    """Jensen-Shannon distance (natural logarithm) of two mixes, as Evidently's."""
    return float(_scipy_jensenshannon(reference.sum(axis=0), current.sum(axis=0)))


def share_difference(reference: Array, current: Array) -> float:
    """How far two shares lie apart."""
    return abs(float(current.mean()) - float(reference.mean()))


def new_share(reference: Array, current: Array) -> float:
    """Share of current rows whose value the reference does not hold."""
    return float((~np.isin(current, reference) | (current < 0)).mean())


def norm_change(reference: Array, current: Array) -> float:
    """Relative change of the mean vector length."""
    before = max(float(np.linalg.norm(reference, axis=1).mean()), 1e-12)
    return abs(float(np.linalg.norm(current, axis=1).mean()) / before - 1)


def centroid_shift(reference: Array, current: Array) -> float:
    """How far groups' mean vectors moved, as a share of the reference's variance.

    More listings of one category move the mix but no category's own mean; another encoder moves
    every one of them. Groups weigh as many rows as they have in the current sample.
    """
    spread = max(float(reference[:, 1:].var(axis=0).sum()), 1e-12)
    moved, weight = 0.0, 0
    for group in np.intersect1d(reference[:, 0], current[:, 0]):
        there = reference[reference[:, 0] == group, 1:]
        here = current[current[:, 0] == group, 1:]
        distance = np.square(there.mean(axis=0) - here.mean(axis=0)).sum()
        # What two samples of the same vectors would lie apart by chance is taken off, so that
        # small groups do not look as if they had moved.
        chance = spread * (1 / len(there) + 1 / len(here))
        moved += len(here) * max(0.0, distance - chance)
        weight += len(here)
    if not weight:
        raise ContractBroken("no group of the reference occurs in the window")
    return moved / weight / spread


def concentration_change(reference: Array, current: Array) -> float:
    """How many times more, or less, often two answers recommend the same value; logarithm."""
    return abs(math.log(_concentration(current) / _concentration(reference)))


def _concentration(rows: Array) -> float:
    """Chance that two slots of two different answers hold the same value.

    Unlike a Gini coefficient it does not depend on how many answers there are. Source: Simpson,
    1949, taken between answers.
    """
    listed = rows >= 0
    counts = np.bincount(rows[listed].astype(np.int64)).astype(np.float64)
    same = (rows[:, :, None] == rows[:, None, :]) & listed[:, :, None]
    pairs = np.square(counts.sum()) - np.square(listed.sum(axis=1)).sum()
    alike = np.square(counts).sum() - same.sum()
    # Half a pair keeps the logarithm finite where no value came twice.
    return float(max(alike, 0.5) / max(pairs, 1.0))


STATISTICS: Mapping[str, Statistic] = {
    "frechet": Statistic(_encode_vectors, frechet, "share of the reference's variance"),
    "wasserstein": Statistic(_encode_numbers, wasserstein, "standard deviations", flat=True),
    "jensenshannon": Statistic(_encode_mix, jensenshannon, "distance, 0 to 0.83"),
    "concentration": Statistic(_encode_members, concentration_change, "logarithm of the ratio"),
    "null-share": Statistic(_encode_missing, share_difference, "share of rows", flat=True),
    "new-values": Statistic(_encode_codes, new_share, "share of rows", flat=True),
    "vector-norm": Statistic(_encode_vectors, norm_change, "relative change"),
    "centroid-shift": Statistic(
        _encode_grouped_vectors, centroid_shift, "share of the reference's variance"
    ),
}

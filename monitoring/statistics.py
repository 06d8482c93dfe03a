"""How far two samples lie apart: each statistic reads a column and compares two of them.

A statistic has three parts. ``encode`` turns a table's column into an array with one row a unit
(an answer, a listing, an event); ``summarise`` boils such a sample down to all that is compared of
it; ``compare`` maps two summaries to one number, larger when they differ more. Calibration
resamples encoded rows and summarises each sample once, so that all parts agree by construction.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.special import rel_entr

from refit.errors import DataValidationError

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
            DataValidationError: It is not there.
        """
        if name in self.lacking:
            raise DataValidationError(self.lacking[name])
        if name not in self.columns:
            have = ", ".join(sorted(self.columns)) or "no columns"
            raise DataValidationError(f"column {name!r} is missing; there are: {have}")
        return self.columns[name]


@dataclass(frozen=True)
class Statistic:
    """One way of telling two samples apart.

    Attributes:
        encode: (frame, column, by, values) -> the usable rows encoded, and their positions;
            ``values`` is the vocabulary.
        summarise: encoded rows -> what is compared of them.
        compare: summaries of (reference, current) -> a number >= 0, 0 when they are the same.
        unit: What the value means, for a reader.
        flat: Encoded rows are single numbers.
    """

    encode: Callable[[Frame, str, str, Sequence[str]], Encoded]
    summarise: Callable[[Array], Any]
    compare: Callable[[Any, Any], float]
    unit: str
    flat: bool = False

    def distance(self, reference: Array, current: Array) -> float:
        """The statistic of two samples of encoded rows."""
        return self.compare(self.summarise(reference), self.summarise(current))


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


def _encode_norms(frame: Frame, column: str, by: str, values: Sequence[str]) -> Encoded:
    rows, positions = vectors(frame.column(column), int(values[0]))
    return np.linalg.norm(rows, axis=1), positions


def _encode_mix(frame: Frame, column: str, by: str, values: Sequence[str]) -> Encoded:
    """[n, k] places in the vocabulary of the values in a row, the place after it for all others.

    Rows with fewer than k values are filled up with -1.
    """
    place = {value: position for position, value in enumerate(values)}
    rows = [
        [place.get(str(value), len(values)) for value in _listed(cell)]
        for cell in frame.column(column)
    ]
    return _fill_up(rows, max(map(len, rows), default=0))


def _listed(cell: Any) -> list[Any]:
    """The values that a cell holds, one or a list of them."""
    cells = cell if isinstance(cell, list | tuple | np.ndarray) else (cell,)
    return [value for value in cells if not _missing(value, None)]


def _fill_up(rows: Sequence[Sequence[int]], width: int) -> Encoded:
    """[n, width] the rows that are not empty, filled up with -1, and their positions."""
    codes = np.full((len(rows), width), -1, dtype=np.int64)
    for place, row in enumerate(rows):
        codes[place, : len(row)] = row[:width]
    positions = np.flatnonzero((codes >= 0).any(axis=1))
    return codes[positions], positions


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
    codes: dict[str, int] = {}
    rows = [
        [codes.setdefault(str(value), len(codes)) for value in _listed(cell)]
        for cell in frame.column(column)
    ]
    return _fill_up(rows, int(values[0]))


@dataclass(frozen=True)
class Moments:
    """Mean [d] and covariance [d, d] of a sample."""

    mean: Array
    covariance: Array

    @classmethod
    def of(cls, rows: Array) -> "Moments":
        """Moments of rows [n, d]."""
        mean = rows.mean(axis=0)
        centred = rows - mean
        return cls(mean, centred.T @ centred / max(1, len(rows) - 1))

    @cached_property
    def root(self) -> Array:
        """Square root of the covariance."""
        values, basis = np.linalg.eigh(self.covariance)
        root: Array = (basis * np.sqrt(np.clip(values, 0, None))) @ basis.T
        return root


def frechet(reference: Moments, current: Moments) -> float:
    """Fréchet distance of the two samples' Gaussians, as a share of the reference's variance.

    |m1-m2|^2 + tr(S1 + S2 - 2 (S1^.5 S2 S1^.5)^.5), over tr(S1). Source: Dowson and Landau, 1982.
    """
    root, first, second = reference.root, reference.covariance, current.covariance
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ second @ root), 0, None)).sum()
    moved = np.square(reference.mean - current.mean).sum()
    spread = max(float(np.trace(first)), 1e-12)
    return max(0.0, float(moved + np.trace(first) + np.trace(second) - 2 * cross) / spread)


def wasserstein(reference: Array, current: Array) -> float:
    """First Wasserstein distance over the reference's standard deviation, as Evidently's.

    Both samples are sorted.
    """
    scale = max(float(np.std(reference)), 0.001)
    # Two sorted runs: a stable sort merges them.
    both = np.sort(np.concatenate([reference, current]), kind="stable")
    below, here = (
        np.searchsorted(side, both[:-1], side="right") / len(side) for side in (reference, current)
    )
    return float(np.abs(below - here) @ np.diff(both)) / scale


def count_codes(rows: Array) -> Array:
    """How often each code occurs, from -1 on."""
    return np.bincount(rows.astype(np.int64).ravel() + 1, minlength=1)


def jensenshannon(reference: Array, current: Array) -> float:
    """Jensen-Shannon distance (natural logarithm) of two counts of codes, as Evidently's."""
    one, other = (counts[1:] / counts[1:].sum() for counts in _as_long(reference, current))
    middle = (one + other) / 2
    divergence = float(rel_entr(one, middle).sum() + rel_entr(other, middle).sum()) / 2
    return math.sqrt(max(0.0, divergence))


def _as_long(one: Array, other: Array) -> Array:
    """[2, K] two counts, the shorter one filled up with zeros."""
    long = np.zeros((2, max(len(one), len(other))))
    long[0, : len(one)], long[1, : len(other)] = one, other
    return long


def share_difference(reference: float, current: float) -> float:
    """How far two shares lie apart."""
    return abs(current - reference)


def new_share(reference: Array, current: Array) -> float:
    """Share of current rows whose value the reference does not hold, of two counts of codes."""
    there, here = _as_long(reference, current)
    new = there == 0
    # A value outside the vocabulary is new, whether or not the reference has others.
    new[0] = True
    return float(here[new].sum() / here.sum())


def relative_change(reference: float, current: float) -> float:
    """Relative change of a mean."""
    return abs(current / max(reference, 1e-12) - 1)


@dataclass(frozen=True)
class Centroids:
    """Groups of vectors: codes [g] ascending, sizes [g], means [g, d], and the total variance."""

    codes: Array
    sizes: Array
    means: Array
    spread: float

    @classmethod
    def of(cls, rows: Array) -> "Centroids":
        """Centroids of rows [n, 1+d], whose first column is the code of the group."""
        codes, place, sizes = np.unique(rows[:, 0], return_inverse=True, return_counts=True)
        member = csr_array((np.ones(len(rows)), (place, np.arange(len(rows)))))
        means = (member @ rows[:, 1:]) / sizes[:, None]
        return cls(codes, sizes, means, max(float(rows[:, 1:].var(axis=0).sum()), 1e-12))


def centroid_shift(reference: Centroids, current: Centroids) -> float:
    """How far groups' mean vectors moved, as a share of the reference's variance.

    More listings of one category move the mix but no category's own mean; another encoder moves
    every one of them. Groups weigh as many rows as they have in the current sample.
    """
    _, there, here = np.intersect1d(
        reference.codes, current.codes, assume_unique=True, return_indices=True
    )
    if not len(there):
        raise DataValidationError("no group of the reference occurs in the window")
    distance = np.square(reference.means[there] - current.means[here]).sum(axis=1)
    sizes = current.sizes[here]
    # What two samples of the same vectors would lie apart by chance is taken off, so that small
    # groups do not look as if they had moved.
    chance = reference.spread * (1 / reference.sizes[there] + 1 / sizes)
    return float(sizes @ np.clip(distance - chance, 0, None) / sizes.sum() / reference.spread)


def concentration_change(reference: float, current: float) -> float:
    """How many times more, or less, often two answers recommend the same value; logarithm."""
    return abs(math.log(current / reference))


def concentration(rows: Array) -> float:
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


def _mean(rows: Array) -> float:
    return float(rows.mean())


STATISTICS: Mapping[str, Statistic] = {
    "frechet": Statistic(_encode_vectors, Moments.of, frechet, "share of the reference's variance"),
    "wasserstein": Statistic(
        _encode_numbers, np.sort, wasserstein, "standard deviations", flat=True
    ),
    "jensenshannon": Statistic(_encode_mix, count_codes, jensenshannon, "distance, 0 to 0.83"),
    "concentration": Statistic(
        _encode_members, concentration, concentration_change, "logarithm of the ratio"
    ),
    "null-share": Statistic(_encode_missing, _mean, share_difference, "share of rows", flat=True),
    "new-values": Statistic(_encode_codes, count_codes, new_share, "share of rows", flat=True),
    "vector-norm": Statistic(_encode_norms, _mean, relative_change, "relative change", flat=True),
    "centroid-shift": Statistic(
        _encode_grouped_vectors, Centroids.of, centroid_shift, "share of the reference's variance"
    ),
}

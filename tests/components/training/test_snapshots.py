from pathlib import Path

import numpy as np
import pytest

from components.training.snapshots import MIB, Snapshots, SparseCounts
from refit.feature_tables import read_snapshot
from refit.features import FeaturesManifest


def room_for(n: int, features: Path) -> float:
    """MiB of n snapshots of these features, which have the same size each."""
    return n * Snapshots(FeaturesManifest.read(features), features, 1)[0].nbytes / MIB


def test_counts_are_the_matrix_that_they_were_made_of() -> None:
    rng = np.random.default_rng(0)
    dense = rng.gamma(1.0, size=(20, 7)).astype(np.float32)
    dense[rng.random(dense.shape) < 0.7] = 0
    dense[[0, 5, 19]] = 0
    counts = SparseCounts.of(dense)
    np.testing.assert_array_equal(counts.all_rows(), dense)
    rows = np.array([19, 3, 3, 0, 12])
    np.testing.assert_array_equal(counts.rows(rows), dense[rows])
    assert counts.rows(np.array([], int)).shape == (0, 7)
    assert len(counts.value) == np.count_nonzero(dense)


def test_rows_of_items_are_those_of_the_snapshot(features: Path) -> None:
    snapshot = Snapshots(FeaturesManifest.read(features), features, 1)[2]
    live = type(snapshot)(
        snapshot.item[[2, 4, 9]],
        snapshot.age_days[:3],
        snapshot.counts,
        snapshot.time,
        snapshot.versions,
    )
    found = live.rows_of(np.array([[9, 3], [15, 2]], np.int32))
    assert found.tolist() == [[2, -1], [-1, 0]]


@pytest.mark.parametrize("spilled", [True, False])
def test_what_the_cache_has_no_room_for_is_read_again(
    features: Path, tmp_path: Path, spilled: bool
) -> None:
    spill = tmp_path / "spill" if spilled else None
    manifest = FeaturesManifest.read(features)
    snapshots = Snapshots(manifest, features, room_for(2, features), spill=spill)
    for number in (0, 1, 2, 3, 0, 1, 2, 3):
        found, (item, age_days, counts) = snapshots[number], read_snapshot(features, number)
        np.testing.assert_array_equal(found.item, item)
        np.testing.assert_array_equal(found.age_days, age_days)
        np.testing.assert_array_equal(found.popularity, counts)
    files = sorted(path.name for path in (tmp_path / "spill").glob("*"))
    assert files == (["0.npz", "1.npz", "2.npz", "3.npz"] if spilled else [])


def test_groups_have_room_in_the_cache(features: Path) -> None:
    manifest = FeaturesManifest.read(features)
    snapshots = Snapshots(manifest, features, room_for(2, features))
    groups = list(snapshots.groups([3, 0, 4, 1, 2]))
    assert groups == [[3, 0], [4, 1], [2]]
    assert list(snapshots.groups([3, 0, 4, 1, 2])) == groups
    small = Snapshots(manifest, features, 0)
    assert list(small.groups([1, 0])) == [[1], [0]]

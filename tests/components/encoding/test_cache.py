import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.encoding import cache as module
from components.encoding.cache import VectorCache
from refit.errors import ServiceUnreachable, UsageError


def keys_of(*numbers: int) -> np.ndarray:
    return np.array([number.to_bytes(16, "big") for number in numbers], dtype="S16")


def vectors_of(*numbers: int) -> np.ndarray:
    return np.array([[number, -number, 0.5] for number in numbers], dtype=np.float16)


def look_up(cache: VectorCache, *numbers: int) -> tuple[list[list[float]], list[bool]]:
    vectors, found = np.zeros((len(numbers), 3), np.float16), np.zeros(len(numbers), bool)
    cache.fill(keys_of(*numbers), vectors, found)
    return vectors.tolist(), found.tolist()


@pytest.mark.parametrize("place", ["{}", "file://{}", "memory://{}"])
def test_what_was_added_is_found_by_the_next_run(tmp_path, place):
    place = place.format(tmp_path)
    VectorCache(place, "a").add(keys_of(1, 256), vectors_of(1, 256))
    VectorCache(place, "a").add(keys_of(3), vectors_of(3))
    VectorCache(place, "b").add(keys_of(2), vectors_of(99))
    vectors, found = look_up(VectorCache(place, "a"), 1, 2, 3, 256)
    assert found == [True, False, True, True]
    assert vectors == [[1, -1, 0.5], [0, 0, 0], [3, -3, 0.5], [256, -256, 0.5]]


def test_keys_that_end_with_zeros_are_not_mixed_up(tmp_path):
    cache = VectorCache(str(tmp_path), "a")
    ends = np.array([b"\1" + b"\0" * 15, b"\1\1" + b"\0" * 14], dtype="S16")
    cache.add(ends, vectors_of(1, 2))
    vectors, found = np.zeros((2, 3), np.float16), np.zeros(2, bool)
    cache.fill(ends, vectors, found)
    assert found.all()
    assert vectors.tolist() == vectors_of(1, 2).tolist()


def test_what_was_found_already_stays(tmp_path):
    cache = VectorCache(str(tmp_path), "a")
    cache.add(keys_of(1), vectors_of(1))
    vectors, found = np.full((1, 3), 7, np.float16), np.ones(1, bool)
    cache.fill(keys_of(1), vectors, found)
    assert vectors.tolist() == [[7, 7, 7]]


def test_without_a_place_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cache = VectorCache("", "a")
    cache.add(keys_of(1), vectors_of(1))
    cache.merge()
    assert look_up(cache, 1)[1] == [False]
    assert list(tmp_path.iterdir()) == []


def test_small_parts_are_merged_and_none_is_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SMALL_PARTS", 4)
    for number in (5, 1, 1, 3):
        VectorCache(str(tmp_path), "a").add(keys_of(number), vectors_of(number))
    cache = VectorCache(str(tmp_path), "a")
    look_up(cache, 9)
    cache.merge()
    (part,) = (tmp_path / "a").iterdir()
    assert pq.read_metadata(part).num_rows == 3
    assert look_up(VectorCache(str(tmp_path), "a"), 1, 3, 5) == (
        vectors_of(1, 3, 5).tolist(),
        [True] * 3,
    )


def test_large_parts_are_left(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SMALL_PARTS", 2)
    monkeypatch.setattr(module, "PART_ROWS", 4)
    cache = VectorCache(str(tmp_path), "a")
    for start in range(0, 9, 3):
        cache.add(keys_of(*range(start, start + 3)), vectors_of(*range(start, start + 3)))
    cache.merge()
    assert len(list((tmp_path / "a").iterdir())) == 3


def test_a_part_that_was_merged_away_meanwhile_is_found_in_the_new_one(tmp_path, monkeypatch):
    cache = VectorCache(str(tmp_path), "a")
    cache.add(keys_of(1), vectors_of(1))
    listed = cache._list()
    (tmp_path / "a" / listed[0].rpartition("/")[2]).unlink()
    VectorCache(str(tmp_path), "a").add(keys_of(1, 2), vectors_of(1, 2))
    answers = iter([listed, cache._list()])
    monkeypatch.setattr(cache, "_list", lambda: next(answers))
    assert look_up(cache, 1, 2)[1] == [True, True]


def test_parts_that_cannot_be_read_are_made_again(tmp_path):
    cache = VectorCache(str(tmp_path), "a")
    cache.add(keys_of(1), vectors_of(1))
    (part,) = (tmp_path / "a").iterdir()
    part.write_bytes(part.read_bytes()[:-20])
    (tmp_path / "a" / "vectors-b.parquet").write_bytes(b"")
    pq.write_table(pa.table({"other": [1]}), tmp_path / "a" / "vectors-c.parquet")
    (tmp_path / "a" / ".vectors-d.parquet.x.partial").write_bytes(b"half")
    assert look_up(cache, 1)[1] == [False]
    cache.add(keys_of(1), vectors_of(1))
    assert look_up(cache, 1)[1] == [True]


def test_vectors_of_another_length_do_not_count(tmp_path):
    cache = VectorCache(str(tmp_path), "a")
    cache.add(keys_of(1), np.ones((1, 2), np.float16))
    assert look_up(cache, 1)[1] == [False]


def test_a_store_that_cannot_be_used(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ServiceUnreachable, match="the store of vectors"):
        VectorCache(str(tmp_path / "file"), "a").add(keys_of(1), vectors_of(1))
    with pytest.raises(UsageError, match="the store of vectors"):
        VectorCache("nowhere://x", "a")

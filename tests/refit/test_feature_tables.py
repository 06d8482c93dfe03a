from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from refit.feature_tables import (
    ItemTable,
    iter_examples,
    numbers,
    pad_histories,
    pad_lists,
    read_snapshot,
    strings,
    vectors,
)


def test_lists_are_cut_and_padded() -> None:
    lists = pa.array([[3, 2, 1], [], None, [7]], pa.list_(pa.int32()))
    assert pad_lists(lists, 2, np.int32(-1)).tolist() == [[3, 2], [-1, -1], [-1, -1], [7, -1]]
    assert pad_lists(lists.slice(2), 2, np.int32(-1)).tolist() == [[-1, -1], [7, -1]]
    assert pad_lists(lists.slice(1, 2), 3, np.int32(-1)).tolist() == [[-1] * 3] * 2


def test_histories_of_a_batch() -> None:
    batch = pa.record_batch(
        {
            "history_item": pa.array([[5, 4], []], pa.list_(pa.int32())),
            "history_event_type": pa.array([["like", "view"], []], pa.list_(pa.string())),
            "history_age_days": pa.array([[0.5, 2.0], []], pa.list_(pa.float32())),
        }
    )
    padded = pad_histories(batch, 3)
    assert padded.item.tolist() == [[5, 4, -1], [-1, -1, -1]]
    assert padded.event_type.tolist() == [["like", "view", ""], ["", "", ""]]
    assert padded.age_days.tolist() == [[0.5, 2.0, 0.0], [0.0, 0.0, 0.0]]
    assert (padded.item.dtype, padded.age_days.dtype) == (np.int32, np.float32)


@pytest.mark.parametrize("chunked", [False, True])
def test_missing_values(chunked: bool) -> None:
    def column(values: list[object], kind: pa.DataType) -> object:
        whole = pa.array(values, kind)
        return pa.chunked_array([whole.slice(0, 1), whole.slice(1)]) if chunked else whole

    assert strings(column(["a", None, "b"], pa.string())).tolist() == ["a", "", "b"]
    assert numbers(column([1, None], pa.int64())).tolist() == pytest.approx(
        [1, np.nan], nan_ok=True
    )
    lists = column([[1.0, 2.0], None, [3.0, 4.0]], pa.list_(pa.float32()))
    assert vectors(lists, 2).tolist() == [[1, 2], [0, 0], [3, 4]]


def test_no_rows_give_an_empty_array() -> None:
    assert strings(pa.array([], pa.string())).shape == (0,)
    assert strings(pa.chunked_array([], pa.string())).shape == (0,)
    assert vectors(pa.array([], pa.list_(pa.float32())), 3).shape == (0, 3)
    assert pad_lists(pa.array([], pa.list_(pa.string())), 3, "").shape == (0, 3)


def test_vectors_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="reshape"):
        vectors(pa.array([[1.0, 2.0]], pa.list_(pa.float32())), 3)


def test_times_of_the_catalogue() -> None:
    at = pa.array([1_000_000, None], pa.timestamp("us", tz="UTC"))
    times = ItemTable(pa.table({"gone_at": at})).times("gone_at")
    assert times[0] == np.datetime64("1970-01-01T00:00:01")
    assert np.isnat(times[1])


def test_reading_a_snapshot_and_streaming_examples(tmp_path: Path) -> None:
    for name in ("snapshots", "examples"):
        (tmp_path / name).mkdir()
    popularity = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(6, dtype=np.float32)), 3)
    snapshot = pa.table(
        {
            "item_index": np.array([4, 9], np.int32),
            "age_days": np.array([0.5, 2], np.float32),
            "popularity": popularity,
        }
    )
    pq.write_table(snapshot, tmp_path / "snapshots/0.parquet", row_group_size=1)
    index, age_days, counts = read_snapshot(tmp_path, 0)
    assert index.tolist() == [4, 9]
    assert age_days.tolist() == [0.5, 2.0]
    assert counts.tolist() == [[0, 1, 2], [3, 4, 5]]

    rows = pa.table({"item_index": np.arange(10), "weight": np.ones(10)})
    pq.write_table(rows, tmp_path / "examples/train.parquet", row_group_size=4)
    batches = list(iter_examples(tmp_path, "train", 3, columns=["item_index"]))
    assert np.concatenate([b["item_index"].to_numpy() for b in batches]).tolist() == [*range(10)]
    assert max(len(b) for b in batches) <= 3
    assert batches[0].schema.names == ["item_index"]

import shutil

import numpy as np
import pyarrow as pa
import pytest

from refit.columns import Labels, RankedNumbers
from refit.errors import RefitError
from refit.index import ITEMS_FILE, SERVED_FILE
from refit.live_features import read_rows
from refit.served import read_served, write_served
from tests.serving import tiny
from tests.serving.conftest import bundle, model, root  # noqa: F401


@pytest.fixture
def folder(bundle, tmp_path):  # noqa: F811
    return shutil.copytree(bundle.index, tmp_path / "index")


def test_the_file_holds_what_the_tables_hold(folder):
    mapped = read_served(folder, tiny.N_LIVE)
    (folder / SERVED_FILE).unlink()
    read = read_served(folder, tiny.N_LIVE)
    items = read_rows(folder / ITEMS_FILE, range(tiny.N_LIVE + tiny.N_GONE))
    for served in (mapped, read):
        assert list(served.ids.texts) == [*items["item_id"].to_pylist(), "long-gone"]
        assert served.n_items == tiny.N_LIVE + tiny.N_GONE
        assert set(served.attributes) == {"brand", "category_1", "size", "price"}
        for name, column in served.attributes.items():
            expected = items[name].to_pylist()[: tiny.N_LIVE]
            if isinstance(column, RankedNumbers):
                assert column.values.tolist() == expected
            else:
                assert [column.texts[c] if c >= 0 else None for c in column.codes] == expected
        sellers = items["seller_id"].to_pylist()
        for labels, n in ((served.sellers, tiny.N_LIVE), (served.all_sellers, len(sellers))):
            assert isinstance(labels, Labels)
            found = [labels.texts[code] if code >= 0 else None for code in labels.codes]
            assert found == sellers[:n]
        assert served.events.bounds.tolist() == [*range(0, 4 * 29 + 1, 4), 4 * 29]
        assert served.events.items[:4].tolist() == [3, 2, 1, 0]
        assert [served.events.names[k] for k in served.events.kinds[:3]] == ["view", "view", "like"]
        assert served.user_columns["city"].to_pylist() == ["Lund"] * tiny.N_USERS
        assert served.users["user-29"] == 29
        assert served.purchases.of(np.array([29, 3, -1])).item.tolist() == [205, 3]
        assert served.hides.of(np.array([4])).item.tolist() == [60, 205]


def test_codes_take_the_smallest_type_and_no_memory_of_the_process(folder):
    before = pa.total_allocated_bytes()
    served = read_served(folder, tiny.N_LIVE)
    assert pa.total_allocated_bytes() - before < 10_000
    assert served.attributes["brand"].codes.dtype == np.int8
    assert not served.attributes["brand"].codes.flags.writeable


def test_a_file_of_another_layout_is_not_read(folder, monkeypatch):
    monkeypatch.setattr("refit.served.LAYOUT", b"0")
    write_served(folder, tiny.N_LIVE)
    monkeypatch.undo()
    (folder / "delisted_items.parquet").unlink()
    with pytest.raises(FileNotFoundError, match="delisted_items"):
        read_served(folder, tiny.N_LIVE)


def test_a_file_that_does_not_fit_is_refused(folder):
    with pytest.raises(RefitError, match="made for 200 live items, but there are 199"):
        read_served(folder, tiny.N_LIVE - 1)
    (folder / SERVED_FILE).write_bytes(b"torn")
    with pytest.raises(RefitError, match=r"served\.arrow cannot be read"):
        read_served(folder, tiny.N_LIVE)

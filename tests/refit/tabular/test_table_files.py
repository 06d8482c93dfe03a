"""Which files belong to a table."""

import pytest

from refit.errors import UsageError
from refit.tabular.table_files import find_named, find_parts, name_with_keys, partition_keys


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")


def names(folder):
    return [part.relative_to(folder).as_posix() for part in find_parts(folder)]


def test_the_parts_of_a_folder_and_nothing_else(tmp_path):
    parts = [
        "PART-2.CSV",
        "day=1/hour=2/a.csv.gz",
        "day=2/a.parquet",
        "part-1.csv",
        "2026/01/b.tsv",
    ]
    beside = ["_SUCCESS", ".part-1.csv.crc", "x.crc", "_temporary/0/a.csv", ".hidden/a.csv"]
    touch(tmp_path, *parts, *beside, "README.txt", "schema.json", "docs/notes.md")
    assert names(tmp_path) == sorted(parts)


@pytest.mark.parametrize("name", ["part-00000", "a.csv.bz2", "old/a.csv", "a.xlsx", "a.jsonl"])
def test_a_file_that_may_belong_and_cannot_be_read_is_named(tmp_path, name):
    touch(tmp_path, "a.csv", name)
    with pytest.raises(UsageError, match=name.split("/")[0]):
        find_parts(tmp_path)


def test_a_table_of_versions_is_refused(tmp_path):
    touch(tmp_path, "a.parquet", "_delta_log/0.json")
    with pytest.raises(UsageError, match="_delta_log"):
        find_parts(tmp_path)


def test_a_table_is_found_by_its_name_in_any_case(tmp_path):
    touch(tmp_path, "Events.CSV", "events_old.csv", "items.parquet", "events/a.csv")
    assert [path.name for path in find_named(tmp_path, "events")] == ["Events.CSV", "events"]


def test_keys_are_those_of_folders_below_the_table(tmp_path):
    root = tmp_path / "run=1" / "events"
    part = root / "day=2026-01-01" / "shop=a%2Fb" / "size=__HIVE_DEFAULT_PARTITION__" / "x.csv"
    assert partition_keys(part, root) == {"day": "2026-01-01", "shop": "a/b", "size": None}
    assert partition_keys(root, root) == {}
    assert name_with_keys(root / "day=1" / "x.csv") == "run=1/day=1/x.csv"

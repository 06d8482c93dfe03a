"""What DuckDB raises becomes an error that names the data, the setting or the disk."""

import pytest

from refit.errors import DataValidationError, RefitError
from refit.tables import open_tables

ROWS = "SELECT range AS a, hash(range) AS b FROM range(2000000)"


def open_small(tmp_path, memory_limit="1GB", threads=0):
    scratch = tmp_path / "scratch"
    return open_tables("features", "dataset x", memory_limit, threads, scratch)


def test_limits_and_time_zone_are_set(tmp_path):
    with open_small(tmp_path, "500MB", threads=3) as con:
        read = "SELECT current_setting('{}')"
        found = [
            con.raw_sql(read.format(name)).fetchone()[0]
            for name in ("threads", "TimeZone", "memory_limit")
        ]
    assert found == [3, "UTC", "476.8 MiB"]


def test_a_small_memory_limit_names_both_settings(tmp_path):
    advice = r"features\.memory_limit 1MB is too small for dataset x: raise it, .*features\.threads"
    with pytest.raises(RefitError, match=advice), open_small(tmp_path, "1MB") as con:
        con.raw_sql(f"CREATE TABLE t AS {ROWS} ORDER BY b")


def test_a_full_disk_is_not_blamed_on_the_data(tmp_path):
    full = pytest.raises(RefitError, match="features: no space is left on the disk that holds")
    with full as error, open_small(tmp_path) as con:
        con.raw_sql(f"COPY ({ROWS}) TO '/dev/full' (FORMAT csv)")
    assert error.type is RefitError


def test_a_full_scratch_folder_is_not_blamed_on_the_memory_limit(tmp_path):
    full = pytest.raises(RefitError, match=r"no space is left on the disk that holds .*scratch")
    with full, open_small(tmp_path, "40MB", threads=1) as con:
        con.raw_sql("SET max_temp_directory_size = '1MB'")
        con.raw_sql(f"CREATE TABLE t AS {ROWS} ORDER BY b")


def test_a_truncated_file_is_a_data_error(tmp_path):
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 and no more")
    torn = pytest.raises(DataValidationError, match=r"dataset x cannot be read: .*torn\.parquet")
    with torn, open_small(tmp_path) as con:
        con.read_parquet(tmp_path / "torn.parquet")


def test_a_wrong_query_is_an_error_of_its_author(tmp_path):
    import duckdb

    with pytest.raises(duckdb.BinderException), open_small(tmp_path) as con:
        con.raw_sql("SELECT nothing FROM (SELECT 1 AS a)")

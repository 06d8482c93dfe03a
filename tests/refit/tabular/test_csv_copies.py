"""CSV files as people write them: every record is a row or a rejected line."""

import gzip

import pyarrow.parquet as pq
import pytest

from refit.errors import DataValidationError
from refit.tabular.csv_copies import copy_to_parquet, name_columns
from refit.tabular.file_format import FileFormat


@pytest.fixture
def copy(tmp_path):
    def copy(content, name="t.csv", **form):
        source = tmp_path / name
        source.write_bytes(content if isinstance(content, bytes) else content.encode())
        target = tmp_path / "t.parquet"
        n = copy_to_parquet(source, target, FileFormat(**form))
        rows = pq.read_table(target).to_pylist()
        assert len(rows) == n
        lines = [(r["_line"], r["_content"], r["_problem"]) for r in rows if r.get("_problem")]
        values = [r for r in rows if not r.get("_problem")]
        names = [c for c in (rows[0] if rows else ()) if c[0] != "_"]
        return [tuple(r[c] for c in names) for r in values], lines

    return copy


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ("a,b\n#1,x\n2,#y\n", [("#1", "x"), ("2", "#y")]),
        ("#a,b\n#1,x\n", [("#1", "x")]),
        ("a,b\r\n1,2\n3,4\r5,6", [("1", "2"), ("3", "4"), ("5", "6")]),
        ("a,b\n\n1,2\n\n", [("1", "2")]),
        ("\ufeffa,b\n1,2\n", [("1", "2")]),
        ("sep=;\r\na;b\r\n1,5;2\r\n", [("1,5", "2")]),
        ("a;b\n1,5;2,5\n", [("1,5", "2,5")]),
        ('"a;x"\tb\n1\t2\n', [("1", "2")]),
        ('a,b\n"x\ny","say ""hi"""\n', [("x\ny", 'say "hi"')]),
        ('a,b\n5" heel,2\n', [('5" heel', "2")]),
        ('"a\nb",c\n1,2\n', [("1", "2")]),
        ("a,b\n007,\n,12.0\n", [("007", None), (None, "12.0")]),
        ("user_id\n\nu1\n", [("u1",)]),
        ("a,b\n", []),
    ],
)
def test_what_is_a_row_is_kept_as_it_is(copy, content, rows):
    assert copy(content) == (rows, [])


def test_lines_that_are_no_rows_are_kept_with_number_content_and_reason(copy):
    content = '# nightly export\na,b,c\n1,2\n"x\ny",2,3\n\n1,2,3,4\n# done'
    assert copy(content) == (
        [("x\ny", "2", "3")],
        [
            (1, "# nightly export", "stands before the header"),
            (3, "1,2", "too few fields"),
            (7, "1,2,3,4", "too many fields"),
            (8, "# done", "too few fields"),
        ],
    )


def test_short_rows_at_the_beginning_do_not_change_how_the_others_are_read(copy):
    rows, lines = copy("a,b,c\n" + "1,2\n" * 3_000 + "1,2,3\n" * 5)
    assert (rows, len(lines)) == ([("1", "2", "3")] * 5, 3_000)


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-16-le", "latin-1"])
def test_other_encodings_are_read_when_they_are_named(copy, encoding):
    content = "a,b\né,ß\n".encode(encoding)
    assert copy(content, encoding=encoding) == ([("é", "ß")], [])
    with pytest.raises(DataValidationError, match="write in the config:\n  ingestion:\n    encod"):
        copy(content)


def test_the_line_in_another_encoding_is_named(copy):
    with pytest.raises(DataValidationError, match=r"t\.csv: line 3 is not utf-8"):
        copy("a,b\n1,2\né,2\n".encode("latin-1"))


def test_quotes_after_a_backslash_are_read_when_it_is_named(copy):
    content = 'a,b\n1,2\n"size 7\\" heel","x"\n'
    assert copy(content, escape="\\") == ([("1", "2"), ('size 7" heel', "x")], [])
    with pytest.raises(DataValidationError, match=r"quotes in line 3 [\s\S]*escape: '\\'"):
        copy(content)


@pytest.mark.parametrize("content", ['a,b\n1,2\n"3,4\n5,6\n', 'a,b\n1,2\n"3" x,4\n'])
def test_quotes_that_do_not_match_stop_at_their_line(copy, content):
    with pytest.raises(DataValidationError, match=r"quotes in line 3 do not match[^\n]*\"3"):
        copy(content)
    rows, lines = copy(content, quote="")
    assert len(rows) + len(lines) == content.count("\n") - 1


@pytest.mark.parametrize("delimiter", [";", "\t", "|", "~"])
def test_a_delimiter_that_is_named_is_used(copy, delimiter):
    content = "a,b\n1,2\n".replace(",", delimiter)
    assert copy(content, delimiter=delimiter) == ([("1", "2")], [])


def test_compressed_files_are_known_by_their_content(copy):
    content = gzip.compress(b"a,b\n1,2\n")
    assert copy(content, "t.csv.gz") == copy(content, "t.csv") == ([("1", "2")], [])
    with pytest.raises(DataValidationError, match="cannot be read"):
        copy(content[:-4], "t.csv.gz")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"PK\x03\x04", "zip"), (b"PAR1", "Parquet"), (b"\n \n", "no header line")],
)
def test_what_is_no_csv_is_named(copy, content, message):
    with pytest.raises(DataValidationError, match=message):
        copy(content)


def test_every_column_gets_a_name_of_its_own():
    header = [" A ", "a", "", "_line", "b", "b", ""]
    assert name_columns(header) == ["A", "a_2", "unnamed_3", "_line_2", "b", "b_2", "unnamed_7"]

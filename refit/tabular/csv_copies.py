"""Copy CSV files to Parquet: every field as text, every record a row or a rejected line.

The reader guesses nothing: the delimiter is the setting or the one of the header line, the columns
are those of the header line, and no sign starts a comment. Python's own parser counts the records
of each file independently; a difference stops the run.
"""

import csv
import gzip
import io
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import reduce
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

import pyarrow as pa
import pyarrow.compute as compute
import pyarrow.csv as pc
import pyarrow.parquet as pq

from refit.errors import DataValidationError
from refit.tabular.advice import write_advice
from refit.tabular.file_format import FileFormat
from refit.tabular.line_problems import BEFORE_HEADER, REPEATS_HEADER, TOO_FEW, TOO_MANY

FILE, LINE, CONTENT, PROBLEM = "_file", "_line", "_content", "_problem"
LINE_COLUMNS = (FILE, LINE, CONTENT, PROBLEM)
"""Columns of the lines that are not rows: where each is, what it holds, what is wrong with it."""
RESERVED = (*LINE_COLUMNS, "_raw", "_place")
"""Names of columns that Refit adds; columns of the files get other ones."""

_DELIMITERS = ",;\t|"
_HEAD_LINES = 50
_BLOCK = 1 << 24
_GZIP = b"\x1f\x8b"
_HEADER_AGAIN = -1
"""Counted instead of the number of fields of a record that repeats the header."""
_LINE_SCHEMA = pa.schema(
    [(FILE, pa.string()), (LINE, pa.int64()), (CONTENT, pa.string()), (PROBLEM, pa.string())]
)


@dataclass(frozen=True)
class _BadLine:
    number: int
    content: str
    problem: str


@dataclass(frozen=True)
class _Head:
    """What the first lines of a file say.

    Attributes:
        delimiter: Between fields.
        names: The header's fields.
        lines: Number of lines up to the header's last one.
        before: Lines before the header.
    """

    delimiter: str
    names: tuple[str, ...]
    lines: int
    before: tuple[_BadLine, ...]


def copy_to_parquet(source: Path, target: Path, form: FileFormat) -> int:
    """Copy a CSV file to a Parquet file in which every column is text.

    If lines of the file are not rows, the copy also has ``LINE_COLUMNS``, and a row for each of
    them in which all other columns are null.

    Args:
        source: A CSV file, which may be compressed with gzip.
        target: The Parquet file to write.
        form: How the CSV file is written.

    Returns:
        The number of rows in the copy.

    Raises:
        DataValidationError: The file is in another encoding or format, its quotes do not match, or
            the two parsers count different records; the message names the file and the line.
    """
    with _explaining_encoding(source, form):
        head = _read_head(source, form)
        widths = _count_records(source, form, head)
    width = len(head.names)
    bad = list(head.before)
    fitted: list[list[str]] = []
    if any(n not in (0, width) for n in widths):
        uneven, fitted = _find_uneven(source, form, head)
        bad += uneven
    schema = pa.schema([(name, pa.string()) for name in name_columns(head.names)])
    records = sum(n for fields, n in widths.items() if fields != 0)
    even = widths[width] + widths[_HEADER_AGAIN]
    with _write_copy(target, schema, fitted, bad, source.name) as writer:
        rows, skipped = _copy_rows(source, writer, form, head, schema) if records else (0, 0)
    if (rows, skipped) != (widths[width], records - even):
        raise DataValidationError(
            f"{source}: {records} records after the header, but {rows} rows and {skipped} lines of "
            f"another length were read; check the quotes, or set quote or escape"
        )
    return rows + len(fitted) + len(bad)


def name_columns(header: Sequence[str]) -> list[str]:
    """Names for the fields of a header line, each of them different, whatever their case."""
    names: list[str] = []
    taken: set[str] = set(RESERVED)
    for position, field in enumerate(header, 1):
        name = base = field.strip() or f"unnamed_{position}"
        number = 2
        while name.casefold() in taken:
            name, number = f"{base}_{number}", number + 1
        taken.add(name.casefold())
        names.append(name)
    return names


def find_repeated_names(source: Path, form: FileFormat) -> set[str]:
    """Names that the header line of a CSV file holds twice."""
    with _explaining_encoding(source, form):
        header = [name.strip() for name in _read_head(source, form).names]
    return {name for name, n in Counter(header).items() if n > 1 and name}


def _check_kind(source: Path, form: FileFormat) -> None:
    with source.open("rb") as file:
        start = file.read(5)
    if b"\0" in start and not start.startswith(_GZIP) and _is_utf8(form.encoding):
        raise DataValidationError(_explain_encoding(source, form))
    kinds = {
        b"PAR1": "a Parquet file: end its name in .parquet",
        b'{"': "JSON: export it as CSV or Parquet",
        b"<!DOC": "a page of HTML, not a table",
        b"<html": "a page of HTML, not a table",
        b"PK\x03\x04": "a zip archive or a workbook: unpack it, or export it as CSV",
    }
    for sign, kind in kinds.items():
        if start.startswith(sign):
            raise DataValidationError(f"{source} is {kind}")


@contextmanager
def _explaining_encoding(source: Path, form: FileFormat) -> Iterator[None]:
    try:
        yield
    except UnicodeError:
        raise DataValidationError(_explain_encoding(source, form)) from None
    except (EOFError, gzip.BadGzipFile, OSError) as error:
        raise DataValidationError(f"{source} cannot be read: {error}") from None


def _explain_encoding(source: Path, form: FileFormat) -> str:
    """Name the line that cannot be decoded, and an encoding that may be meant."""
    with _open_binary(source) as file:
        start = file.read(4)
        file.seek(0)
        if start[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in start:
            likely = "utf-16" if start[0] > 0xF0 else "utf-16-le" if start[1] == 0 else "utf-16-be"
            return f"{source} is in UTF-16{write_advice([f'encoding: {likely}'])}"
        for number, line in enumerate(file, 1):
            try:
                line.decode(form.encoding)
            except UnicodeError as error:
                cure = write_advice(["encoding: cp1252  # or the one that the file has"])
                return f"{source}: line {number} is not {form.encoding}: {error}{cure}"
    return f"{source} is not {form.encoding}; write the encoding that the file has in the config"


@contextmanager
def _open_binary(source: Path) -> Iterator[BinaryIO]:
    with source.open("rb") as file:
        is_compressed = file.read(2) == _GZIP
    with gzip.open(source) if is_compressed else source.open("rb") as opened:
        yield cast(BinaryIO, opened)


@contextmanager
def _open_text(source: Path, form: FileFormat) -> Iterator[TextIO]:
    encoding = "utf-8-sig" if _is_utf8(form.encoding) else form.encoding
    with (
        _open_binary(source) as file,
        io.TextIOWrapper(file, encoding=encoding, newline="") as text,
    ):
        yield text


def _is_utf8(encoding: str) -> bool:
    return encoding.lower().replace("_", "-") in ("utf-8", "utf8", "utf-8-sig")


def _read_head(source: Path, form: FileFormat) -> _Head:
    _check_kind(source, form)
    with _open_text(source, form) as text:
        lines = list(islice(text, _HEAD_LINES))
    if lines:
        lines[0] = lines[0].removeprefix("\ufeff")
    if not any(line.strip() for line in lines):
        raise DataValidationError(f"{source} has no header line")
    # Excel writes the delimiter into a line of its own.
    stated = re.fullmatch(r'"?sep=(.)"?\s*', lines[0], re.IGNORECASE)
    skipped = 1 if stated else 0
    delimiter = form.delimiter or (stated[1] if stated else _find_delimiter(lines, form))
    reader = csv.reader(lines[skipped:], **_dialect(form, delimiter))
    records = []
    with suppress(csv.Error):  # the count of all records explains it
        records = [(fields, skipped + reader.line_num) for fields in reader]
    records = records or [(re.split(re.escape(delimiter), lines[skipped].strip()), skipped + 1)]
    widest = max(len(fields) for fields, _ in records)
    before: list[_BadLine] = []
    for fields, line in records:
        if not "".join(fields).strip():
            continue
        if fields[0].lstrip().startswith("#") and len(fields) < widest:
            content = delimiter.join(fields)
            before.append(_BadLine(line, content, BEFORE_HEADER))
            continue
        return _Head(delimiter, tuple(fields), line, tuple(before))
    raise DataValidationError(f"{source} has no header line")


def _find_delimiter(lines: Sequence[str], form: FileFormat) -> str:
    """The character that the header line holds most often outside of quotes."""
    given = [_leave_out_quoted(line, form) for line in lines if line.strip()]
    # The first line may be a remark that begins with "#", or a header that does.
    first, second = given[0], next((g for g in given if not g.lstrip().startswith("#")), given[0])
    return max(_DELIMITERS, key=lambda d: (min(first.count(d), second.count(d)), second.count(d)))


def _leave_out_quoted(line: str, form: FileFormat) -> str:
    mark = re.escape(form.quote)
    return re.sub(f"{mark}[^{mark}]*{mark}", "", line) if mark else line


def _dialect(form: FileFormat, delimiter: str) -> dict[str, Any]:
    return {
        "delimiter": delimiter,
        "quotechar": form.quote or None,
        "quoting": csv.QUOTE_MINIMAL if form.quote else csv.QUOTE_NONE,
        "escapechar": form.escape or None,
        "doublequote": True,
        "strict": True,
    }


@contextmanager
def _read_records(source: Path, form: FileFormat, head: _Head) -> Iterator[Any]:
    """A ``csv.reader`` after the header; its ``line_num`` begins there."""
    largest = csv.field_size_limit(1 << 30)
    try:
        with _open_text(source, form) as text:
            for _ in islice(text, head.lines):
                pass
            yield csv.reader(text, **_dialect(form, head.delimiter))
    finally:
        csv.field_size_limit(largest)


def _count_records(source: Path, form: FileFormat, head: _Head) -> Counter[int]:
    """Count the records after the header by their number of fields; 0 are blank lines."""
    header = list(head.names)
    with _read_records(source, form, head) as reader:
        try:
            return Counter(_HEADER_AGAIN if fields == header else len(fields) for fields in reader)
        except csv.Error:
            pass
    raise DataValidationError(_explain_quotes(source, form, head))


def _explain_quotes(source: Path, form: FileFormat, head: _Head) -> str:
    """Name the line at which quotes stop to match."""
    begin = head.lines
    with _read_records(source, form, head) as reader:
        try:
            for _ in reader:
                begin = head.lines + reader.line_num
        except csv.Error as error:
            reason = str(error)
    with _open_text(source, form) as text:
        line = next(islice(text, begin, None), "").rstrip("\r\n")
    quote = form.quote or '"'
    if f"\\{quote}" in line and not form.escape:
        cure = "escape: '\\'  # it stands before a quote within a field"
    else:
        cure = "quote: ''  # if quotes mean nothing in this file; else mend the line"
    return (
        f"{source}: the quotes in line {begin + 1} do not match ({reason}): {line[:120]}"
        f"{write_advice([cure])}"
    )


def _find_uneven(
    source: Path, form: FileFormat, head: _Head
) -> tuple[list[_BadLine], list[list[str]]]:
    """The lines that are no rows, and the rows made from lines of another number of fields."""
    bad: list[_BadLine] = []
    fitted: list[list[str]] = []
    header, width = list(head.names), len(head.names)
    with _read_records(source, form, head) as reader:
        first = head.lines + 1
        for fields in reader:
            if fields == header:
                bad.append(_BadLine(first, head.delimiter.join(fields), REPEATS_HEADER))
            elif len(fields) not in (0, width):
                # A line of one field among many is a remark, such as "(40 rows)".
                is_row = len(fields) > 1 or width <= 2
                if form.uneven_lines == "fit" and is_row and not any(fields[width:]):
                    fitted.append([*fields, *[""] * width][:width])
                else:
                    problem = TOO_FEW if len(fields) < width else TOO_MANY
                    bad.append(_BadLine(first, head.delimiter.join(fields), problem))
            first = head.lines + reader.line_num + 1
    return bad, fitted


@contextmanager
def _write_copy(
    target: Path,
    schema: pa.Schema,
    fitted: Sequence[Sequence[str]],
    bad: Sequence[_BadLine],
    name: str,
) -> Iterator[Callable[[pa.Table], None]]:
    """A function that writes rows; rows made to fit and the lines that are none follow at last."""
    written = pa.schema([*schema, *_LINE_SCHEMA]) if bad else schema
    with pq.ParquetWriter(target, written, compression="zstd", compression_level=1) as writer:
        yield lambda rows: writer.write_table(_fit(rows, written))
        if fitted:
            columns = [[value or None for value in column] for column in zip(*fitted, strict=True)]
            writer.write_table(_fit(pa.table(columns, schema=schema), written))
        if bad:
            lines = [
                {FILE: name, LINE: b.number, CONTENT: b.content, PROBLEM: b.problem} for b in bad
            ]
            writer.write_table(_fit(pa.Table.from_pylist(lines, _LINE_SCHEMA), written))


def _copy_rows(
    source: Path,
    write: Callable[[pa.Table], None],
    form: FileFormat,
    head: _Head,
    schema: pa.Schema,
) -> tuple[int, int]:
    """Copy the rows but those that repeat the header; return how many were read and skipped."""
    rows, skipped = 0, 0

    def skip(_: Any) -> str:
        nonlocal skipped
        skipped += 1
        return "skip"

    with _open_binary(source) as file:
        for batch in _read_batches(file, form, head, schema, skip):
            table = _without_headers(pa.Table.from_batches([batch]), head)
            rows += table.num_rows
            write(table)
    return rows, skipped


def _without_headers(rows: pa.Table, head: _Head) -> pa.Table:
    given = next(i for i, name in enumerate(head.names) if name)
    if not compute.any(compute.equal(rows.column(given), head.names[given])).as_py():
        return rows
    repeats = [
        compute.fill_null(compute.equal(column, name), not name)
        for column, name in zip(rows.columns, head.names, strict=True)
    ]
    return rows.filter(compute.invert(reduce(compute.and_, repeats)))


def _read_batches(
    file: BinaryIO, form: FileFormat, head: _Head, schema: pa.Schema, skip: Any
) -> Iterator[pa.RecordBatch]:
    options = {
        "read_options": pc.ReadOptions(
            use_threads=False,
            block_size=_BLOCK,
            skip_rows=head.lines,
            column_names=schema.names,
            encoding="utf8" if _is_utf8(form.encoding) else form.encoding,
        ),
        "parse_options": pc.ParseOptions(
            delimiter=head.delimiter,
            quote_char=form.quote or False,
            double_quote=bool(form.quote),
            escape_char=form.escape or False,
            newlines_in_values=bool(form.quote),
            ignore_empty_lines=True,
            invalid_row_handler=skip,
        ),
        "convert_options": pc.ConvertOptions(
            column_types=schema,
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=True,
            check_utf8=True,
        ),
    }
    try:
        yield from pc.open_csv(file, **options)
    except pa.ArrowInvalid as error:
        if "Empty CSV file" not in str(error):  # a header alone
            raise DataValidationError(f"{file.name} cannot be read as CSV: {error}") from None


def _fit(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with the columns of a schema; those that it lacks are null."""
    columns = [
        table[field.name]
        if field.name in table.column_names
        else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)

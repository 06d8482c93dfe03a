"""Give the columns of a table the contract's names, and say what is there when one is missing."""

import json
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir

from refit.contract import Column
from refit.errors import DataValidationError
from refit.progress import log_message
from refit.tabular.csv_copies import LINE_COLUMNS
from refit.tabular.file_format import CONTRACT, FileFormat
from refit.tabular.parsing import read_number

LEAST_EXPLODED = 16
"""So many numbered columns of one name are taken for a vector that was written in columns."""
_SHOWN = 40
_NUMBER = re.compile(r"_?\[?\d+\]?")
_OTHER_NAMES: Mapping[str, Sequence[str]] = {
    "user_id": ("customer", "visitor", "client", "member", "buyer", "uid", "user", "profile"),
    "item_id": ("product", "article", "listing", "sku", "item", "stockcode", "asin", "ad"),
    "event_type": ("event", "type", "action", "eventname", "activity", "interaction", "behavior"),
    "event_time": ("timestamp", "time", "ts", "datetime", "date", "createdat", "occurredat"),
    "session_id": ("session", "visit", "visitid"),
    "listed_at": ("createdat", "created", "listingdate", "publishedat"),
    "delisted_at": ("soldat", "endedat", "removedat", "closedat"),
}


def rename_columns(table: ir.Table, name: str, form: FileFormat) -> ir.Table:
    """Give columns the contract's names, as ``columns`` says, and join ``vector_columns``.

    Args:
        table: A table as read from its files.
        name: events, items or users.
        form: How the files are written.

    Raises:
        DataValidationError: A column that the settings name is not there; the message lists those
            that are.
    """
    table = _join_vectors(table, name, form)
    wanted = form.columns.of(name)
    found = {new: _find(table, old) for new, old in wanted.items()}
    if missing := [wanted[new] for new, old in found.items() if old is None]:
        raise DataValidationError(
            f"{name}: columns.{name} names {', '.join(map(repr, missing))}, which the files do not "
            f"have; {describe_columns(table)}"
        )
    taken = {old for old in found.values() if old}
    hidden = [c for c in table.columns if c in found and c not in taken]
    if hidden:
        log_message(f"{name}: not read, since columns.{name} says so: {', '.join(hidden)}")
    others = [c for c in table.columns if c not in taken and c not in found]
    return table.select(**{new: table[old] for new, old in found.items() if old}, **_same(others))


def used_names(name: str, form: FileFormat) -> tuple[str, ...]:
    """Names in the files of the contract's columns of a table."""
    names = form.columns.of(name)
    return tuple(names.get(column.name, column.name) for column in CONTRACT[name])


def describe_columns(table: ir.Table) -> str:
    """The names that a table has, for messages."""
    names = [name for name in table.columns if name not in LINE_COLUMNS]
    shown = ", ".join(map(repr, names[:_SHOWN])) + (" ..." if len(names) > _SHOWN else "")
    return f"there are: {shown}"


def explain_missing(
    table: ir.Table, name: str, missing: Sequence[str], form: FileFormat
) -> tuple[str, str]:
    """Say which columns are there, and which lines of a config name those that are missing.

    Returns:
        The columns that are there, and the lines.
    """
    contract = CONTRACT[name]
    known = {column.name for column in contract}
    names_there = [c for c in table.columns if c not in LINE_COLUMNS]
    if len(names_there) == 1 and (signs := re.findall(r"[^\w\s\"'<>!.-]", names_there[0])):
        sign = max(signs, key=signs.count)
        return describe_columns(table), f"delimiter: {json.dumps(sign)}  # between the fields"
    candidates = [c for c in table.columns if c not in {*known, *LINE_COLUMNS}]
    names = dict(form.columns.of(name))
    guessed = {new: _guess(new, candidates) for new in missing}
    for column in contract:
        # An optional column in another spelling would be lost without a word.
        same = [c for c in candidates if _fold(c) == _fold(column.name)]
        if column.name not in table.columns and same:
            guessed.setdefault(column.name, same[0])
    lines = [f"    {new}: {_quote(old)}" for new, old in (names | guessed).items()]
    return describe_columns(table), "\n".join(["columns:", f"  {name}:", *lines])


def find_misspelt(table: ir.Table, name: str) -> dict[str, str]:
    """Columns whose names differ from the contract's in case, spaces or underscores only."""
    contract = {_fold(column.name): column.name for column in CONTRACT[name]}
    return {
        contract[_fold(c)]: c
        for c in table.columns
        if _fold(c) in contract and contract[_fold(c)] not in table.columns
    }


def find_exploded(columns: Sequence[str]) -> dict[str, list[str]]:
    """Numbered columns of one name, such as ``emb_0`` to ``emb_767``, by what comes before."""
    families: dict[str, list[str]] = {}
    for column in columns:
        if match := re.fullmatch(r"(.*?)_?\[?(\d+)\]?", column):
            families.setdefault(column[: match.start(2)], []).append(column)
    return {prefix: names for prefix, names in families.items() if len(names) >= LEAST_EXPLODED}


def describe_extra(table: ir.Table, columns: Sequence[Column]) -> list[str]:
    """Columns of a table beyond those given, without the lines that are no rows."""
    known = {*(column.name for column in columns), *LINE_COLUMNS}
    return [name for name in table.columns if name not in known]


def _join_vectors(table: ir.Table, name: str, form: FileFormat) -> ir.Table:
    contract = {column.name for column in CONTRACT[name]}
    for vector, spec in form.vector_columns.items():
        if vector not in contract:
            continue
        parts = _select_parts(table.columns, spec)
        lacking = [part for part in parts if part not in table.columns]
        if not parts or lacking:
            raise DataValidationError(
                f"{name}: vector_columns.{vector}: no column "
                f"{', '.join(map(repr, lacking)) or repr(spec)}; {describe_columns(table)}"
            )
        log_message(
            f"{name}: {vector} is read from {len(parts)} columns, {parts[0]} to {parts[-1]}"
        )
        numbers = [read_number(table[part], form).cast(dt.float32) for part in parts]
        is_given = ibis.coalesce(*numbers).notnull()
        value = ibis.ifelse(is_given, ibis.array(numbers), None)
        others = [c for c in table.columns if c not in {*parts, vector}]
        table = table.select(*others, **{vector: value})
    return table


def _select_parts(columns: Sequence[str], spec: str | Sequence[str]) -> list[str]:
    """The columns of an exploded vector, in the order of their numbers."""
    if not isinstance(spec, str):
        return list(spec)
    if "*" in spec:
        found = [c for c in columns if fnmatchcase(c, spec)]
    else:
        found = [c for c in columns if c.startswith(spec) and _NUMBER.fullmatch(c[len(spec) :])]
    return sorted(found, key=lambda c: [int(n) for n in re.findall(r"\d+", c)])


def _find(table: ir.Table, name: str) -> str | None:
    if name in table.columns:
        return name
    same = [c for c in table.columns if c.strip() == name.strip()]
    return same[0] if len(same) == 1 else None


def _guess(name: str, candidates: Sequence[str]) -> str:
    """The candidate that probably is the column ``name``; empty where none is."""
    by_fold = {_fold(c): c for c in candidates}
    if _fold(name) in by_fold:
        return by_fold[_fold(name)]
    for other in _OTHER_NAMES.get(name, ()):
        for fold, candidate in by_fold.items():
            if fold in (other, f"{other}id", f"{other}no", f"{other}number", f"{other}type"):
                return candidate
    close = get_close_matches(_fold(name), list(by_fold), n=1)
    return by_fold[close[0]] if close else ""


def _fold(name: str) -> str:
    return re.sub(r"[\W_]", "", name).casefold()


def _quote(name: str) -> str:
    if not name:
        return "...  # the name that it has in the files"
    return name if re.fullmatch(r"[A-Za-z_]\w*", name) else json.dumps(name, ensure_ascii=False)


def _same(names: Sequence[str]) -> dict[str, Any]:
    return {name: ibis._[name] for name in names}

"""A source in a package outside the tree, by its dotted name."""

import sys

import pytest

from components.ingestion.fingerprint import fingerprint_source
from components.ingestion.ingest import ingest
from components.ingestion.settings import IngestSettings
from components.ingestion.source import load_source
from refit.errors import DataValidationError, UsageError

SOURCE = """
from typing import Literal

import ibis

from components.ingestion.reading import find_file, read_parts, require_columns
from components.ingestion.source import RawTables, read_options
from refit.settings import Settings

TERMS = "Own data."
NAIVE_TIMES = "UTC"
IS_SIMULATED = False

class Options(Settings):
    kind: Literal["view", "purchase"] = "view"

def find_files(settings):
    return [find_file(settings, "rows.csv")]

def read(con, settings, scratch):
    (path,) = find_files(settings)
    rows = read_parts(con, [path])
    require_columns(rows, ("who", "what", "when"), path)
    kind = read_options(settings, Options).kind
    kind = ibis.literal(kind)
    columns = {"user_id": "who", "item_id": "what", "event_time": "when", "event_type": kind}
    return RawTables(rows.select(**columns))
"""
ROWS = [f"u{day % 3},i{day % 4},2024-03-{day:02d}" for day in range(1, 13)]


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The file of the module ``own.source``, whose data is beside it."""
    (tmp_path / "own").mkdir()
    path = tmp_path / "own" / "source.py"
    path.write_text(SOURCE)
    (tmp_path / "rows.csv").write_text("\n".join(["who,what,when", *ROWS]))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield path
    forget_module()


def forget_module():
    for name in ("own", "own.source"):
        sys.modules.pop(name, None)


def own(path, **settings):
    values = {"source": "own.source", "path": str(path.parents[1])}
    return IngestSettings.parse(values | {"validation_days": 2, "test_days": 2} | settings)


def change(path, old, new):
    path.write_text(path.read_text().replace(old, new))
    forget_module()


def test_a_source_is_ingested_with_its_options(module, tmp_path):
    manifest = ingest(own(module, options={"kind": "purchase"}), tmp_path / "dataset")
    assert manifest.source == "own.source"
    assert manifest.terms == "Own data."
    assert manifest.counts["events"].kept == 12


def test_the_fingerprint_covers_files_options_and_code(module):
    first = fingerprint_source(own(module))
    assert fingerprint_source(own(module)) == first
    assert fingerprint_source(own(module, options={"kind": "purchase"})) != first
    change(module, "Own data.", "Own data, again.")
    second = fingerprint_source(own(module))
    assert second != first
    (module.parents[1] / "rows.csv").write_text("\n".join(["who,what,when", *ROWS[1:]]))
    assert fingerprint_source(own(module)) not in (first, second)


def test_an_object_in_a_module_can_be_a_source(module):
    change(module, "def find_files", "class Own:\n  pass\nOWN = Own()\ndef find_files")
    with module.open("a") as file:
        file.write("\nfor name in ('TERMS', 'NAIVE_TIMES', 'IS_SIMULATED', 'find_files', 'read'):")
        file.write("\n    setattr(OWN, name, globals()[name])\n")
    assert fingerprint_source(own(module, source="own.source:OWN")) != ""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"options": {"kid": "view"}}, r"source 'own.source': kid: .* you mean 'kind'\?"),
        ({"options": {"kind": "sale"}}, "'own.source': kind: expected 'view' or 'purchase'"),
        ({"source": "files", "options": {"kind": "view"}}, "'files' takes no options, got kind"),
        ({"source": "own.sauce"}, "source 'own.sauce' cannot be imported"),
        ({"source": "own.source:OWN"}, "has no attribute 'OWN'"),
        ({"source": "json.tool"}, "'json.tool' lacks TERMS, NAIVE_TIMES, IS_SIMULATED, find_files"),
    ],
)
def test_what_cannot_be_loaded_is_an_error_before_anything_is_read(module, settings, message):
    with pytest.raises(UsageError, match=message):
        load_source(own(module, **settings))
    with pytest.raises(UsageError, match=message):
        fingerprint_source(own(module, **settings))


def test_a_source_without_files_is_refused(module):
    change(module, '[find_file(settings, "rows.csv")]', "[]")
    with pytest.raises(UsageError, match="finds no file"):
        fingerprint_source(own(module))


def test_a_missing_column_is_named(module, tmp_path):
    (module.parents[1] / "rows.csv").write_text("who,item,when\nu,i,2024-03-01\n")
    with pytest.raises(DataValidationError, match=r"rows\.csv lacks what; it has who, item, when"):
        ingest(own(module), tmp_path / "dataset")

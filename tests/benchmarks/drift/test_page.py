"""What the parts of the bench found is kept, and becomes a page."""

from tests.benchmarks.drift.harmful import CALM_DAYS
from tests.benchmarks.drift.parts import HEAD, PartResult, keep_part, read_parts, write_page
from tests.benchmarks.drift.printing import PrintedRows, print_row


def print_part(name, rows, missed=(), **evidence):
    with PrintedRows() as printed:
        for cells in rows:
            print_row(*cells)
    rows = tuple(printed.rows)
    return PartResult(name=name, seconds=600.0, rows=rows, missed=missed, evidence=evidence)


def test_the_page_has_every_row_and_what_was_missed(tmp_path, capsys):
    rows = [("45 calm days", "2 alerts", "<= 1", "1 refit"), ("", "seed 3", "", "refit: a | b")]
    living = ((0.0, 0.2, 0.1), (0.0, 0.1, 3.0))
    calm = print_part("calm", rows, ("45 calm days: 1 refit",), living=living)
    print_row("between the parts")
    power = print_part("power", [("5% new cluster", "0.9")])
    taste = ((0.1,) * CALM_DAYS + (2.0, 1e9),)
    harmful = print_part("harmful", [("taste", "1.00")], **{"taste shift": taste})
    for part in (harmful, calm, power):
        keep_part(part, tmp_path / "kept")
    names = ["power", "harmful", "calm", "causes"]
    found = read_parts(names, tmp_path / "kept")
    assert found == [power, harmful, calm]
    (tmp_path / "explanation").mkdir()
    (tmp_path / "pictures").mkdir()
    write_page(tmp_path, found, ["causes"])
    lines = (tmp_path / "explanation" / "drift-measured.md").read_text().splitlines()
    assert [line for line in lines if line.startswith("| ")] == [
        "| " + " | ".join(HEAD) + " |",
        "| 5% new cluster | 0.9 |  |  |",
        "| taste | 1.00 |  |  |",
        "| 45 calm days | 2 alerts | <= 1 | 1 refit<br>seed 3 refit: a \\| b |",
    ]
    assert lines[-1] == "- 45 calm days: 1 refit"
    assert any("in 30 minutes" in line and "Not run: causes." in line for line in lines)
    picture = (tmp_path / "pictures" / "drift-evidence.svg").read_text()
    assert picture.count('id="line2d') > 4
    assert "between the parts" in capsys.readouterr().out

"""The page of the benches."""

from tests.benchmarks.drift.__main__ import HEAD, write_page
from tests.benchmarks.drift.calm import CalmRun
from tests.benchmarks.drift.harmful import HarmfulRun
from tests.benchmarks.drift.pictures import draw_evidence
from tests.benchmarks.drift.printing import PrintedRows, print_row


def test_the_page_has_every_row_and_what_was_missed(tmp_path, capsys):
    with PrintedRows() as printed:
        print_row(*HEAD)
        print_row("45 calm days", "2 alerts", "<= 1", "1 refit")
        print_row("", "seed 3", "", "refit: a | b")
        print_row("power", "0.9")
    print_row("later", "is not kept")
    page = tmp_path / "page.md"
    write_page(page, printed, "7 s, 1 goals missed", ["45 calm days: 1 refit"])
    lines = page.read_text().splitlines()
    table = [line for line in lines if line.startswith("| ")]
    assert table == [
        "| what | measured | goal |  |",
        "| 45 calm days | 2 alerts | <= 1 | 1 refit<br>seed 3 refit: a \\| b |",
        "| power | 0.9 |  |  |",
    ]
    assert lines[-1] == "- 45 calm days: 1 refit"
    assert "later" in capsys.readouterr().out


def test_the_picture_holds_a_line_for_each_market(tmp_path):
    calm = [CalmRun("living", seed, 0, 0, (), (0.0, 0.2, 0.1)) for seed in range(3)]
    harmful = [HarmfulRun("taste shift", 8, 0.1, (0.1,) * 7 + (2.0, 1e9))]
    draw_evidence(calm, harmful, tmp_path / "picture.svg")
    picture = (tmp_path / "picture.svg").read_text()
    assert picture.count('id="line2d') > 4
    assert picture.startswith("<?xml")

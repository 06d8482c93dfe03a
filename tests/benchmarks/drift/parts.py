"""What the parts of the bench found, kept between runs, and the page that is made from it."""

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

from refit.files import write_atomically
from refit.settings import Settings
from tests.benchmarks.drift.calm import CalmRun
from tests.benchmarks.drift.harmful import HarmfulRun
from tests.benchmarks.drift.pictures import draw_evidence
from tests.benchmarks.drift.printing import to_markdown

HEAD = ("what", "measured", "goal", "")
KEPT = Path(__file__).parents[3] / "build" / "bench-drift"


class PartResult(Settings):
    """What one part printed.

    Attributes:
        name: The part.
        seconds: From the end of the part before it to its own; parts overlap.
        rows: The cells of its rows.
        missed: The goals that it missed.
        evidence: By kind of market, for each market the evidence by day; for the picture.
    """

    name: str
    seconds: float
    rows: tuple[tuple[str, ...], ...]
    missed: tuple[str, ...]
    evidence: Mapping[str, tuple[tuple[float, ...], ...]] = {}


def group_evidence(
    runs: Sequence[CalmRun | HarmfulRun],
) -> dict[str, tuple[tuple[float, ...], ...]]:
    """The evidence by day of some markets, by their names."""
    names = dict.fromkeys(run.name for run in runs)
    return {name: tuple(run.evidence for run in runs if run.name == name) for name in names}


def keep_part(result: PartResult, folder: Path = KEPT) -> None:
    """Keep what a part found, in the place of what it found before."""
    folder.mkdir(parents=True, exist_ok=True)
    with write_atomically(folder / f"{result.name}.json") as staging:
        staging.write_text(result.model_dump_json(), encoding="utf-8")


def read_parts(names: Sequence[str], folder: Path = KEPT) -> list[PartResult]:
    """What is kept of some parts, in this order."""
    paths = [folder / f"{name}.json" for name in names]
    return [
        PartResult.model_validate_json(path.read_text(encoding="utf-8"))
        for path in paths
        if path.exists()
    ]


def write_page(docs: Path, parts: Sequence[PartResult], lacking: Sequence[str]) -> None:
    """Write the table and its picture into the documentation.

    Args:
        docs: The folder of the documentation.
        parts: What was found, in the order of the table.
        lacking: The parts that did not run.
    """
    by_name = {part.name: part for part in parts}
    calm = [each for own in by_name.get("calm", _NOTHING).evidence.values() for each in own]
    harmful = by_name.get("harmful", _NOTHING).evidence
    draw_evidence(calm, harmful, docs / "pictures" / "drift-evidence.svg")
    minutes = sum(part.seconds for part in parts) / 60
    without = f" Not run: {', '.join(lacking)}." if lacking else ""
    head, *rows = to_markdown([HEAD, *(row for part in parts for row in part.rows)])
    missed = [line for part in parts for line in part.missed]
    lines = [
        "# Drift where the truth is known",
        "",
        f"What `make bench-drift` printed, on {os.cpu_count()} cores ({platform.machine()}): "
        f"in {minutes:.0f} minutes; {len(missed)} goals missed.{without} Markets are simulated, "
        "but for the real streams, and the model is a linear stand-in for the towers; the monitor "
        "is the real one, with its defaults. [What was measured](measurements.md) says more.",
        "",
        '<figure class="picture" markdown="0">',
        '--8<-- "pictures/drift-evidence.svg"',
        "<figcaption>Evidence that something drifts, by day, as a share of what an alert needs. "
        "Named faults of feeds do not wait for it.</figcaption>",
        "</figure>",
        "",
        head,
        "|---|---|---|---|",
        *rows,
        "",
        *(["Goals that were missed:", "", *(f"- {line}" for line in missed)] if missed else []),
    ]
    with write_atomically(docs / "explanation" / "drift-measured.md") as staging:
        staging.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


_NOTHING = PartResult(name="", seconds=0.0, rows=(), missed=())

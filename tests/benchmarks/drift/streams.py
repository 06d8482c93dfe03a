"""Real streams: alerts beside the measured fall of a frozen model, and refits by policy.

python -m tests.benchmarks.drift.streams --data DIR

Online Retail's two years, RentTheRunway and Vibrent under the monitor with its defaults; see
``stream_data`` for how they are cut, ``stream_models`` for the stand-in towers and ``stream_walk``
for the simulated serving. The truth is not known here, but it can be measured: before each window
new towers are fitted on everything until then, and both answer the same visits. Where the frozen
towers find less than these, beyond chance, there is a real fall, which a refit would have mended.

The schedules refit as often as the policy did, so that they cost the same. No setting was chosen on
these streams, and there is no goal.
"""

import argparse
import io
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import redirect_stdout
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import numpy as np

from refit.alert import Action
from refit.progress import set_up_logging
from tests.benchmarks.drift.pool import open_pool
from tests.benchmarks.drift.printing import PrintedRows, print_row
from tests.benchmarks.drift.stream_data import STREAMS, Inputs, Stream
from tests.benchmarks.drift.stream_models import StreamModels
from tests.benchmarks.drift.stream_walk import StreamWalk, Watched
from tests.benchmarks.drift.towers import Floats, Ints

DATA = "REFIT_DATA"
"""The environment variable that names the folder of public data sets, as for ``make test-data``."""
DRAWS = 20
"""Random schedules."""


@dataclass(frozen=True)
class Difference:
    """How much more one model finds than another, for the same visits.

    Attributes:
        mean: Difference of the recall.
        low, high: Its 95% interval, by person.
    """

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Floats, people: Ints) -> "Difference":
        """From the differences of visits; those of one person are not independent."""
        mean = float(values.mean())
        _, person = np.unique(people, return_inverse=True)
        sums = np.bincount(person, weights=values - mean)
        width = 1.96 * float(np.sqrt(np.square(sums).sum())) / len(values)
        return cls(mean, mean - width, mean + width)

    @property
    def is_real(self) -> bool:
        """Whether it is larger than none, beyond chance."""
        return self.low > 0

    def __str__(self) -> str:
        return f"{self.mean:+.4f} ({self.low:+.4f} to {self.high:+.4f})"


@dataclass(frozen=True)
class StreamRun:
    """What became of one stream.

    Attributes:
        models: Its models.
        frozen: Its windows under the monitor with the first model.
        operated: The same with the refits that the policy starts.
        falls: For each window after the first, what a refit finds more than the frozen model.
    """

    models: StreamModels
    frozen: Sequence[Watched]
    operated: Sequence[Watched]
    falls: Sequence[Difference]

    @property
    def stream(self) -> Stream:
        """The purchases."""
        return self.models.stream

    @property
    def windows(self) -> range:
        """All windows under the monitor."""
        return range(self.stream.first, self.stream.count)

    @property
    def refits(self) -> list[int]:
        """The windows before which the policy's refits came into service."""
        return sorted({each.model for each in self.operated} - {self.stream.first})


def run_stream(stream: Stream, folder: Path) -> StreamRun:
    """Go through a stream with a frozen model, with the policy, and with a refit each window."""
    models = StreamModels(stream, Inputs(stream))
    frozen = operated = StreamWalk(models, folder / "frozen", refits=False).run()
    if any(each.action is Action.REFIT for each in frozen):  # else they are the same
        operated = StreamWalk(models, folder / "operated", refits=True).run()
    falls = []
    for window in range(stream.first + 1, stream.count):
        gain = models.score(window, window) - models.score(stream.first, window)
        falls.append(Difference.of(gain, models.people(window)))
    return StreamRun(models, frozen, operated, falls)


JudgedStream = tuple[StreamRun, list[tuple[str, ...]]]
"""A stream, and the rows of the table about it."""


def choose_models(windows: range, refits: Sequence[int]) -> list[int]:
    """The model in service in each window: the first one until the first refit."""
    models = np.array([windows.start, *sorted(refits)])
    return [int(models[np.searchsorted(models, window, side="right") - 1]) for window in windows]


def space_equally(windows: range, count: int) -> list[int]:
    """The windows before which a schedule of so many refits has them."""
    return [windows.start + round(i * len(windows) / (count + 1)) for i in range(1, count + 1)]


def score_refits(run: StreamRun, refits: Sequence[int]) -> Floats:
    """[q] the recall of all scored visits, with refits before some windows."""
    served = choose_models(run.windows, refits)
    pairs = zip(served, run.windows, strict=True)
    return np.concatenate([run.models.score(model, window) for model, window in pairs])


def find_delay(run: StreamRun) -> int | None:
    """Windows from the first real fall to the first one after it with an open alert."""
    real = [i for i, fall in enumerate(run.falls, 1) if fall.is_real]
    if not real:
        return None
    return next(
        (i - real[0] for i in range(real[0], len(run.frozen)) if run.frozen[i].is_open), None
    )


def print_alerts(run: StreamRun) -> None:
    """Alerts of the frozen model beside its falls."""
    stream, falls = run.stream, run.falls
    span = f"{stream.begin(stream.first):%Y-%m} to {stream.begin(stream.count):%Y-%m}"
    score = [score_refits(run, each).mean() for each in ([], list(run.windows)[1:])]
    print_row(
        f"{stream.name}, {len(run.windows)} windows of {stream.days} days",
        f"{score[0]:.4f} | {score[1]:.4f}",
        "",
        f"recall at 10 of the frozen model | refitted before each window; {span}",
    )
    real = [i for i, fall in enumerate(falls, 1) if fall.is_real]
    print_row("  windows in which the frozen model finds less", f"{len(real)} of {len(falls)}")
    raised = [i for i, each in enumerate(run.frozen[:-1]) if each.is_raised]
    followed = sum(i + 1 in real for i in raised)
    causes = Counter(str(i.cause) if (i := run.frozen[w].incident) else "none" for w in raised)
    print_row(
        "  alerts, and those before a window with a real fall",
        f"{len(raised)}, {followed}",
        "",
        _list(causes),
    )
    subjects = Counter(s for w in raised for s in {n.split("/")[0] for n in run.frozen[w].drifting})
    print_row("  what they are about", "", "", _list(subjects))
    covered = sum(run.frozen[i].is_open for i in real)
    is_open = sum(each.is_open for each in run.frozen[1:])
    delay = find_delay(run)
    print_row(
        "  windows with a real fall under an open alert",
        f"{covered} of {len(real)}",
        "",
        f"{is_open} of all {len(falls)}; "
        + ("never open since the first" if delay is None else f"{delay} windows after the first"),
    )
    actions = Counter(str(each.action) for each in run.frozen)
    print_row("  decisions", "", "", _list(actions))


def _list(counts: Counter[str], most: int = 6) -> str:
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(f"{number} {name}" for name, number in ordered[:most])


def print_refits(run: StreamRun) -> None:
    """Refits by policy beside schedules."""
    refits, people = run.refits, np.concatenate([run.models.people(w) for w in run.windows])
    policy = score_refits(run, refits)
    print_row(
        f"  policy: {len(refits)} refits", f"{policy.mean():.4f}", "", "policy less the other:"
    )
    n, others = len(refits), {"never refit": score_refits(run, [])}
    for count in sorted({max(n - 1, 1), max(n, 1), n + 1}):
        others[f"schedule: {count} refits"] = score_refits(run, space_equally(run.windows, count))
    if n:
        random = np.random.default_rng(0)
        later = np.array(run.windows)[1:]
        draws = [
            score_refits(run, random.choice(later, n, replace=False).tolist()) for _ in range(DRAWS)
        ]
        others[f"random: {n} refits, mean of {DRAWS}"] = np.mean(draws, axis=0)
    others["before each window"] = score_refits(run, list(run.windows)[1:])
    for name, scores in others.items():
        print_row(
            f"  {name}", f"{scores.mean():.4f}", "", str(Difference.of(policy - scores, people))
        )


def judge_stream(name: str, data: Path) -> JudgedStream:
    """Run one stream of a folder; also the rows of the table about it."""
    began = time.process_time()
    with (
        tempfile.TemporaryDirectory() as folder,
        redirect_stdout(io.StringIO()),
        PrintedRows() as printed,
    ):
        run = run_stream(STREAMS[name](data, Path(folder)), Path(folder))
        print_alerts(run)
        print_refits(run)
        print_row(f"  ({name}: {time.process_time() - began:.0f} s of processor time)")
    return run, printed.rows


def judge_streams(pool: Executor, data: Path | None = None) -> Iterator[JudgedStream]:
    """Begin to run all streams of a folder; there are none where it is not there.

    Args:
        pool: Where they run.
        data: The folder of public data sets; None for the one that ``REFIT_DATA`` names.
    """
    data = data or Path(os.environ.get(DATA, ""))
    if str(data) == "." or not data.is_dir():
        return iter(())
    return pool.map(judge_stream, STREAMS, repeat(data))


def print_streams(judged: Sequence[JudgedStream], picture: Path | None = None) -> Iterator[str]:
    """Print rows for each stream; there is no goal to miss.

    Args:
        judged: Of ``judge_streams``.
        picture: Where to write a picture of all streams.
    """
    if not judged:
        print_row(
            "REAL STREAMS LEFT OUT", "not measured", "", f"{DATA} names no folder with public data"
        )
        return
    for _, rows in judged:
        for row in rows:
            print_row(*row)
    if picture is not None:
        from tests.benchmarks.drift.stream_picture import draw_streams

        draw_streams([run for run, _ in judged], picture)
    yield from ()


def main() -> int:
    """Print the table; the exit code is 2 where there is no data."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get(DATA), help="public data sets")
    parser.add_argument("--picture", type=Path, help="write a picture here")
    options = parser.parse_args()
    if options.data is None or not options.data.is_dir():
        parser.error(f"no public data: give --data, or set {DATA}")
    set_up_logging()
    with open_pool() as pool:
        judged = list(judge_streams(pool, options.data))
    return bool(list(print_streams(judged, options.picture)))


if __name__ == "__main__":
    raise SystemExit(main())

"""Benchmark of live quality: false falls, coverage of intervals and power, on simulated people.

People differ in how often they come (gamma) and in how often they click and buy (beta), come on
several days, and are answered several times a visit. No simulator of listings is needed: whether
a rate fell depends on the log and on the events only.

Run it with ``python -m tests.benchmarks.drift.quality``; it takes under four minutes on two cores.
"""

import math
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from monitoring.live_quality import measure_live_quality
from monitoring.quality.baseline import RateSeries, judge_series
from monitoring.quality.intervals import PersonSums, wilson_interval
from monitoring.quality.settings import QualitySettings
from monitoring.settings import MeasureSettings
from refit.drift import DriftResult, DriftState, Window
from refit.prediction import HOLDOUT, build_predictions

START = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
TOWERS, DAYS, SEEDS = "towers", 45, 20
DECIDING = ("live:click-rate", "live:purchase-rate")
EVENT_SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("event_type", pa.string()),
        ("event_time", pa.timestamp("us", tz="UTC")),
        ("request_id", pa.string()),
        ("price", pa.float64()),
    ]
)


@dataclass(frozen=True)
class Shop:
    """How people behave, and how their events arrive.

    Attributes:
        answers: Answers a day.
        delay_hours: How long after an answer its outcomes happen.
        spread_hours: Mean of a random part of that, exponential.
        later_hours: By how much the delay grows on day ``change``.
        arrive_hours: How long after they happened events reach the monitor.
        weekend: Relative fall of all rates on weekends.
        market: Relative fall of all rates from day ``change`` on.
        model: Relative fall of the model's rates from day ``change`` on.
        day_to_day: Standard deviation of a day's rates, relative.
        holdout: Share of people who get popularity.
        organic: Organic visits a day, as a share of the answers.
        change: The day of a change.
    """

    answers: int = 1000
    delay_hours: float = 0.1
    spread_hours: float = 0.1
    later_hours: float = 0.0
    arrive_hours: float = 0.0
    weekend: float = 0.0
    market: float = 0.0
    model: float = 0.0
    day_to_day: float = 0.03
    holdout: float = 0.0
    organic: float = 0.0
    change: int = 24


@dataclass(frozen=True)
class People:
    """Who there is: how often each comes, clicks and buys."""

    activity: np.ndarray
    clicks: np.ndarray
    buys: np.ndarray

    @classmethod
    def draw(cls, random: np.random.Generator, answers: int) -> "People":
        """People for so many answers a day; a tenth of them get about half of the answers."""
        n = max(answers // 2, 60)
        activity = random.gamma(0.4, size=n)
        return cls(activity / activity.sum(), random.beta(3, 9, n), random.beta(1, 4, n))


def live(shop: Shop, seed: int, days: int = DAYS) -> tuple[pa.Table, pa.Table]:
    """The prediction log and the events of some days; column ``arrived`` says when."""
    random = np.random.default_rng(seed)
    people = People.draw(random, shop.answers)
    tables = [_live_day(shop, random, people, day, days) for day in range(days)]
    return tuple(pa.concat_tables(each) for each in zip(*tables, strict=True))  # type: ignore[return-value]


def _live_day(
    shop: Shop, random: np.random.Generator, people: People, day: int, days: int
) -> tuple[pa.Table, pa.Table]:
    changed = day >= shop.change
    market = math.exp(shop.day_to_day * random.normal())
    market *= (1 - shop.weekend) if day % 7 >= 5 else 1
    market *= (1 - shop.market) if changed else 1
    n = random.poisson(shop.answers)
    who = random.choice(len(people.activity), n, p=people.activity)
    held = (who * 7919 % 1000) < shop.holdout * 1000
    # People come mostly in the evening.
    at = (np.clip(random.normal(16, 4, n), 0, 23.99) + 24 * day) * 3600
    rate = market * np.where(held, 0.7, (1 - shop.model) if changed else 1)
    clicked = random.random(n) < people.clicks[who] * rate
    bought = clicked & (random.random(n) < people.buys[who])
    delay = shop.delay_hours + (shop.later_hours if changed else 0)
    delay = (delay + shop.spread_hours * random.exponential(size=n)) * 3600
    ids = [f"r{day}-{i}" for i in range(n)]
    empty = [[]] * n
    log = build_predictions(
        {
            "request_id": ids,
            "bundle_id": ["b"] * n,
            "embedding_version": [TOWERS] * n,
            "user_id": [f"u{p}" for p in who],
            "time": _times(at),
            "context": ["{}"] * n,
            "item_ids": pa.array(empty, pa.list_(pa.string())),
            "scores": pa.array(empty, pa.list_(pa.float32())),
            "fallback": pa.array([HOLDOUT if h else None for h in held], pa.string()),
        },
        n,
    )
    kinds = np.where(bought, "purchase", "view")[clicked]
    outcomes = _events(
        [f"u{p}" for p in who[clicked]],
        [f"i{one}" for one in np.flatnonzero(clicked)],
        kinds.tolist(),
        at[clicked] + delay[clicked],
        [ids[i] for i in np.flatnonzero(clicked)],
        random.lognormal(3, 0.8, int(clicked.sum())),
    )
    return log, pa.concat_tables([outcomes, _browse(shop, random, people, day, market)])


def _browse(
    shop: Shop, random: np.random.Generator, people: People, day: int, market: float
) -> pa.Table:
    """Visits of people who browse by themselves: views, and now and then a purchase."""
    n = random.poisson(shop.answers * shop.organic)
    who = random.choice(len(people.activity), n, p=people.activity)
    bought = random.random(n) < 0.2 * market
    more = random.poisson(2.0 * market, n)
    rows = np.repeat(np.arange(n), 1 + more + bought)
    first = np.r_[True, rows[1:] != rows[:-1]] if len(rows) else np.empty(0, bool)
    kinds = np.where(first & bought[rows], "purchase", "view")
    at = (np.clip(random.normal(16, 4, n), 0, 23.9) + 24 * day) * 3600
    return _events(
        [f"u{p}" for p in who[rows]],
        [f"o{row}" for row in range(len(rows))],
        kinds.tolist(),
        at[rows],
        [None] * len(rows),
        random.lognormal(3, 0.8, len(rows)),
    )


def _events(
    users: list[str],
    items: list[str],
    kinds: list[str],
    at: np.ndarray,
    requests: list[str | None] | list[str],
    prices: np.ndarray,
) -> pa.Table:
    return pa.table(
        {
            "user_id": users,
            "item_id": items,
            "event_type": kinds,
            "event_time": _times(at),
            "request_id": pa.array(requests, pa.string()),
            "price": prices,
        },
        schema=EVENT_SCHEMA,
    )


def _times(seconds: np.ndarray) -> pa.Array:
    start = int(START.timestamp() * 1e6)
    return pa.array(
        (np.asarray(seconds) * 1e6).astype(np.int64) + start, pa.timestamp("us", tz="UTC")
    )


def watch(shop: Shop, seed: int, looks: range = range(1, DAYS + 1)) -> list[DriftResult]:
    """The results of one look a day, each with the events that have arrived by then."""
    log, events = live(shop, seed)
    results: list[DriftResult] = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        pq.write_table(log, root / "log.parquet")
        times = np.asarray(events["event_time"].cast(pa.int64()).to_numpy())
        arrived = (times - int(START.timestamp() * 1e6)) / 3.6e9 + shop.arrive_hours
        if shop.arrive_hours:
            arrived += shop.spread_hours * np.random.default_rng(seed).exponential(size=len(times))
        groups = [[look] for look in looks] if shop.arrive_hours else [list(looks)]
        for group in groups:
            there = events.filter(pa.array(arrived <= 24 * group[-1]))
            pq.write_table(there, root / "events.parquet")
            windows = [
                Window(start=START + (look - 1) * DAY, end=START + look * DAY) for look in group
            ]
            results += measure_live_quality(
                MeasureSettings(),
                root / "log.parquet",
                root / "events.parquet",
                TOWERS,
                windows,
                quality=QualitySettings(revenue=False),
            )
    return results


def count_falls(shop: Shop, seed: int, looks: range = range(1, DAYS + 1)) -> tuple[int, int, int]:
    """Falls of a deciding rate, measured windows, and times that two of three windows fell."""
    results = watch(shop, seed, looks)
    falls = measured = persistent = 0
    for subject in DECIDING:
        own = [r for r in results if r.subject == subject]
        fell = [r.state is DriftState.DRIFT for r in own]
        falls += sum(fell)
        measured += sum(r.value is not None for r in own)
        again = [fell[i] and sum(fell[max(i - 2, 0) : i + 1]) >= 2 for i in range(len(fell))]
        # One refit for each run of them.
        persistent += sum(
            now and not before for before, now in zip([False, *again], again, strict=False)
        )
    return falls, measured, persistent


SCENARIOS = {
    "calm": Shop(),
    "outcomes 3 h late": Shop(delay_hours=3),
    "outcomes 6 h late": Shop(delay_hours=6),
    "outcomes late, mean 3 h": Shop(spread_hours=3),
    "delay grows by 5 h": Shop(later_hours=5),
    "weekends -20%": Shop(weekend=0.2),
    "market -20%, holdout 20%": Shop(market=0.2, holdout=0.2, answers=3000),
    "market -20%, organic visits": Shop(market=0.2, organic=1.0),
    "market -20%, neither": Shop(market=0.2),
    "model -30%, organic visits": Shop(model=0.3, organic=1.0),
    "model -30%, holdout 20%": Shop(model=0.3, holdout=0.2, answers=3000),
}
ARRIVALS = {
    "events arrive 3 h late": Shop(answers=500, arrive_hours=3),
    "events arrive 6 h late": Shop(answers=500, arrive_hours=5.5, spread_hours=0.5),
}


def cover(n: int, seed: int) -> int:
    """Whether the 95% interval of a day's click rate covers that of endlessly many people."""
    random = np.random.default_rng(seed)
    people = People.draw(random, n)
    who = random.choice(len(people.activity), n, p=people.activity)
    clicked = random.random(n) < people.clicks[who]
    low, high = PersonSums.of(who, clicked.astype(float)).interval()
    return int(low <= 3 / 12 <= high)


def find_fall(answers: int, fall: float, days: int, seed: int) -> tuple[int, int]:
    """Whether the first window after a fall shows it, and two of the first three."""
    random = np.random.default_rng((seed, answers, days))
    people = People.draw(random, answers)
    sums = []
    for day in range(days + 3):
        who = random.choice(len(people.activity), random.poisson(answers), p=people.activity)
        rate = math.exp(0.03 * random.normal()) * ((1 - fall) if day >= days else 1)
        clicked = random.random(len(who)) < people.clicks[who] * rate
        sums.append(PersonSums.of(who, clicked.astype(float)))
    windows = [Window(start=START + d * DAY, end=START + (d + 1) * DAY) for d in range(days + 3)]
    series = RateSeries(windows, sums, [""] * len(windows))
    fell = [j.fell for j in judge_series(QualitySettings(), series, 50)][days:]
    return int(fell[0]), int(sum(fell) >= 2)


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Print the tables."""
    started = time.perf_counter()
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        say("| 45 days, 20 seeds | falls of 100 windows | refits a seed | seeds with one | 95% |")
        say("|---|---|---|---|---|")
        for name, shop in SCENARIOS.items():
            say_falls(name, list(pool.map(partial(count_falls, shop), range(SEEDS))))
        some = range(9, 24)
        for name, shop in ARRIVALS.items():
            looks: Callable[[int], tuple[int, int, int]] = partial(count_falls, shop, looks=some)
            say_falls(f"{name} (15 looks)", list(pool.map(looks, range(8))))
        say("\n| people's interval of nominal 95% | covers |\n|---|---|")
        for n in (300, 1000, 3000):
            hits = sum(pool.map(partial(cover, n), range(1000), chunksize=100))
            say(f"| {n} answers | {hits / 1000:.3f} |")
        say("\n| answers a day | fall | days before | first window | two of three |")
        say("|---|---|---|---|---|")
        for n in (300, 1000, 3000):
            for fall in (0.1, 0.2, 0.3):
                for days in (7, 28):
                    found = list(pool.map(partial(find_fall, n, fall, days), range(40)))
                    first, two = (sum(each) / len(found) for each in zip(*found, strict=True))
                    say(f"| {n} | {fall:.0%} | {days} | {first:.2f} | {two:.2f} |")
    say(f"\n{time.perf_counter() - started:.0f} s")


def say_falls(name: str, counts: list[tuple[int, int, int]]) -> None:
    falls, measured, refits = (sum(each) for each in zip(*counts, strict=True))
    seeds = sum(each[2] > 0 for each in counts)
    low, high = wilson_interval(seeds / len(counts), len(counts))
    say(
        f"| {name} | {100 * falls / max(measured, 1):.1f} | {refits / len(counts):.2f} | "
        f"{seeds} of {len(counts)} | {low:.2f} to {high:.2f} |"
    )


if __name__ == "__main__":
    main()

"""Incidents whose cause is known: kinds at three sizes, lived through in a market, for benches.

    incidents = draw_incidents(210, seed=1)
    for incident, market in live_incidents(incidents, folder, prepare=build_reference):
        ...  # measure market.data() over market.windows(incident.days); compare with incident.cause

Which rows, columns, days and strengths an incident has follows from its seed.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from refit.alert import Action
from refit.incident import Cause
from simulation.feed_faults import ENCODER_FAULTS, FeedFault
from simulation.settings import MarketChange
from tests.benchmarks.drift.lived import LivedMarket, LivedSettings

SIZES = ("small", "medium", "large")
SHARES = (0.1, 0.5, 1.0)
"""The share of rows that a fault of a feed hits, by size."""
MARKET: dict[str, Any] = {"preset": "living", "days": 45}
"""The market that incidents happen in, unless another one is given."""
CALM: dict[str, dict[str, Any]] = {
    "living": MARKET,
    "outcomes 3 h late": {**MARKET, "purchase_delay_hours": 3.0},
    "outcomes 6 h late": {**MARKET, "purchase_delay_hours": 6.0},
    "weekends -20%": {**MARKET, "weekend_conversion": 0.8},
    "strong season": {**MARKET, "season_strength": 2.0},
    "fast growth": {**MARKET, "visits_growth": 0.2, "listings_growth": 0.2},
    "whole market -20%": {**MARKET, "changes": ({"name": "market_slump", "day": 60},)},
}
"""Markets in which no refit is due; the last one may raise an alert that only tells."""
WORLDS = 6
"""So many markets are simulated; the incidents are shared out among them."""


@dataclass(frozen=True)
class KnownIncident:
    """What happens, and what a monitor should say about it.

    A model that is promoted has a new embedding version, and so needs a reference of its own:
    ``LivedMarket.build_reference``.

    Attributes:
        kind: One of ``KINDS``.
        size: One of ``SIZES``.
        seed: What it was drawn with.
        world: Seed of the market that it happens in.
        calm_days: Live days before it begins.
        days: Live days from its beginning on, after which it should be named.
        cause: The true cause.
        action: The action that helps most.
        also: Other actions that are no mistake.
        fault: For an upstream fault, its name in ``simulation.feed_faults.FAULTS``.
        feed: For an upstream fault, where it begins, such as ``items.price``.
        change: Name, strength and column of the change of the market, if it is one.
        feed_fault: The fault of a feed without its time, if it is one.
        operation: What the operator does, if that is it: ``stop refresh``, ``promote worse`` or
            ``lose histories``, and how much.
    """

    kind: str
    size: str
    seed: int
    world: int
    calm_days: int
    days: int
    cause: Cause
    action: Action
    also: tuple[Action, ...] = ()
    fault: str = ""
    feed: str = ""
    change: tuple[tuple[str, Any], ...] = ()
    feed_fault: tuple[tuple[str, Any], ...] = ()
    operation: tuple[str, float] = ("", 0.0)

    def begin(self, market: LivedMarket) -> None:
        """Let it begin on the market's next day."""
        if self.change:
            market.change(MarketChange.parse({**dict(self.change), "day": market.market.day}))
        if self.feed_fault:
            fault = FeedFault.parse({**dict(self.feed_fault), "since": market.now})
            market.faults = (*market.faults, fault)
        name, much = self.operation
        if name == "stop refresh":
            market.operate(refresh_every=0)
        elif name == "promote worse":
            market.refit(noise=much)
        elif name == "lose histories":
            market.operate(skew=much)


Draw = Callable[[np.random.Generator, int], dict[str, Any]]
"""Fields of an incident that are its kind's own, from its generator and the number of its size."""


def draw_incidents(
    count: int, seed: int = 0, kinds: Sequence[str] = (), sizes: Sequence[str] = SIZES
) -> list[KnownIncident]:
    """Draw incidents; every kind and size is as frequent as any other.

    Args:
        count: How many.
        seed: The same seed gives the same incidents.
        kinds: Some of ``KINDS``; none for all of them.
        sizes: Some of ``SIZES``.
    """
    names = tuple(kinds) or tuple(KINDS)
    drawn = []
    for i in range(count):
        kind = names[i % len(names)]
        size = sizes[i // len(names) % len(sizes)]
        rng = np.random.default_rng([seed, i])
        fields = {
            "calm_days": int(rng.integers(5, 12)),
            "days": int(rng.integers(3, 5)),
            **KINDS[kind](rng, SIZES.index(size)),
        }
        world = 1000 * seed + i % WORLDS
        drawn.append(KnownIncident(kind=kind, size=size, seed=i, world=world, **fields))
    return drawn


def live_incidents(
    incidents: Sequence[KnownIncident],
    folder: Path,
    prepare: Callable[[LivedMarket], object] | None = None,
    market: dict[str, Any] | None = None,
    settings: LivedSettings | None = None,
    live: bool = True,
) -> Iterator[tuple[KnownIncident, LivedMarket]]:
    """Live through incidents, one after the other.

    Args:
        incidents: They come in order of their markets and calm days, not in the order given.
        folder: Working folder; what an incident wrote is removed when the next one begins.
        prepare: Called once for each market at the end of its history; what it writes below the
            market's folder is there for each of its incidents.
        market: Settings of the simulation without ``seed``; ``MARKET`` if not given.
        settings: How the markets are operated.
        live: Whether the incident's days have been lived when it is returned. Without, it begins
            on the next day, and ``market.live`` lives on, which allows to measure day by day.
    """
    ordered = sorted(incidents, key=lambda i: (i.world, i.calm_days))
    for world, own in groupby(ordered, key=lambda i: i.world):
        base = LivedMarket(
            {**(market or MARKET), "seed": world}, folder / f"world-{world}", settings
        )
        if prepare:
            prepare(base)
        lived = 0
        for incident in own:
            if incident.calm_days > lived:
                base.live(incident.calm_days - lived)
                lived = incident.calm_days
            place = folder / "incident"
            happened = base.fork(place)
            incident.begin(happened)
            if live:
                happened.live(incident.days)
            yield incident, happened
            shutil.rmtree(place)
        shutil.rmtree(base.folder)


def _change(
    name: str,
    cause: Cause,
    action: Action,
    strengths: tuple[float, float, float],
    also: tuple[Action, ...] = (),
) -> Draw:
    """A change of the market, of about these strengths by size."""

    def draw(rng: np.random.Generator, size: int) -> dict[str, Any]:
        strength = round(strengths[size] * float(rng.uniform(0.9, 1.1)), 3)
        return {
            "cause": cause,
            "action": action,
            "also": also,
            "change": (("name", name), ("strength", min(strength, strengths[-1]))),
        }

    return draw


def _fault(name: str, *choices: dict[str, Any], **of_size: tuple[Any, Any, Any]) -> Draw:
    """A fault of a feed: one of some choices, with fields by size; its share by default."""

    def draw(rng: np.random.Generator, size: int) -> dict[str, Any]:
        chosen = choices[rng.integers(len(choices))] if choices else {}
        values = of_size or {"share": SHARES}
        fields = {"name": name, **chosen, **{field: v[size] for field, v in values.items()}}
        return _upstream({**fields, "seed": int(rng.integers(1000))})

    return draw


def _upstream(fields: dict[str, Any]) -> dict[str, Any]:
    fault = FeedFault.parse({**fields, "since": "2024-01-01T00:00:00Z"})
    action = Action.WAIT if fault.name == "rows_late" else Action.QUARANTINE
    return {
        "cause": Cause.UPSTREAM_FAULT,
        "action": action,
        "fault": fault.name,
        "feed": fault.feed,
        "feed_fault": tuple(fields.items()),
    }


def _encoder(rng: np.random.Generator, size: int) -> dict[str, Any]:
    name = str(rng.choice([name for name in ENCODER_FAULTS if name != "encoder_half_rolled"]))
    fields = {"name": name, "share": (0.2, 0.5, 1.0)[size], "seed": int(rng.integers(1000))}
    if name == "vectors_scaled":
        fields["factor"] = float(rng.choice([0.1, 0.5, 2.0, 10.0]))
    return _upstream(fields)


def _operation(
    name: str, cause: Cause, action: Action, much: tuple[float, float, float], **fields: Any
) -> Draw:
    def draw(rng: np.random.Generator, size: int) -> dict[str, Any]:
        value = much[size] * float(rng.uniform(0.9, 1.0))
        return {"cause": cause, "action": action, "operation": (name, value), **fields}

    return draw


def _index_age(rng: np.random.Generator, size: int) -> dict[str, Any]:
    return {
        "cause": Cause.INDEX_AGE,
        "action": Action.REFRESH,
        "operation": ("stop refresh", 0.0),
        "days": (7, 10, 14)[size],
    }


SWAPS = (
    {"column": "brand", "other": "category_2"},
    {"column": "colour", "other": "size"},
    {"column": "condition", "other": "colour"},
    {"column": "category_1", "other": "category_3"},
)
RENAMED = tuple(
    {"column": column, "words": words}
    for column in ("category_1", "category_2", "brand", "condition")
    for words in ("upper", "translated", "prefixed")
)
NULLED = tuple({"column": c} for c in ("brand", "category_1", "size", "price", "image_embedding"))
SPELLED = tuple({"column": c} for c in ("brand", "category_1", "colour", "size", "condition"))
UNITS = ({"factor": 100.0}, {"factor": 0.01}, {"factor": 11.4}, {"factor": 4.3})

KINDS: dict[str, Draw] = {
    "price in another unit": _fault("number_scaled", *UNITS),
    "renamed values": _fault("values_renamed", *RENAMED),
    "column null": _fault("column_null", *NULLED, share=(0.1, 0.3, 1.0)),
    "nulls spelled out": _fault("null_spelled", *SPELLED, share=(0.1, 0.3, 0.6)),
    "nulls mended later": _fault(
        "column_null",
        *({**choice, "days": 4.0, "mended": True} for choice in NULLED),
        share=(0.1, 0.3, 1.0),
    ),
    "swapped columns": _fault("columns_swapped", *SWAPS),
    "items feed away": _fault("feed_stale", share=(1.0, 1.0, 1.0)),
    "part of a feed lost": _fault(
        "rows_lost", {"table": "items"}, {"table": "events"}, share=(0.2, 0.5, 0.9)
    ),
    "source stopped": _fault(
        "source_stopped",
        {"by": "country"},
        {"by": "country", "table": "items"},
        value=("IT", "DE", "FR"),
    ),
    "surface stopped": _fault("source_stopped", value=("home", "home", "search")),
    "doubled feed": _fault(
        "rows_doubled",
        {"table": "items"},
        {"table": "items", "new_ids": True},
        {"table": "events"},
        share=(0.2, 0.5, 1.0),
    ),
    "replayed feed": _fault(
        "rows_replayed", {"table": "events"}, {"table": "items"}, lag_days=(14.0, 7.0, 1.0)
    ),
    "wrong time zone": _fault(
        "clock_shifted", {"hours": 8.0}, {"hours": -5.0}, {"hours": 2.0}, share=(0.2, 0.5, 1.0)
    ),
    "clock in the future": _fault("clock_ahead", share=(0.05, 0.2, 0.5)),
    "late events": _fault("rows_late", hours=(6.0, 12.0, 20.0)),
    "outcomes without request": _fault(
        "column_null", {"table": "events", "column": "request_id"}, share=(0.2, 0.5, 1.0)
    ),
    "encoder replaced": _encoder,
    "encoder half rolled": _fault("encoder_half_rolled", share=(0.1, 0.3, 0.5)),
    "garbled text": _fault("text_garbled", share=(0.1, 0.5, 1.0)),
    "new category": _change("new_category_wave", Cause.NEW_SUPPLY, Action.REFIT, (0.2, 0.4, 1.0)),
    "flood of sellers": _change(
        "new_sellers_flood", Cause.NEW_SUPPLY, Action.REFIT, (0.4, 1.0, 2.0)
    ),
    "taste shift": _change("taste_shift", Cause.TASTE, Action.REFIT, (0.4, 0.7, 1.0)),
    "brand craze": _change(
        "brand_craze", Cause.TASTE, Action.REFIT, (0.4, 0.7, 1.0), (Action.ALERT,)
    ),
    "season jump": _change(
        "season_jump", Cause.SEASON, Action.ALERT, (0.5, 1.0, 1.6), (Action.REFIT,)
    ),
    "market slump": _change("market_slump", Cause.MARKET, Action.ALERT, (1.0, 2.0, 3.0)),
    "price inflation": _change(
        "price_inflation", Cause.MARKET, Action.ALERT, (0.4, 1.0, 2.0), (Action.REFIT,)
    ),
    "old index": _index_age,
    # Only outcomes show that a model is worse, and they mature after 30 hours.
    "worse model": _operation(
        "promote worse", Cause.MODEL, Action.ROLL_BACK, (0.2, 0.4, 0.8), days=7
    ),
    "lost histories": _operation("lose histories", Cause.MODEL, Action.ROLL_BACK, (0.3, 0.6, 1.0)),
}
"""The kinds of incidents, and how the rest of one is drawn."""

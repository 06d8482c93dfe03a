"""Results as the monitor has them: calm days, and what moved on the last days."""

from datetime import UTC, datetime, timedelta

from monitoring.explain import ExplainContext
from monitoring.explain.context import RowVolume
from refit.drift import DriftResult, DriftState, Window

START = datetime(2024, 3, 1, tzinfo=UTC)
CALM, DAYS = 8, 3
BEGAN = START + timedelta(days=CALM)
USUAL = (
    "query-embedding/mean_shift",
    "listing-embedding/mean_shift",
    "scores/quantile_shares",
    "mix:category_1/value_shares",
    "mix:price_band/value_shares",
    "input:items.category_1/null_share",
    "input:items.category_1/new_values",
    "input:items.category_1/value_shares",
    "input:items.brand/null_share",
    "input:items.brand/new_values",
    "input:items.brand/value_shares",
    "input:items.price/null_share",
    "input:items.price/quantile_shares",
    "input:items.image_embedding/vector_norm",
    "input:items.image_embedding/centroid_shift",
    "input:events.event_type/value_shares",
    "input:events.wanted_category/value_shares",
    "feed:items/stale",
    "feed:items.price/scale",
    "feed:events/doubled",
    "live:click-lift/drop",
    "live:purchase-lift/drop",
)
LISTED = tuple(name for name in USUAL if name.startswith("input:items.category_1"))


def day(number):
    return Window(start=START + timedelta(days=number), end=START + timedelta(days=number + 1))


def result(name, window, moves=False, measured=True, towers="t2", **more):
    subject, statistic = name.split("/")
    state = DriftState.DRIFT if moves else DriftState.OK
    return DriftResult(
        subject=subject,
        statistic=statistic,
        value=(0.9 if moves else 0.1) if measured else None,
        threshold=0.3 if measured else None,
        p_value=(1e-12 if moves else 0.6) if measured and not name.startswith("live:") else None,
        n_reference=1000,
        n_current=500,
        window=window,
        state=state if measured else DriftState.INSUFFICIENT_DATA,
        why="" if measured else "3 usable rows, 50 are needed",
        embedding_version=towers,
        **more,
    )


def lived(*moved, names=USUAL, unmeasured=(), days=DAYS):
    """Results of calm days and of some on which these move."""
    return [
        result(
            name,
            day(number),
            moves=name in moved and number >= CALM,
            measured=name not in unmeasured,
        )
        for number in range(CALM + days)
        for name in dict.fromkeys([*names, *moved])
    ]


def volumes(**factors):
    names = ("listings", "answers", "outcomes", "organic", "events", "purchases")
    return tuple(
        RowVolume(
            name="purchases per view" if name == "purchases" else name,
            start=day(number).start,
            rows=1000 * factors.get(name, 1.0),
            expected=1000.0,
            spread=0.05,
        )
        for number in range(CALM, CALM + DAYS)
        for name in names
    )


def choices(**moved):
    return tuple(
        result(f"choice:{name}/mean_shift", day(CALM)).model_copy(
            update={"p_value": 1e-9 if moved.get(name) else 0.5}
        )
        for name in ("image_embedding", "brand")
    )


def context(liked=(), factors=None, **more):
    """What is known where nothing but this is unusual."""
    known = {
        "index_age_days": 4.0,
        "usual_index_age_days": 5.0,
        "longest_index_age_days": 7.0,
        "champion_since": START,
        "volumes": volumes(**(factors or {})),
        "choices": choices(**dict.fromkeys(liked, True)),
    }
    return ExplainContext(**{**known, **more})

"""What accuracy does not see: novelty, diversity, who is shown, and what a score is worth.

All of it is measured on the lists of the shortest cut k, which is what a person sees first.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.evaluation.data import DAY, ExampleLog, Floats, Ints, Longs
from components.evaluation.ranking import CandidateGroup, EvaluationSet, Ranking, spread
from components.evaluation.results import Beyond, ExposureShare, ReliabilityBin
from components.evaluation.settings import BeyondSettings, EvaluationSettings
from refit.contract import EventType
from refit.feature_tables import ItemTimes, numbers, strings, vectors

Values = NDArray[np.float64]
NEW, SMALL, SIZE, PRICE = "new listings", "small sellers", "size", "price"
DIVERSITY_LISTS = 5000
"""Lists whose pairs of items are compared, evenly over time."""
BINS = 10


class BeyondAccuracy:
    """Measures the lists of methods on one evaluation set.

    A share of exposure is a share of the places in the lists; a share of stock is that of the live
    items, averaged over the queries. Their ratio is 1 where a part is shown as often as it is
    there. What cannot be measured is None, with the reason in ``why``.

    Args:
        settings: The shortest cut, and what counts as new, small and a part.
        evaluation_set: The test queries.
    """

    def __init__(self, settings: EvaluationSettings, evaluation_set: EvaluationSet) -> None:
        self._settings, self._set = settings, evaluation_set
        data = evaluation_set.data
        before = data.log.before(data.split_start("test"))
        self._surprise = surprise(
            data.log.user[:before], data.log.item[:before], data.catalogue.size
        )
        self._static = _static_parts(settings.beyond, evaluation_set)
        self._sales = find_sales(data.log)
        self._times = data.log.time[evaluation_set.queries.rows]

    def measure(self, ranking: Ranking) -> Beyond:
        """Measure a method's lists."""
        k = self._settings.shortest
        top = ranking.top[:, :k]
        found: dict[str, float | None] = {}
        why: dict[str, str] = {}

        def keep(name: str, value: float | None, reason: str) -> None:
            known = value is not None and bool(np.isfinite(value))
            found[f"{name}_at_{k}"] = value if known else None
            if not known:
                why[f"{name}_at_{k}"] = reason

        keep("novelty", novelty(top, self._surprise), "nothing was shown")
        keep("diversity", *_diversity(self._set, top))
        parts, age_days = _count_parts(self._settings.beyond, self._set, top, self._static)
        keep("age_days", age_days, "no listing that was shown has an age")
        keep(
            "days_to_sale",
            days_to_sale(top, self._times, self._sales),
            "no item that was shown was bought later in the test window",
        )
        for name, part, reason in (
            ("new_listings", NEW, "no live item is new, by evaluation.beyond.new_days"),
            ("small_sellers", SMALL, "the items have no sellers, or none is small"),
        ):
            keep(name, next((p.ratio for p in parts if p.part == part), None), reason)
        for name, column in (("size_parity", SIZE), ("price_parity", PRICE)):
            ratios = [p.ratio for p in parts if p.part.startswith(f"{column}: ")]
            known = [ratio for ratio in ratios if ratio is not None]
            keep(name, min(known, default=None), f"the items have no {column}")
        reliability = measure_reliability(self._set, ranking, k)
        keep(
            "calibration_error",
            calibration_error(reliability),
            "one half of the test window has no list with its positive, or no finite score",
        )
        return Beyond(values=found, why=why, parts=parts, reliability=reliability)


def surprise(user: Ints, item: Ints, n_items: int) -> Values:
    """[N] self-information of each item, in bits (Zhou et al. 2010, PNAS 107:4511).

    ``log2((U + 1) / (u_i + 1))``, where u_i of the U users have chosen item i: 0 for what everybody
    has chosen already. The ones keep it finite for new items.

    Args:
        user: [M] users of the earlier choices.
        item: [M] their items.
        n_items: Number of items.
    """
    pairs = np.unique(user.astype(np.int64) * n_items + item)
    users = np.bincount(pairs % n_items, minlength=n_items)
    return np.asarray(np.log2((len(np.unique(user)) + 1) / (users + 1)), dtype=np.float64)


def novelty(top: Ints, bits: Values) -> float | None:
    """Mean surprise of the items shown; None if nothing was.

    Args:
        top: [n, k] items shown, -1 for none.
        bits: [N] the surprise of each item.
    """
    shown = top[top >= 0]
    return float(bits[shown].mean()) if len(shown) else None


def find_sales(log: ExampleLog) -> ItemTimes:
    """When each item was bought, by item and time."""
    purchase = EventType.PURCHASE.value
    values = log.event_type.values
    code = values.index(purchase) if purchase in values else -1
    rows = np.flatnonzero(log.event_type.codes == code)
    rows = rows[np.lexsort((log.time[rows], log.item[rows]))]
    return ItemTimes(log.item[rows], log.time[rows])


def days_to_sale(top: Ints, times: Longs, sales: ItemTimes) -> float | None:
    """Median days until an item that was shown is bought by anybody.

    Of those that are bought later in the test window; None if none is. All methods are cut off at
    the same end, so that they can be compared with each other, not with the market.

    Args:
        top: [n, k] items shown, -1 for none.
        times: [n] when they were shown, in microseconds.
        sales: The purchases.
    """
    place = sales.find_next(top, times[:, None] + 1)
    later = place >= 0
    if not later.any():
        return None
    return float(np.median((sales.time[place] - times[:, None])[later])) / DAY


def diversity_of_vectors(top: Ints | Longs, vector: Floats) -> float | None:
    """Mean cosine distance between two items of a list: intra-list diversity (Ziegler et al. 2005).

    Args:
        top: [n, k] items shown, -1 for none.
        vector: [N, D] content vectors; zeros where an item has none, which leaves it out.
    """
    length = np.linalg.norm(vector, axis=1, keepdims=True)
    unit = vector / np.where(length > 0, length, 1.0)
    known = (top >= 0) & (length[top, 0] > 0)
    n = known.sum(axis=1)
    total = np.einsum("nk,nkd->nd", known.astype(np.float32), unit[top], optimize=True)
    # The sum over all ordered pairs, without the pairs of an item with itself.
    similar = (total.astype(np.float64) ** 2).sum(axis=1) - n
    return _mean_of_pairs(similar, n)


def diversity_of_categories(top: Ints | Longs, codes: list[Ints]) -> float | None:
    """Mean share of the columns in which two items of a list differ.

    Args:
        top: [n, k] items shown, -1 for none.
        codes: For each column, [N] codes of its values, -1 where missing, which equals nothing.
    """
    there = top >= 0
    n = there.sum(axis=1)
    pairs = there[:, :, None] & there[:, None, :] & ~np.eye(top.shape[1], dtype=np.bool_)
    alike = np.zeros(len(top))
    for column in codes:
        values = np.where(there, column[top], -1)
        same = (values[:, :, None] == values[:, None, :]) & (values >= 0)[:, :, None]
        alike += (same & pairs).sum(axis=(1, 2))
    return _mean_of_pairs(alike / max(1, len(codes)), n)


def _mean_of_pairs(similar: Values, n: Longs) -> float | None:
    """1 minus the mean similarity over lists with a pair; ``similar`` [n] sums ordered pairs."""
    enough = n >= 2
    if not enough.any():
        return None
    pairs = n[enough] * (n[enough] - 1)
    return float(np.mean(1.0 - similar[enough] / pairs))


def measure_reliability(
    evaluation_set: EvaluationSet, ranking: Ranking, k: int
) -> tuple[ReliabilityBin, ...]:
    """What a score would promise as a probability, and what happened.

    An isotonic regression (Zadrozny & Elkan 2002) from score to "this item is chosen" is fitted on
    the lists of the earlier half of the test queries; the bins are those of the later half. So it
    is a probability that could have been known at the time.

    Args:
        evaluation_set: The test queries.
        ranking: Their lists and scores.
        k: Length of the lists.

    Returns:
        Ten bins of equally many list places, from the least promising; empty if one half has no
        hit or no finite score.
    """
    data, queries = evaluation_set.data, evaluation_set.queries
    order = np.argsort(data.log.time[queries.rows], kind="stable")
    top, scores = ranking.top[order, :k], ranking.scores[order, :k].astype(np.float64)
    n_items, positives = data.catalogue.size, queries.positives
    chosen = positives.owner * n_items + data.log.item[positives.rows]
    hit = np.isin(order[:, None] * n_items + top, chosen).astype(np.float64)
    usable = (top >= 0) & np.isfinite(scores)
    half = len(order) // 2
    early, late = usable[:half], usable[half:]
    past, future = hit[:half][early], hit[half:][late]
    if not past.sum() or not future.sum():
        return ()
    promised = _isotonic(scores[:half][early], past, scores[half:][late])
    by_promise = np.argsort(promised, kind="stable")
    return tuple(
        ReliabilityBin(
            promised=float(promised[part].mean()), happened=float(future[part].mean()), n=len(part)
        )
        for part in np.array_split(by_promise, BINS)
        if len(part)
    )


def calibration_error(reliability: tuple[ReliabilityBin, ...]) -> float | None:
    """Expected calibration error: mean |promised - happened| over list places (Naeini et al. 2015).

    None without bins.
    """
    n = sum(part.n for part in reliability)
    if not n:
        return None
    return sum(part.n * abs(part.promised - part.happened) for part in reliability) / n


def _isotonic(score: Values, hit: Values, other: Values) -> Values:
    """Fit hit by a rising function of score, and apply it to other scores."""
    from scipy.optimize import isotonic_regression

    distinct, place, count = np.unique(score, return_inverse=True, return_counts=True)
    rate = np.bincount(place, hit) / count
    fitted = isotonic_regression(rate, weights=count.astype(np.float64)).x
    return np.asarray(np.interp(other, distinct, fitted), dtype=np.float64)


@dataclass(frozen=True)
class _Part:
    """A part of the stock at a snapshot: a flag for each candidate."""

    name: str
    flags: NDArray[np.bool_]


def _count_parts(
    settings: BeyondSettings,
    evaluation_set: EvaluationSet,
    top: Ints,
    static: Mapping[str, NDArray[np.bool_]],
) -> tuple[tuple[ExposureShare, ...], float | None]:
    """Shares of stock and exposure of every part, and the mean age of the items shown."""
    stock: dict[str, float] = {}
    shown: dict[str, float] = {}
    ages: list[Values] = []
    for group in evaluation_set.groups:
        listed = top[group.queries]
        listed = listed[listed >= 0].astype(np.int64)
        place = group.snapshot.positions(listed)
        age = group.snapshot.age_days[place].astype(np.float64)
        ages.append(age[np.isfinite(age)])
        for part in _parts(settings, evaluation_set, group, static):
            share = float(part.flags.mean()) if len(part.flags) else 0.0
            stock[part.name] = stock.get(part.name, 0.0) + share * len(group.queries)
            shown[part.name] = shown.get(part.name, 0.0) + float(part.flags[place].sum())
    places = int(np.count_nonzero(top >= 0))
    n = max(1, len(top))
    parts = [
        ExposureShare(part=name, stock=total / n, exposure=shown[name] / places if places else None)
        for name, total in stock.items()
    ]
    known = np.concatenate(ages) if ages else np.empty(0)
    kept = tuple(
        p for p in parts if p.part in (NEW, SMALL) or (p.stock or 0.0) >= settings.smallest_part
    )
    return kept, float(known.mean()) if len(known) else None


def _parts(
    settings: BeyondSettings,
    evaluation_set: EvaluationSet,
    group: CandidateGroup,
    static: Mapping[str, NDArray[np.bool_]],
) -> Iterator[_Part]:
    snapshot = group.snapshot
    yield _Part(NEW, snapshot.age_days <= settings.new_days)
    seller = evaluation_set.data.catalogue.sellers.codes[snapshot.items]
    listings = np.bincount(seller[seller >= 0], minlength=1)
    yield _Part(SMALL, (seller >= 0) & (listings[seller] <= settings.small_seller_listings))
    for name, flags in static.items():
        yield _Part(name, flags[evaluation_set.data.content_rows(snapshot)])


def _static_parts(
    settings: BeyondSettings, evaluation_set: EvaluationSet
) -> dict[str, NDArray[np.bool_]]:
    """[R] flags of each size and each price band; a price band is a quarter of the stock or so.

    R is the number of rows of ``ItemCatalogue.contents``.
    """
    data = evaluation_set.data
    table = data.catalogue.contents
    rows = [data.content_rows(group.snapshot) for group in evaluation_set.groups]
    live = np.unique(np.concatenate(rows))
    found: dict[str, NDArray[np.bool_]] = {}
    if SIZE in table.column_names:
        sizes = strings(table[SIZE]).astype(str)
        for value in np.unique(sizes[live]):
            if value:
                found[f"{SIZE}: {value}"] = sizes == value
    if PRICE in table.column_names:
        prices = numbers(table[PRICE]).astype(np.float64)
        known = prices[live][np.isfinite(prices[live])]
        if len(known):
            edges = np.unique(np.quantile(known, np.linspace(0, 1, settings.price_bands + 1)))
            band = np.searchsorted(edges[1:-1], prices, side="right")
            for i in range(max(1, len(edges) - 1)):
                name = f"{PRICE}: {edges[i]:.4g} to {edges[min(i + 1, len(edges) - 1)]:.4g}"
                found[name] = (band == i) & np.isfinite(prices)
    return found


def _diversity(evaluation_set: EvaluationSet, top: Ints) -> tuple[float | None, str]:
    """Diversity by content vectors where the items have them, else by categories; or why not."""
    table, spec = evaluation_set.data.catalogue.contents, evaluation_set.data.spec
    shown = evaluation_set.data.rows_of_items(top, evaluation_set.queries)
    lists = shown[spread(np.arange(len(top)), DIVERSITY_LISTS)]
    if spec.item_vector:
        vector = vectors(table[spec.item_vector], evaluation_set.data.manifest.vector_size)
        return diversity_of_vectors(lists, vector), "no list holds two items with a content vector"
    if not spec.item_categorical:
        return None, "the items have neither a vector nor categories in the feature spec"
    codes = [_code(strings(table[name])) for name in spec.item_categorical]
    return diversity_of_categories(lists, codes), "no list holds two items"


def _code(values: NDArray[Any]) -> Ints:
    names, codes = np.unique(values.astype(str), return_inverse=True)
    empty = np.flatnonzero(names == "")
    return np.where(np.isin(codes, empty), -1, codes).astype(np.int32)

"""Tuning of popularity factors, shared by the baselines that are built from them."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

from components.evaluation.data import Floats
from components.evaluation.naive_bayes import (
    LATEST,
    LISTING_AGE,
    NaiveBayesPopularity,
    NaiveBayesScorer,
    PopularityFactor,
)
from components.evaluation.tuning import Tuned, ValidationSet, pick_best

MIN_GAIN = 1.005
"""A further factor must raise the validation metric at least by this ratio."""
POOL_SIZE = 24
"""Attribute factors that selection starts with: those that add most to popularity alone."""
SHORTLIST_SIZE = 8
"""Factors that selection keeps after its first step."""

Factors = tuple[PopularityFactor, ...]


def code_columns(validation: ValidationSet) -> NaiveBayesPopularity:
    """The coded columns; pass it to ``validation.shared``."""
    grid = validation.settings.baselines
    return NaiveBayesPopularity(validation.data, grid.max_values, grid.number_bins)


def tune_popularity(validation: ValidationSet) -> tuple[PopularityFactor, float]:
    """The best factor without context or attribute, and its metric."""
    grid, naive_bayes = validation.settings.baselines, validation.shared(code_columns)
    factors = [
        PopularityFactor(half_life_days=days, strength=prior)
        for days, prior in product(grid.half_lives_days, grid.priors)
    ]
    factors += [
        PopularityFactor(half_life_days=days, strength=prior, source="snapshots")
        for days, prior in product(_snapshot_half_lives(naive_bayes), grid.priors)
    ]
    return pick_best(factors, lambda factor: _measure(validation, (factor,)))


def tune_context(validation: ValidationSet) -> tuple[Factors, float]:
    """Popularity with the context columns that improve it, and its metric."""
    grid, naive_bayes = validation.settings.baselines, validation.shared(code_columns)
    popular, metric = validation.shared(tune_popularity)
    if not naive_bayes.contexts:
        return (popular,), metric
    alpha = sorted(grid.alphas)[len(grid.alphas) // 2]
    pool = [
        PopularityFactor(column=column, half_life_days=popular.half_life_days, strength=alpha)
        for column in naive_bayes.contexts
    ]
    pool += [
        PopularityFactor(column=column, half_life_days=days, strength=alpha, source="snapshots")
        for column, days in product(
            validation.data.spec.popularity_by, _snapshot_half_lives(naive_bayes)
        )
    ]
    factors, _ = _select(validation, (popular,), pool)

    def measure(factors: Factors) -> float:
        return _measure(validation, factors)

    decayed = [_with_half_life(factors, days) for days in grid.half_lives_days]
    factors, _ = pick_best([*decayed, factors], measure)
    return pick_best([_with_strength(factors, alpha) for alpha in grid.alphas], measure)


def tune_attributes(validation: ValidationSet) -> tuple[Factors, float]:
    """Attribute factors alone, with popularity or with context: the best, and its metric."""
    grid, naive_bayes = validation.settings.baselines, validation.shared(code_columns)
    popular, _ = validation.shared(tune_popularity)
    in_context, _ = validation.shared(tune_context)
    days = popular.half_life_days
    strength = in_context[-1].strength if len(in_context) > 1 else grid.alphas[0]
    names = (*naive_bayes.attributes, LISTING_AGE)
    pool = [PopularityFactor(attribute=name, half_life_days=days) for name in names]
    pool += [
        PopularityFactor(name, column, days, strength)
        for name, column in product(naive_bayes.attributes, naive_bayes.contexts)
        if not column.startswith(LATEST) or column == LATEST + name
    ]
    alone = validation.score(NaiveBayesScorer(naive_bayes, (popular,)))
    pool.sort(key=lambda factor: -_measure(validation, (factor,), alone))
    starts: tuple[Factors, ...] = ((), (popular,), in_context)
    selected = [_select(validation, start, pool[:POOL_SIZE]) for start in starts]
    # Where every order is equally good, selection from nothing ends with nothing.
    return max((some for some in selected if some[0]), key=lambda some: some[1])


def fit_factors(validation: ValidationSet, factors: Factors, metric: float) -> Tuned:
    """The tuned baseline of some factors."""
    chosen = {
        "factors": [factor.describe() for factor in factors],
        "half_life_days": factors[0].half_life_days,
        "strength": sorted({factor.strength for factor in factors}),
        "validation": metric,
    }
    return Tuned(NaiveBayesScorer(validation.shared(code_columns), factors), chosen)


def _measure(
    validation: ValidationSet, factors: Factors, added_to: Sequence[Floats] | None = None
) -> float:
    scorer = NaiveBayesScorer(validation.shared(code_columns), factors)
    return validation.measure(scorer, added_to)


def _snapshot_half_lives(naive_bayes: NaiveBayesPopularity) -> tuple[float, ...]:
    """Half-lives of the counts in the snapshots; none where the examples hold the same events.

    After the training split the examples are target events only; the snapshots count all events.
    """
    spec = naive_bayes.data.spec
    same = set(spec.event_weights) <= set(spec.target_events)
    return () if same else spec.popularity_half_lives_days


def _with_half_life(factors: Factors, days: float) -> Factors:
    """Factors with another half-life; snapshots are counted with fixed ones."""
    return tuple(
        replace(factor, half_life_days=days) if factor.source == "examples" else factor
        for factor in factors
    )


def _with_strength(factors: Factors, strength: float) -> Factors:
    return tuple(
        replace(factor, strength=strength) if factor.column else factor for factor in factors
    )


def _select(
    validation: ValidationSet, start: Factors, pool: Sequence[PopularityFactor]
) -> tuple[Factors, float]:
    """Greedy forward selection: add the factor that gains most, until none gains enough."""
    naive_bayes = validation.shared(code_columns)
    factors = start
    scores = validation.score(NaiveBayesScorer(naive_bayes, factors))
    metric = validation.measure_scores(scores)
    remaining = [factor for factor in pool if factor not in factors]
    for step in range(validation.settings.baselines.max_factors):
        gains = [(_measure(validation, (factor,), scores), factor) for factor in remaining]
        gains.sort(key=lambda gain: -gain[0])
        if not gains or gains[0][0] < metric * MIN_GAIN:
            break
        metric, best = gains[0]
        factors = (*factors, best)
        added = validation.score(NaiveBayesScorer(naive_bayes, (best,)))
        scores = [a + b for a, b in zip(added, scores, strict=True)]
        remaining = [factor for _, factor in gains[1 : 1 + SHORTLIST_SIZE if step == 0 else None]]
    return factors, metric

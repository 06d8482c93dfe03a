"""Popularity: decayed counts of the events on each item, with a tuned half-life and prior."""

from components.evaluation.factor_tuning import fit_factors, tune_popularity
from components.evaluation.tuning import NoOptions, Tuned, ValidationSet

NAME = "popularity"
NEEDS = ()


def tune(validation: ValidationSet, options: NoOptions) -> Tuned:
    """Choose the half-life, the prior, and whether snapshots or examples are counted."""
    popular, metric = validation.shared(tune_popularity)
    return fit_factors(validation, (popular,), metric)

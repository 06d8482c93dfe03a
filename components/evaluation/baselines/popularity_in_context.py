"""Popularity in context: popularity, conditioned on the context columns that improve it."""

from components.evaluation.factor_tuning import code_columns, fit_factors, tune_context
from components.evaluation.tuning import NoOptions, NotRun, Tuned, ValidationSet

NAME = "popularity in context"
NEEDS = ()


def tune(validation: ValidationSet, options: NoOptions) -> Tuned | NotRun:
    """Select context columns greedily, then choose their half-life and smoothing."""
    if not validation.shared(code_columns).contexts:
        return NotRun("the feature spec names no context column")
    return fit_factors(validation, *validation.shared(tune_context))

"""Attributes in context: the demand for brands, sizes, prices and so on, alone or by context."""

from components.evaluation.factor_tuning import code_columns, fit_factors, tune_attributes
from components.evaluation.tuning import NoOptions, NotRun, Tuned, ValidationSet

NAME = "attributes in context"
NEEDS = ()


def tune(validation: ValidationSet, options: NoOptions) -> Tuned | NotRun:
    """Select attribute factors greedily: alone, with popularity, or with popularity in context."""
    if not validation.shared(code_columns).attributes:
        return NotRun("the items have no attributes")
    return fit_factors(validation, *tune_attributes(validation))

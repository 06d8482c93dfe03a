"""How old the newest thing was that a history knew of the item it was evaluated on.

A purchase that follows a view of the same item within minutes says nothing about the model: the
visit is predicted from itself. Where many test queries are of that kind, the histories reach into
the visits, whatever the reason.
"""

import numpy as np

from components.evaluation.data import Floats
from components.evaluation.ranking import EvaluationSet
from components.evaluation.results import PositiveInHistory

HOUR, DAY = 1 / 24, 1.0
POSITIVES_AT_ONCE = 1 << 14


def measure_positive_in_history(evaluation_set: EvaluationSet) -> PositiveInHistory:
    """Measure how many positive items stand in the history of their query, by age."""
    age = newest_ages(evaluation_set)
    if not len(age):
        return PositiveInHistory()
    return PositiveInHistory(
        n=len(age),
        within_hour=float(np.mean(age < HOUR)),
        within_day=float(np.mean((age >= HOUR) & (age < DAY))),
        older=float(np.mean(np.isfinite(age) & (age >= DAY))),
    )


def newest_ages(evaluation_set: EvaluationSet) -> Floats:
    """[n] days since the newest event on a positive item in each history; infinity for none."""
    history, positives = evaluation_set.queries.history, evaluation_set.queries.positives
    items, owner = evaluation_set.data.log.item[positives.rows], positives.owner
    newest = np.full(len(evaluation_set.queries), np.inf, dtype=np.float32)
    for start in range(0, len(items), POSITIVES_AT_ONCE):
        of_part = owner[start : start + POSITIVES_AT_ONCE]
        known = history.item[of_part] == items[start : start + POSITIVES_AT_ONCE, None]
        ages = np.where(known, history.age_days[of_part], np.float32(np.inf))
        np.minimum.at(newest, of_part, ages.min(axis=1, initial=np.inf))
    return newest

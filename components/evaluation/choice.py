"""A hit rate at k means something only where there are more than k items to choose from."""

from collections.abc import Iterator

from components.evaluation.results import Results
from components.evaluation.settings import EvaluationSettings
from refit.verdict import Check


def check_choice(settings: EvaluationSettings, results: Results) -> Iterator[Check]:
    """Check that a list of the metric's length does not hold every candidate.

    Otherwise every method reaches 1, whatever it has learned.
    """
    candidates = results.protocol.get("candidates_per_snapshot")
    for metric in dict.fromkeys((settings.metric, settings.guard_metric)):
        cut = int(metric.rpartition("_")[2])
        yield Check(
            name=f"candidates to choose from, for {metric.replace('_', ' ')}",
            measured=candidates,
            above=float(cut),
            why="the number of candidates is not recorded",
        )

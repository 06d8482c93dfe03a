"""What the histories knew of the positive items."""

from components.evaluation.data import EvaluationData
from components.evaluation.ranking import build_evaluation_set
from components.evaluation.recency import measure_positive_in_history
from components.evaluation.results import PositiveInHistory
from tests.factories import example, item, write_features

HOUR = 1 / 24


def test_positives_are_counted_by_their_newest_age(tmp_path):
    """Each user has taken the item before, a day earlier once more; ann has not."""
    known = {"bob": 0.5 * HOUR, "eve": 3 * HOUR, "sue": 2.0, "tim": 4.0}
    examples = {
        "train": [
            example(user, 0, 25.0 - age - past) for user, age in known.items() for past in (0, 1)
        ],
        "validation": [example("ann", 1, 24.99)],
        "test": [example(user, 0, 25.0) for user in (*known, "ann")],
    }
    folder = write_features(tmp_path / "f", [item(0), item(1)], examples, [0.0, 30.0])
    evaluation_set = build_evaluation_set(EvaluationData(folder), "test")
    assert measure_positive_in_history(evaluation_set) == PositiveInHistory(
        within_hour=0.2, within_day=0.2, older=0.4, n=5
    )


def test_without_a_query_nothing_is_measured(tmp_path):
    examples = {name: [example("ann", 0, at)] for name, at in _TIMES}
    folder = write_features(tmp_path / "f", [item(0)], examples, [0.0, 30.0])
    evaluation_set = build_evaluation_set(EvaluationData(folder), "test")
    nothing = evaluation_set.queries.take([])
    measured = measure_positive_in_history(type(evaluation_set)(evaluation_set.data, nothing, ()))
    assert measured == PositiveInHistory()
    assert measured.within_hour is None


_TIMES = (("train", 1.0), ("validation", 12.0), ("test", 25.0))


def test_of_several_positives_the_newest_one_in_the_history_counts(tmp_path):
    examples = {
        "train": [example("ann", 0, 20.0), example("ann", 1, 24.5)],
        "validation": [example("bob", 1, 24.99)],
        "test": [example("ann", number, 25.0) for number in (2, 0, 1)] + [example("eve", 0, 25.0)],
    }
    items = [item(number) for number in range(3)]
    folder = write_features(tmp_path / "f", items, examples, [0.0, 30.0])
    evaluation_set = build_evaluation_set(EvaluationData(folder, "together"), "test")
    assert measure_positive_in_history(evaluation_set) == PositiveInHistory(
        within_hour=0.0, within_day=0.5, older=0.0, n=2
    )

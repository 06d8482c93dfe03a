import numpy as np
import pytest

from monitoring.frame import Frame
from monitoring.settings import MeasureSettings
from monitoring.subjects import check_patterns, choose_metrics, list_subjects
from refit.errors import DataValidationError, RefitError, UsageError


def frame(**columns):
    cells = {}
    for name, values in columns.items():
        numeric = isinstance(values[0], float)
        cells[name] = np.empty(len(values), dtype=float if numeric else object)
        for i, value in enumerate(values):
            cells[name][i] = value
    return Frame(cells, np.zeros(len(values), dtype=np.int64))


FRAMES = {
    "answers": frame(query_embedding=[np.ones(2)], score=[0.5], brand=[["a"]], seller_id=[["s"]]),
    "listings": frame(item_id=["i"], embedding=[np.ones(2)]),
    "items": frame(
        item_id=["i", "j", "k"],
        title=["one", "two", "three"],
        brand=["a", "b", "a"],
        colour=[None, None, None],
        price=[1.0, 2.0, 3.0],
        image_embedding=[np.ones(2), None, np.ones(2)],
    ),
    "events": frame(event_type=["view"], event_time=["today"], surface=["home"], wanted=["hats"]),
}
SETTINGS = MeasureSettings(largest_vocabulary=2, mix_columns=("brand", "size", "seller_id"))


def chosen(**changes):
    settings = MeasureSettings.parse({**SETTINGS.model_dump(exclude_defaults=True), **changes})
    pairs = choose_metrics(list_subjects(FRAMES, ("wanted",), settings), settings)
    found = {}
    for subject, metric in pairs:
        found.setdefault(subject.name, []).append(metric)
    return found


def test_subjects_get_the_metrics_of_their_kind():
    category = ["null_share", "new_values", "jensenshannon"]
    assert chosen() == {
        "query-embedding": ["frechet"],
        "listing-embedding": ["frechet"],
        "scores": ["wasserstein"],
        "mix:brand": ["jensenshannon"],
        "mix:seller_id": ["concentration"],
        "input:items.title": ["null_share"],
        "input:items.brand": category,
        "input:items.price": ["null_share", "wasserstein"],
        "input:items.image_embedding": ["null_share", "vector_norm", "centroid_shift"],
        "input:events.event_type": category,
        "input:events.surface": category,
        "input:events.wanted": category,
    }


def test_metrics_are_chosen_by_kind_and_added_by_subject():
    extra = [{"metric": "acme.psi", "subjects": ["scores", "input:*.price"]}]
    found = chosen(metrics={"embedding": [], "number": ["wasserstein"]}, extra_metrics=extra)
    assert "query-embedding" not in found
    assert found["scores"] == ["wasserstein", "acme.psi"]
    assert found["input:items.price"] == ["wasserstein", "acme.psi"]
    assert sum("acme.psi" in names for names in found.values()) == 2


def test_an_extra_metric_whose_subjects_do_not_exist_is_an_error():
    extra = [{"metric": "psi", "subjects": ["input:items.prize"]}]
    with pytest.raises(DataValidationError, match=r"no subject of psi matches .*prize; there are"):
        chosen(extra_metrics=extra)


def test_floors_are_of_metrics_that_are_measured():
    assert MeasureSettings.parse({"floors": {"wasserstein": 0.3}}).floors == {"wasserstein": 0.3}
    for floors in ({"wassertsein": 0.3}, {"wasserstein": -1.0}, {"wasserstein": float("nan")}):
        with pytest.raises(RefitError, match="floors"):
            MeasureSettings.parse({"floors": floors})


def extra(*subjects):
    return MeasureSettings.parse(
        {"extra_metrics": [{"metric": "wasserstein", "subjects": list(subjects)}]}
    )


@pytest.mark.parametrize(
    "pattern",
    ["scores", "mix:*", "input:items.price", "input:events.hour", "input:*.hour", "*.hour"],
)
def test_patterns_that_may_match_pass_before_there_is_data(pattern):
    check_patterns(extra(pattern))


def test_a_pattern_that_can_match_nothing_is_an_error_before_there_is_data():
    with pytest.raises(UsageError, match=r"'input:items.prise' .*did you mean 'input:items.price'"):
        check_patterns(extra("scores", "input:items.prise"))
    with pytest.raises(UsageError, match=r"'input:items.prise\*' .* matches no subject"):
        check_patterns(extra("input:items.prise*"))

import math

import numpy as np
import pyarrow as pa
import pytest

from monitoring.frame import Frame
from monitoring.settings import MeasureSettings
from monitoring.subjects import check_patterns, choose_metrics, list_subjects
from refit.errors import DataValidationError, RefitError, UsageError


def frame(**columns):
    table = pa.table({name: pa.array(values) for name, values in columns.items()})
    return Frame(table, np.zeros(table.num_rows))


FRAMES = {
    "answers": frame(query_embedding=[[1.0, 1.0]], score=[0.5], brand=[["a"]], seller_id=[["s"]]),
    "listings": frame(item_id=["i"], embedding=[[1.0, 1.0]]),
    "items": frame(
        item_id=["i", "j", "k"],
        title=["one", "two", "three"],
        brand=["a", "b", "a"],
        colour=pa.nulls(3, pa.string()),
        price=[1.0, 2.0, 3.0],
        image_embedding=[[1.0, 1.0], None, [1.0, 1.0]],
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
    category = ["null_share", "new_values", "value_shares"]
    assert chosen() == {
        "query-embedding": ["mean_shift", "new_region"],
        "listing-embedding": ["mean_shift", "new_region"],
        "scores": ["quantile_shares"],
        "mix:brand": ["value_shares"],
        "mix:seller_id": ["concentration"],
        "input:items.title": ["null_share"],
        "input:items.brand": category,
        "input:items.price": ["null_share", "quantile_shares"],
        "input:items.image_embedding": ["null_share", "vector_norm", "centroid_shift"],
        "input:events.event_type": category,
        "input:events.surface": category,
        "input:events.wanted": category,
    }


def test_metrics_are_chosen_by_kind_and_added_by_subject():
    extra = [{"metric": "acme.psi", "subjects": ["scores", "input:*.price"]}]
    found = chosen(metrics={"embedding": [], "number": ["quantile_shares"]}, extra_metrics=extra)
    assert "query-embedding" not in found
    assert found["scores"] == ["quantile_shares", "acme.psi"]
    assert found["input:items.price"] == ["quantile_shares", "acme.psi"]
    assert sum("acme.psi" in names for names in found.values()) == 2


def test_an_extra_metric_whose_subjects_do_not_exist_is_an_error():
    extra = [{"metric": "psi", "subjects": ["input:items.prize"]}]
    with pytest.raises(DataValidationError, match=r"no subject of psi matches .*prize; there are"):
        chosen(extra_metrics=extra)


def test_floors_are_of_metrics_that_are_measured():
    floors = {"quantile_shares": 0.3}
    assert MeasureSettings.parse({"floors": floors}).floors == floors
    for name, floor in (("shares", 0.3), ("quantile_shares", -1.0), ("quantile_shares", math.nan)):
        with pytest.raises(RefitError, match="floors"):
            MeasureSettings.parse({"floors": {name: floor}})


def extra(*subjects):
    return MeasureSettings.parse(
        {"extra_metrics": [{"metric": "quantile_shares", "subjects": list(subjects)}]}
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

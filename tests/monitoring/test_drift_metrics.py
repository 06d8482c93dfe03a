import importlib
import math
import sys
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest

from monitoring.drift_metrics import METRICS, load_metric
from monitoring.frame import Frame, to_dense
from monitoring.review.charts import draw_metric
from monitoring.settings import MeasureSettings
from refit.errors import DataValidationError, UsageError


def frame(**columns):
    table = pa.table({name: pa.array(values) for name, values in columns.items()})
    return Frame(table, np.zeros(table.num_rows))


def encode(name, cells, **parameters):
    parameters = {key: np.asarray(value) for key, value in parameters.items()}
    features, positions = load_metric(name).encode(frame(c=cells), "c", parameters)
    return to_dense(features), positions


def fit(name, cells):
    return load_metric(name).fit(frame(c=cells), "c", MeasureSettings(minimum_rows=2))


def test_a_mix_is_the_share_of_each_value_in_a_row_and_pools_the_others():
    shares, positions = encode(
        "value_shares", [["a", "a", "b"], ["z", None], [None], []], values=["a", "b"]
    )
    assert shares == pytest.approx(np.array([[2 / 3, 1 / 3, 0], [0, 0, 1]]))
    assert positions.tolist() == [0, 1]


def test_values_too_rare_to_judge_are_pooled():
    assert fit("value_shares", ["a"] * 500 + ["b"] * 499 + ["c"])["values"].tolist() == ["a", "b"]


def test_numbers_fall_into_bins_that_the_reference_fills_evenly():
    numbers = np.random.default_rng(0).lognormal(size=3200)
    bounds = fit("quantile_shares", numbers)["bounds"]
    bins, _ = encode("quantile_shares", [*numbers, np.nan], bounds=bounds)
    assert len(bins) == 3200
    assert bins.mean(axis=0)[2:-2] == pytest.approx(1 / 16, abs=0.001)
    assert bins.mean(axis=0)[0] == pytest.approx(0.005, abs=0.001)


def test_vectors_that_are_null_or_nan_or_of_another_length_count_as_missing():
    cells = [[1.0, 1.0], None, [1.0, 1.0, 1.0], [1.0, float("nan")]]
    missing, _ = encode("null_share", cells, length=2)
    assert missing.ravel().tolist() == [0, 1, 1, 1]
    rows, positions = encode("mean_shift", cells, length=2)
    assert rows.tolist() == [[1, 1]]
    assert positions.tolist() == [0]


def test_new_values_are_those_outside_the_vocabulary():
    new, positions = encode("new_values", ["a", None, "z", ""], values=["a"])
    assert new.ravel().tolist() == [0, 1]
    assert positions.tolist() == [0, 2]


def test_new_regions_are_where_the_reference_has_hardly_a_vector():
    random = np.random.default_rng(0)
    there = random.normal(size=(2000, 4)).astype(np.float32)
    parameters = fit("new_region", list(there))
    same, far = random.normal(size=(2000, 4)), random.normal(8, 1, size=(50, 4))
    assert encode("new_region", list(same), **parameters)[0].mean() == pytest.approx(0.02, abs=0.01)
    assert encode("new_region", list(far), **parameters)[0].all()


def test_centroids_stay_when_only_the_mix_of_categories_changes():
    random = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0], [4.0, 4.0]])

    def sample(codes, centres):
        vectors = centres[codes] + 0.1 * random.normal(size=(len(codes), 2))
        return frame(c=list(vectors), category_1=np.array(["a", "b"])[codes])

    metric = load_metric("centroid_shift")
    even, skewed = np.repeat([0, 1], [200, 200]), np.repeat([0, 1], [20, 380])
    parameters = metric.fit(sample(even, centres), "c", MeasureSettings())

    def moved(*args):
        return np.abs(metric.encode(sample(*args), "c", parameters)[0].mean(axis=0)).max()

    assert moved(skewed, centres) < 0.02
    assert moved(even, centres + 1) == pytest.approx(1, abs=0.02)


def test_norms_are_measured_over_the_mean_norm_of_their_category():
    metric = load_metric("vector_norm")
    there = frame(c=[[3.0, 4.0], [0.0, 1.0]] * 30, category_1=["a", "b"] * 30)
    parameters = metric.fit(there, "c", MeasureSettings())
    here = frame(c=[[6.0, 8.0], [0.0, 1.0], [9.0, 9.0]], category_1=["a", "b", "new"])
    assert metric.encode(here, "c", parameters)[0].tolist() == [[2.0], [1.0]]


DAYS = {"window_days": np.array(1.0), "minimum_rows": np.array(2)}


def test_concentration_is_the_logarithm_of_how_often_two_answers_agree():
    # Two slots of two different answers agree in 1 of 4 pairs.
    quarter, _ = encode("concentration", [["a", "b"], ["a", "c"]], **DAYS)
    assert quarter.mean() == pytest.approx(math.log(1 / 4))
    whole, _ = encode("concentration", [["a"], ["a"], []], **DAYS)
    assert whole.mean() == pytest.approx(0)
    assert len(whole) == 2


def test_concentration_compares_answers_of_the_same_window_only():
    cells = [["a", "b"], ["a", "c"], [], ["d"], ["d"], ["b"]]
    days = np.array([0.1, 0.9, 0.9, 1.2, 1.3, 2.0])  # the last is alone, and joins the day before
    table = pa.table({"c": pa.array(cells)})
    shares, positions = load_metric("concentration").encode(Frame(table, days), "c", DAYS)
    assert positions.tolist() == [0, 1, 3, 4, 5]
    assert shares[:2].mean() == pytest.approx(math.log(1 / 4))
    assert shares[2:].mean() == pytest.approx(math.log(1 / 3))
    alone, _ = encode("concentration", cells[:2], **DAYS)
    assert shares[:2] == pytest.approx(alone)


def test_an_answer_s_share_in_the_concentration_is_its_effect_on_it():
    random = np.random.default_rng(0)
    lists = [list(random.choice(list("abcdefgh"), 5)) for _ in range(400)]
    shares, _ = encode("concentration", lists, **DAYS)
    without = encode("concentration", lists[1:], **DAYS)[0].mean()
    effect = (shares[0, 0] - shares.mean()) / len(lists)
    assert shares.mean() - without == pytest.approx(effect, rel=0.1, abs=1e-5)


def test_a_feature_that_is_not_finite_is_an_error():
    broken = replace(load_metric("mean_shift"), encode_rows=lambda *_: (np.array([np.nan]), [0]))
    with pytest.raises(ValueError, match="'mean_shift' returned a feature that is not finite"):
        broken.encode(frame(c=[1.0]), "c", {})


def test_a_missing_column_names_those_that_are_there():
    with pytest.raises(DataValidationError, match=r"'brand' is missing; there are: price"):
        frame(price=[1.0]).column("brand")


def test_every_built_in_metric_loads():
    assert set(METRICS.builtin_names()) >= set(MeasureSettings().metric_names)
    for name in METRICS.builtin_names():
        metric = load_metric(name)
        assert metric.unit
        assert "*" in metric.runbook


NAMES = {"values": np.array(["a & b", "c"]), "bounds": np.array([0.0, 1.0])}


@pytest.mark.parametrize(
    ("name", "width"),
    [
        ("mean_shift", 4),
        ("mean_shift", 1),
        ("centroid_shift", 5),
        ("quantile_shares", 3),
        ("vector_norm", 1),
        ("value_shares", 3),
        ("concentration", 1),
    ],
)
def test_a_metric_s_own_picture_is_an_svg_with_a_text_alternative(name, width):
    random = np.random.default_rng(0)
    reference, current = random.normal(size=(60, width)), random.normal(size=(60, width))
    svg, caption = draw_metric(load_metric(name), reference, current, NAMES, f"x/{name}")
    assert svg.startswith(f'<svg role="img" aria-label="x/{name} in detail. {caption}')
    ElementTree.fromstring(svg)


PSI = """
from monitoring.drift_metrics import Advice
UNIT, FLOOR, RUNBOOK = "index", 0.1, {"*": Advice("It moved.", "Look.")}
def encode(frame, column, parameters): ...
"""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("0.1", "-1"), "FLOOR must be a number of at least 0"),
        (("0.1", "float('nan')"), "FLOOR must be a number of at least 0"),
        (('Advice("It moved.", "Look.")', '("It moved.",)'), "RUNBOOK must map subject patterns"),
        (("def encode", 'FAULTS = "input:*"\ndef encode'), "FAULTS must be a tuple"),
        (("def encode", "def describe"), "lacks encode"),
        (("def encode", "def encode("), "cannot be imported: SyntaxError"),
        (("UNIT,", "1 / 0\nUNIT,"), "cannot be imported: ZeroDivisionError"),
    ],
)
def test_a_metric_with_a_fault_in_its_module_is_named(tmp_path, monkeypatch, change, message):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "acme_metrics").mkdir()
    (tmp_path / "acme_metrics" / "psi.py").write_text(PSI)
    monkeypatch.delitem(sys.modules, "acme_metrics.psi", raising=False)
    monkeypatch.delitem(sys.modules, "acme_metrics", raising=False)
    importlib.invalidate_caches()
    assert load_metric("acme_metrics.psi").advise("scores").action == "Look."
    monkeypatch.delitem(sys.modules, "acme_metrics.psi")
    (tmp_path / "acme_metrics" / "psi.py").write_text(PSI.replace(*change) + "# longer")
    importlib.invalidate_caches()
    with pytest.raises(UsageError, match=message):
        load_metric("acme_metrics.psi")

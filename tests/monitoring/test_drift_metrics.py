import importlib
import math
import sys
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from monitoring.drift_metrics import METRICS, load_metric
from monitoring.frame import Frame
from monitoring.review.charts import draw_metric
from monitoring.settings import MeasureSettings
from refit.errors import DataValidationError, UsageError


def frame(**columns):
    size = len(next(iter(columns.values())))
    cells = {}
    for name, values in columns.items():
        column = np.empty(size, dtype=object)
        for i, value in enumerate(values):
            column[i] = value
        cells[name] = column
    return Frame(cells, np.zeros(size, dtype=np.int64))


def measure(metric, reference, current):
    return load_metric(metric).measure(reference, current)


def test_frechet_of_a_shifted_sample_is_the_squared_shift_over_the_variance():
    x = np.random.default_rng(0).normal(size=(500, 3))
    spread = np.trace(np.cov(x, rowvar=False))
    assert measure("frechet", x, x) == pytest.approx(0, abs=1e-9)
    assert measure("frechet", x, x + np.array([2, 0, 0])) == pytest.approx(4 / spread)


def test_frechet_of_a_widened_sample_counts_the_difference_of_standard_deviations():
    x = np.random.default_rng(0).normal(size=(500, 1))
    deviation = x.std(ddof=1)
    widened = (x - x.mean()) * 3 + x.mean()
    assert measure("frechet", x, widened) == pytest.approx((2 * deviation) ** 2 / deviation**2)


def test_wasserstein_and_jensenshannon_equal_evidently_s():
    from evidently.legacy.calculations.stattests import get_stattest
    from evidently.legacy.core import ColumnType

    random = np.random.default_rng(0)
    a, b = random.normal(size=300), random.normal(0.3, 1.2, size=200)
    theirs = get_stattest(pd.Series(a), pd.Series(b), ColumnType.Numerical, "wasserstein")
    drift = theirs(pd.Series(a), pd.Series(b), ColumnType.Numerical, 0.1).drift_score
    assert measure("wasserstein", a, b) == pytest.approx(drift)

    names = np.array(["x", "y", "z"])
    a, b = random.choice(names, 300), random.choice(names, 200, p=[0.6, 0.2, 0.2])
    theirs = get_stattest(pd.Series(a), pd.Series(b), ColumnType.Categorical, "jensenshannon")
    drift = theirs(pd.Series(a), pd.Series(b), ColumnType.Categorical, 0.1).drift_score
    encode = load_metric("jensenshannon").encode
    codes = [encode(frame(c=list(v)), "c", tuple(names))[0] for v in (a, b)]
    assert measure("jensenshannon", *codes) == pytest.approx(drift)


def test_a_mix_counts_lists_and_pools_unknown_values():
    codes, positions = load_metric("jensenshannon").encode(
        frame(c=[["a", "a", "b"], ["z", None], [None], []]), "c", ("a", "b")
    )
    assert codes.tolist() == [[0, 0, 1], [2, -1, -1]]
    assert positions.tolist() == [0, 1]


def test_vectors_that_are_null_or_nan_or_of_another_length_count_as_missing():
    cells = frame(v=[np.ones(2), None, np.ones(3), np.array([1, np.nan])])
    missing, _ = load_metric("null_share").encode(cells, "v", (2,))
    assert missing.tolist() == [0, 1, 1, 1]
    rows, positions = load_metric("frechet").encode(cells, "v", (2,))
    assert rows.shape == (1, 2)
    assert positions.tolist() == [0]


def test_new_share_counts_values_outside_the_reference():
    assert measure("new_values", np.array([0, 1]), np.array([0, 1, 2, -1])) == 0.5


def test_centroids_stay_when_only_the_mix_of_groups_changes():
    random = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0], [4.0, 4.0]])

    def sample(codes, centres):
        vectors = centres[codes] + 0.1 * random.normal(size=(len(codes), 2))
        return np.column_stack([codes, vectors])

    even, skewed = np.repeat([0, 1], [200, 200]), np.repeat([0, 1], [20, 380])
    reference = sample(even, centres)
    assert measure("centroid_shift", reference, sample(skewed, centres)) < 0.01
    assert measure("centroid_shift", reference, sample(even, centres[::-1])) > 1


def test_concentration_is_the_logarithm_of_how_much_more_often_two_answers_agree():
    # Two of the two pairs of answers agree in 1 of 4 slots, then in all slots.
    quarter = np.array([[0.0, 1.0], [0.0, 2.0]])
    whole = np.array([[0.0], [0.0]])
    assert measure("concentration", quarter, whole) == pytest.approx(math.log(4))
    assert measure("concentration", whole, whole) == 0


def test_a_missing_column_names_those_that_are_there():
    with pytest.raises(DataValidationError, match=r"'brand' is missing; there are: price"):
        frame(price=[1.0]).column("brand")


def test_every_built_in_metric_loads():
    assert set(METRICS.builtin_names()) >= set(MeasureSettings().metric_names)
    for name in METRICS.builtin_names():
        metric = load_metric(name)
        assert metric.unit
        assert "*" in metric.runbook


@pytest.mark.parametrize(
    ("name", "draws"),
    [
        ("frechet", lambda random: random.normal(size=(60, 4))),
        ("frechet", lambda random: random.normal(size=(60, 1))),
        ("centroid_shift", lambda random: random.normal(size=(60, 5))),
        ("wasserstein", lambda random: random.normal(size=60)),
        ("wasserstein", lambda random: np.ones(60)),
        ("vector_norm", lambda random: random.normal(size=60)),
        ("jensenshannon", lambda random: random.integers(-1, 3, size=(60, 2))),
        ("concentration", lambda random: random.integers(-1, 9, size=(60, 10))),
    ],
)
def test_a_metric_s_own_picture_is_an_svg_with_a_text_alternative(name, draws):
    random = np.random.default_rng(0)
    reference, current = draws(random), draws(random)
    svg, caption = draw_metric(load_metric(name), reference, current, ("a & b", "c"), f"x/{name}")
    assert svg.startswith(f'<svg role="img" aria-label="x/{name} in detail. {caption}')
    ElementTree.fromstring(svg)


PSI = """
from monitoring.drift_metrics import Advice
UNIT, FLOOR, RUNBOOK = "index", 0.1, {"*": Advice("It moved.", "Look.")}
def encode(frame, column, parameters): ...
def compare(reference, current): ...
"""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("0.1", "-1"), "FLOOR must be a number of at least 0"),
        (("0.1", "float('nan')"), "FLOOR must be a number of at least 0"),
        (('Advice("It moved.", "Look.")', '("It moved.",)'), "RUNBOOK must map subject patterns"),
        (("def encode", 'FAULTS = "input:*"\ndef encode'), "FAULTS must be a tuple"),
        (("def compare", "def distance"), "lacks compare"),
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

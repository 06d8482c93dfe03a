"""What Refit relies on in Evidently: a release that changes it fails here, not in production."""

import ast
import math
from contextvars import ContextVar
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from evidently import DataDefinition, Dataset, Report
from evidently.core.metric_types import SingleValueCalculation, SingleValueMetric
from evidently.metrics import MeanValue, MissingValueCount, RowCount, ValueDrift
from evidently.sdk.models import DashboardModel, DashboardTabModel, PanelMetric
from evidently.sdk.panels import line_plot_panel
from evidently.tests import gte
from evidently.ui.workspace import Workspace

from tests.test_imports import ROOMS, ROOT

AT = datetime(2024, 3, 14, tzinfo=UTC)
_GIVEN = ContextVar("given", default=0.0)


class Probed(SingleValueMetric):
    """A custom metric with a parameter; its value comes from outside of the data set."""

    subject: str


class ProbedCalculation(SingleValueCalculation[Probed]):
    seen: list[list[str]] = []

    def calculate(self, context, current_data, reference_data):
        self.seen.append(list(current_data.as_dataframe().columns))
        if _GIVEN.get() < 0:
            raise ValueError("cannot be measured")
        return self.result(_GIVEN.get())

    def display_name(self):
        return f"{self.metric.subject}: probed"


def make_dataset(shift=0.0, n=400):
    random = np.random.default_rng(0)
    rows = pd.DataFrame(
        {
            "price": np.where(np.arange(n) < 20, np.nan, random.normal(shift, 1, n)),
            "category": np.where(random.random(n) < 0.5, "a", "b"),
            "v_0": random.normal(size=n).astype(np.float32),
            "v_1": random.normal(size=n).astype(np.float32),
            "left": np.arange(n),
        }
    )
    definition = DataDefinition(
        numerical_columns=["price"],
        categorical_columns=["category"],
        embeddings={"v": ["v_0", "v_1"]},
        unknown_columns=["left"],
    )
    return Dataset.from_pandas(rows, data_definition=definition)


def run(*metrics, current=None, reference=None, **about):
    return Report(list(metrics)).run(current or make_dataset(), reference, **about)


def read(snapshot):
    return {result.display_name: result for result in snapshot.metric_results.values()}


@pytest.fixture
def project(tmp_path):
    workspace = Workspace.create(str(tmp_path / "workspace"))
    return workspace, workspace.create_project("refit")


@pytest.mark.parametrize(
    ("value", "status"), [(0.02, "SUCCESS"), (0.01, "SUCCESS"), (0.009, "FAIL")]
)
def test_a_custom_metric_reads_its_context_and_its_test_is_read_back(value, status):
    token = _GIVEN.set(value)
    try:
        found = read(run(Probed(subject="scores", tests=[gte(0.01)])))["scores: probed"]
    finally:
        _GIVEN.reset(token)
    assert found.value == value
    assert [test.status.value for test in found.tests] == [status]
    assert ProbedCalculation.seen[-1] == ["price", "category", "v_0", "v_1", "left"]


def test_two_metrics_of_one_class_differ_by_their_parameters():
    found = read(run(Probed(subject="one", tests=[]), Probed(subject="other", tests=[])))
    assert {"one: probed", "other: probed"} <= found.keys()


def test_a_failing_metric_fails_the_whole_report():
    # Why ``run_report`` runs a report again without it.
    token = _GIVEN.set(-1.0)
    try:
        with pytest.raises(ValueError, match="cannot be measured"):
            read(run(RowCount(), Probed(subject="scores", tests=[])))
    finally:
        _GIVEN.reset(token)


def test_a_data_set_keeps_rows_declared_columns_and_embeddings():
    dataset = make_dataset()
    definition = dataset.data_definition
    assert definition.embeddings == {"v": ["v_0", "v_1"]}
    assert list(definition.get_numerical_columns()) == ["price"]
    assert list(definition.get_categorical_columns()) == ["category"]
    rows = dataset.as_dataframe()
    assert math.isnan(rows["price"][0])
    assert rows["v_0"].dtype == np.float32


def test_columns_are_described_without_tests():
    snapshot = run(
        RowCount(),
        MeanValue(column="price", tests=[]),
        MissingValueCount(column="price", tests=[], share_tests=[]),
        ValueDrift(column="price", method="wasserstein", tests=[]),
        MissingValueCount(column="category", tests=[], share_tests=[]),
        ValueDrift(column="category", method="jensenshannon", tests=[]),
        current=make_dataset(shift=3.0),
        reference=make_dataset(),
    )
    found = snapshot.metric_results.values()
    assert [result.display_name for result in found if result.tests] == []
    drift = [r for r in found if "price" in r.display_name and "drift" in r.display_name.lower()]
    assert [result.value for result in drift] == pytest.approx([3.0], abs=0.5)


def test_a_workspace_finds_lists_gives_and_deletes_runs(project):
    workspace, refit = project
    assert [p.id for p in workspace.search_project("refit")] == [refit.id]
    assert workspace.search_project("another") == []
    about = {"timestamp": AT, "name": "a day", "tags": ["answers"], "metadata": {"towers": "t"}}
    snapshot = run(RowCount(), **about)
    workspace.add_run(refit.id, snapshot)
    (run_id,) = workspace.list_runs(refit.id)
    kept, model = workspace.get_run(refit.id, run_id), snapshot.to_snapshot_model()
    assert (kept.name, kept.timestamp) == (model.name, model.timestamp) == ("a day", AT)
    assert (kept.tags, kept.metadata["towers"]) == (["answers"], "t")
    workspace.delete_run(refit.id, run_id)
    assert list(workspace.list_runs(refit.id)) == []


def test_a_dashboard_is_saved_whole_and_shows_a_metric_by_its_parameters(project):
    workspace, refit = project
    line = PanelMetric(legend="x", metric="Probed", metric_labels={"subject": "scores"})
    panel = line_plot_panel(title="scores", values=[line], size="half")
    tab = DashboardTabModel(title="Scores", panels=[panel.id])
    workspace.save_dashboard(refit.id, DashboardModel(tabs=[tab], panels=[panel]))
    kept = workspace.search_project("refit")[0].dashboard.model()
    assert [(t.title, t.panels) for t in kept.tabs] == [("Scores", [panel.id])]
    assert kept.panels[0].values[0].metric == "evidently:metric_v2:Probed"
    assert kept.panels[0].values[0].metric_labels == {"subject": "scores"}


def test_adding_a_panel_to_a_tab_still_lists_it_twice(project):
    # When this fails, ``monitoring.reports.workspace`` may add panels one by one.
    _, refit = project
    for title in ("one", "two"):
        refit.dashboard.add_panel(line_plot_panel(title=title, values=[]), tab="Tab")
    (tab,) = refit.dashboard.model().tabs
    assert len(tab.panels) == 3


def test_nothing_imports_the_legacy_interface():
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom) and "evidently.legacy" in ast.unparse(node)
    ]
    assert found == []

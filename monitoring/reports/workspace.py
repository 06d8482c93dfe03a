"""Evidently's workspace: the reports of all windows, and a dashboard of them over time."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from evidently.core.report import Snapshot
from evidently.sdk.models import (
    DashboardModel,
    DashboardPanelPlot,
    DashboardTabModel,
    PanelMetric,
)
from evidently.sdk.panels import line_plot_panel, text_panel
from evidently.ui.workspace import Project, Workspace

from monitoring.calibration import MetricEntry

PROJECT = "refit"
LIVE = "Live quality"
TABS = {
    LIVE: (
        *("live:purchase-rate", "live:click-rate", "live:revenue-rate"),
        *("live:*-lift", "live:market-*", "live:*"),
    ),
    "Embeddings": ("query-embedding*", "listing-embedding*"),
    "Scores and mix": ("scores*", "mix:*"),
    "Inputs": ("input:*",),
}
"""Tabs of the dashboard, with patterns of the subjects that they show, in this order."""
NOTES = {LIVE: "What people do with the answers, by window of matured answers."}
DRIFT_NOTE = (
    "Distance from what earlier days lead to expect, over its threshold: from 1 on it is drift. "
    "One such point is no alert: an alert needs the evidence of all results."
)


def add_to_workspace(
    folder: Path, snapshots: Sequence[Snapshot], entries: Iterable[MetricEntry], levels: set[str]
) -> None:
    """Add reports to the project ``refit`` of a workspace, for ``evidently ui --workspace``.

    When a window is measured again, its new reports replace the earlier ones.

    Args:
        folder: The workspace.
        snapshots: Reports, one for each table of each window.
        entries: The drift metrics; each new one gets a line on the dashboard.
        levels: Subjects of live quality that were measured.
    """
    folder.mkdir(parents=True, exist_ok=True)
    workspace = Workspace.create(str(folder))
    found = workspace.search_project(PROJECT)
    project = found[0] if found else workspace.create_project(PROJECT)
    earlier = {}
    for run_id in workspace.list_runs(project.id):
        run = workspace.get_run(project.id, run_id)
        if run is not None:
            earlier[(run.name, run.timestamp)] = run_id
    for snapshot in snapshots:
        model = snapshot.to_snapshot_model()
        if run_id := earlier.get((model.name, model.timestamp)):
            workspace.delete_run(project.id, run_id)
        workspace.add_run(project.id, snapshot)
    _draw_dashboard(workspace, project, entries, levels)


def _draw_dashboard(
    workspace: Workspace, project: Project, entries: Iterable[MetricEntry], levels: set[str]
) -> None:
    """Draw the dashboard again when there are lines that it lacks."""
    lines: dict[str, list[PanelMetric]] = {}
    for entry in entries:
        lines.setdefault(entry.subject, []).append(
            _line("DriftRatio", entry.statistic, subject=entry.subject, statistic=entry.statistic)
        )
    lines |= {name: [_line("MeasuredLevel", "level", subject=name)] for name in sorted(levels)}
    panels = [(tab, subject, lines[subject]) for tab, subject in _order(lines)]
    known = {
        (panel.title, *_identify(line))
        for panel in project.dashboard.model().panels
        for line in panel.values
    }
    if all((subject, *_identify(line)) in known for _, subject, each in panels for line in each):
        return
    tabs: dict[str, list[DashboardPanelPlot]] = {}
    for tab, subject, each in panels:
        # The pages of ``evidently ui`` show all panels one below the other, without tabs.
        heading = text_panel(title=tab, description=NOTES.get(tab, DRIFT_NOTE))
        shown = tabs.setdefault(tab, [heading])
        shown.append(line_plot_panel(title=subject, values=each, size="half"))
    # ``add_panel`` lists a panel twice where its tab exists (evidently 0.7.23).
    dashboard = DashboardModel(
        tabs=[DashboardTabModel(title=tab, panels=[p.id for p in tabs[tab]]) for tab in tabs],
        panels=[panel for shown in tabs.values() for panel in shown],
    )
    workspace.save_dashboard(project.id, dashboard)


def _order(subjects: Iterable[str]) -> list[tuple[str, str]]:
    """Tab and subject of each panel, in the order of the tabs and of their patterns."""
    places = [(tab, pattern) for tab, patterns in TABS.items() for pattern in patterns]
    found: dict[str, str] = {}
    left = list(subjects)
    for tab, pattern in places:
        found |= {subject: tab for subject in left if fnmatchcase(subject, pattern)}
        left = [subject for subject in left if subject not in found]
    return [(tab, subject) for subject, tab in found.items()]


def _identify(line: PanelMetric) -> tuple[str, frozenset[tuple[str, str]]]:
    return line.metric, frozenset(line.metric_labels.items())


def _line(metric: str, legend: str, **labels: str) -> PanelMetric:
    return PanelMetric(legend=legend, metric=metric, metric_labels=labels)

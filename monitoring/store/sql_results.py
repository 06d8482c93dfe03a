"""Results, summaries and decisions in the SQL store.

Its own rows are validated without the checks of written settings, which take fifty times as long.
"""

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache

from sqlalchemy import Table, func, select

from monitoring.store.sql_part import SqlPart
from monitoring.store.tables import DECISIONS, RESULTS, SUMMARIES, stamp
from monitoring.summary import WindowSummary
from refit.alert import DriftDecision
from refit.drift import DriftResult

KEPT_RESULTS = 16_384
"""Results that a process keeps, about 30 MB: all pages and runs read those of the last windows."""


class SqlResults(SqlPart):
    """Results, summaries and decisions."""

    def add_results(self, results: Sequence[DriftResult]) -> None:
        """Keep results; a result that was measured again replaces the earlier one."""
        self._replace(RESULTS, [_row(result.embedding_version, result) for result in results])

    def add_summaries(self, embedding_version: str, summaries: Sequence[WindowSummary]) -> None:
        """Keep summaries; one of a window that was measured again replaces the earlier one."""
        self._replace(SUMMARIES, [_row(embedding_version, summary) for summary in summaries])

    def summaries(self, embedding_version: str) -> list[WindowSummary]:
        """The summaries of all windows under these towers, oldest first."""
        of_towers = SUMMARIES.c.embedding_version == embedding_version
        query = select(SUMMARIES.c.body).where(of_towers).order_by(SUMMARIES.c.window_end)
        return [WindowSummary.model_validate_json(body) for body in self._bodies(query)]

    def _replace(self, table: Table, rows: list[dict[str, str]]) -> None:
        if not rows:
            return
        insert = self._database.insert(table)
        with self._database.writing() as db:
            db.execute(
                insert.on_conflict_do_update(
                    index_elements=list(table.primary_key),
                    set_={"body": insert.excluded.body},
                ),
                rows,
            )

    def results(self, embedding_version: str, windows: int) -> list[DriftResult]:
        """The results of the latest windows under these towers, oldest first."""
        of_towers = RESULTS.c.embedding_version == embedding_version
        ends = select(RESULTS.c.window_end).where(of_towers).distinct()
        latest = ends.order_by(RESULTS.c.window_end.desc()).limit(windows)
        bodies = self._bodies(
            select(RESULTS.c.body)
            .where(of_towers, RESULTS.c.window_end.in_(latest))
            .order_by(RESULTS.c.window_end, RESULTS.c.subject, RESULTS.c.statistic)
        )
        return [_read_result(body) for body in bodies]

    def newest_results(self) -> list[DriftResult]:
        """The results of the newest window, whatever towers."""
        newest = select(func.max(RESULTS.c.window_end)).scalar_subquery()
        bodies = self._bodies(
            select(RESULTS.c.body)
            .where(RESULTS.c.window_end == newest)
            .order_by(RESULTS.c.subject, RESULTS.c.statistic)
        )
        return [DriftResult.model_validate_json(body) for body in bodies]

    def results_since(self, moment: datetime, subjects: str) -> list[DriftResult]:
        """Results of windows that ended later, whatever towers, oldest first.

        Args:
            moment: The end of a window.
            subjects: How their subjects begin, such as ``live:``.
        """
        bodies = self._bodies(
            select(RESULTS.c.body)
            .where(RESULTS.c.window_end > stamp(moment))
            .where(RESULTS.c.subject.startswith(subjects, autoescape=True))
            .order_by(RESULTS.c.window_end, RESULTS.c.subject, RESULTS.c.statistic)
        )
        return [DriftResult.model_validate_json(body) for body in bodies]

    def add_decision(self, bundle_id: str, decision: DriftDecision) -> None:
        """Keep a decision."""
        row = {"bundle_id": bundle_id, "body": decision.model_dump_json()}
        with self._database.writing() as db:
            db.execute(DECISIONS.insert().values(row))

    def decisions(self, bundle_id: str | None = None) -> list[DriftDecision]:
        """Decisions, oldest first."""
        query = select(DECISIONS.c.body).order_by(DECISIONS.c.id)
        if bundle_id is not None:
            query = query.where(DECISIONS.c.bundle_id == bundle_id)
        return [DriftDecision.parse_json(body) for body in self._bodies(query)]


@lru_cache(maxsize=KEPT_RESULTS)
def _read_result(body: str) -> DriftResult:
    return DriftResult.model_validate_json(body)


def _row(embedding_version: str, measured: DriftResult | WindowSummary) -> dict[str, str]:
    return {
        "embedding_version": embedding_version,
        "subject": measured.subject,
        "statistic": measured.statistic,
        "window_start": stamp(measured.window.start),
        "window_end": stamp(measured.window.end),
        "body": measured.model_dump_json(),
    }

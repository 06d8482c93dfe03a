from datetime import UTC, datetime, timedelta

from refit.alert import Action, Alert, DriftDecision
from refit.drift import DriftResult, DriftState, Window

OK, DRIFT, UNMEASURED = DriftState.OK, DriftState.DRIFT, DriftState.INSUFFICIENT_DATA
QUERY, BRAND = ("query-embedding", "mean_shift"), ("input:items.brand", "null_share")
NOW = datetime(2024, 3, 10, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=365)


def series(name, *states):
    subject, statistic = name
    results = []
    for i, state in enumerate(states):
        end = NOW - timedelta(days=len(states) - 1 - i)
        value = {OK: 0.1, DRIFT: 0.5, UNMEASURED: None}[state]
        results.append(
            DriftResult(
                subject=subject,
                statistic=statistic,
                value=value,
                threshold=0.2 if value else None,
                n_reference=100,
                n_current=100,
                window=Window(start=end - timedelta(days=1), end=end),
                state=state,
                embedding_version="t1",
                why="" if value else "3 usable rows, 50 are needed",
            )
        )
    return results


def alert(name="a1", at=NOW):
    decision = DriftDecision(action=Action.REFIT, reasons=("because",), at=at)
    return Alert(
        alert_id=name,
        created_at=at,
        bundle_id="b1",
        embedding_version="t1",
        results=tuple(series(QUERY, DRIFT)),
        decision=decision,
        report=f"{name}.html",
    )

from datetime import UTC, datetime, timedelta

from refit.alert import Action, Alert, Decision
from refit.reading import Reading, State, Window

OK, DRIFT, SILENT = State.OK, State.DRIFT, State.CANNOT_TELL
QUERY, BRAND = ("query-embedding", "frechet"), ("input:items.brand", "null-share")
NOW = datetime(2024, 3, 10, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=365)


def series(name, *states):
    subject, statistic = name
    readings = []
    for place, state in enumerate(states):
        end = NOW - timedelta(days=len(states) - 1 - place)
        value = {OK: 0.1, DRIFT: 0.5, SILENT: None}[state]
        readings.append(
            Reading(
                subject=subject,
                statistic=statistic,
                value=value,
                threshold=0.2 if value else None,
                n_reference=100,
                n_current=100,
                window=Window(start=end - timedelta(days=1), end=end),
                state=state,
                towers_id="t1",
                why="" if value else "3 usable rows, 50 are needed",
            )
        )
    return readings


def alert(name="a1", at=NOW):
    decision = Decision(action=Action.REFIT, reasons=("because",), at=at)
    return Alert(
        alert_id=name,
        created_at=at,
        bundle_id="b1",
        towers_id="t1",
        readings=tuple(series(QUERY, DRIFT)),
        decision=decision,
        report=f"{name}.html",
    )

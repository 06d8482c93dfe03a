"""All checks of the health page, in its order."""

from components.ingestion.health.columns import check_columns, check_rows
from components.ingestion.health.data import HealthData
from components.ingestion.health.people import check_people
from components.ingestion.health.quarantine import check_quarantines
from components.ingestion.health.times import DayCounts, check_times
from components.ingestion.health.versions import check_versions
from refit.health import HealthCheck


def check_health(data: HealthData, days: DayCounts) -> tuple[HealthCheck, ...]:
    """Check the tables of a dataset; each check is a few aggregates over them."""
    return (
        *check_rows(data),
        *check_quarantines(data),
        *check_times(data, days),
        *check_people(data),
        *check_columns(data),
        *check_versions(data),
    )

"""What a run reads, by what it is for: training leaves out what is in quarantine."""

from collections.abc import Iterable

from components.ingestion.settings import IngestSettings
from refit.progress import log_message
from refit.quarantine import TABLES, Quarantine, QuarantinedDays


def learn_from(settings: IngestSettings, quarantines: Iterable[Quarantine]) -> IngestSettings:
    """The settings of a run that trains: they leave out the days of the quarantines in force.

    Those that begin after the window are not added, so that the data stays the same data.
    """
    known = {each.quarantine_id for each in settings.quarantined}
    added = []
    for each in quarantines:
        if not each.is_in_force or each.quarantine_id in known:
            continue
        if each.table not in TABLES:
            log_message(f"quarantine {each.quarantine_id}: training reads no table {each.table!r}")
        elif settings.end is None or each.start < settings.end:
            added.append(
                QuarantinedDays(**each.model_dump(include={*QuarantinedDays.model_fields}))
            )
    added.sort(key=lambda days: (days.start, days.quarantine_id))
    return settings.model_copy(update={"quarantined": (*settings.quarantined, *added)})


def serve_from(settings: IngestSettings) -> IngestSettings:
    """The settings of a run that trains nothing: what is for sale stays for sale."""
    return settings.model_copy(update={"quarantined": ()})

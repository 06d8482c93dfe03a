"""Publish the quarantines of the alert store in the registry, where every training finds them.

The alert store stays the record. Whoever adds or releases a quarantine publishes, and the monitor
publishes again at every run: what could not be written then is written now.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime

from monitoring.alerts import ON_CALL, make_entry, release_quarantine
from monitoring.patience import try_within
from monitoring.store import AlertStore
from refit.bundle import BundleManifest
from refit.dataset import DatasetManifest
from refit.errors import RefitError
from refit.index import IndexManifest
from refit.progress import log_message
from refit.quarantine import TABLES, Quarantine
from refit.registry import Registry

UNPUBLISHED = (
    "the quarantines could not be published in the registry, so that training goes by earlier "
    "ones; the next run of the monitor publishes them"
)


def publish_quarantines(store: AlertStore, registry: Registry) -> str:
    """Write the quarantines in force into the registry.

    Published ones that the store does not know stay: they are of another store, or of one that was
    lost, and only a person releases them.

    Returns:
        A warning where the registry could not be written; empty when it was.
    """
    try:
        _publish(store, registry)
    except (RefitError, OSError) as error:
        warning = f"{UNPUBLISHED} ({error})"
        log_message(f"warning: {warning}")
        return warning
    return ""


def release_and_publish(
    store: AlertStore,
    registry: Registry | None,
    quarantine_ids: Sequence[str],
    by: str,
    reason: str,
    *,
    role: str = ON_CALL,
) -> str:
    """Release quarantines and publish what is left, while a person waits.

    A quarantine that only the registry knows is taken into the store first.

    Returns:
        A warning where the registry could not be written in time; empty when it was. The releases
        stand in the store in any case.

    Raises:
        UsageError: ``by`` or ``reason`` is empty; nothing was released.
        UnknownId: There is no such quarantine; those named before it are released.
        WrongState: It was released already; those named before it are released.
    """
    warning, released = "", 0
    try:
        for each in quarantine_ids:
            if registry is not None and by.strip() and reason.strip():
                _take_in(store, registry, each, by, role)
            release_quarantine(store, each, by, reason, role=role)
            released += 1
    finally:
        if released:
            warning = _publish_in_time(store, registry)
    return warning


def _publish_in_time(store: AlertStore, registry: Registry | None) -> str:
    if registry is None:
        return f"{UNPUBLISHED} (no registry is known here)"
    warning, problem = try_within(
        lambda: publish_quarantines(store, registry), "publish the quarantines"
    )
    return f"{UNPUBLISHED} ({problem})" if problem else warning or ""


def find_learned(
    quarantines: Iterable[Quarantine], bundle: BundleManifest, dataset: DatasetManifest | None
) -> tuple[str, ...]:
    """What the champion's training learned from days that are in quarantine now.

    Args:
        quarantines: Those in force.
        bundle: The champion's manifest.
        dataset: The manifest of the data that it was trained on; None where it is not kept.

    Returns:
        At most one sentence, for the reasons of a decision.
    """
    left_out = {days.quarantine_id for days in dataset.quarantined} if dataset else set()
    learned = [
        each
        for each in quarantines
        if each.table in TABLES
        and each.quarantine_id not in left_out
        and _may_have_learned(bundle, each)
    ]
    if not learned:
        return ()
    named = "; ".join(f"{each.quarantine_id} ({each.reason})" for each in learned[:3])
    more = f" and {len(learned) - 3} more" if len(learned) > 3 else ""
    return (
        f"{bundle.bundle_id} was trained on days that are in quarantine since: {named}{more}; the "
        "next refit leaves them out",
    )


def find_unlisted(
    bundle: BundleManifest, index: IndexManifest, dataset: DatasetManifest | None
) -> tuple[str, ...]:
    """Whether live listings are missing in the champion's index, because they are in quarantine.

    Args:
        bundle: The champion's manifest.
        index: The manifest of its index.
        dataset: The manifest of the data that its towers were trained on; None where it is not
            kept.

    Returns:
        At most one sentence, for the reasons of a decision.
    """
    if dataset is None or index.dataset_fingerprint != dataset.fingerprint:
        return ()
    left_out = dataset.counts["items"].quarantined if "items" in dataset.counts else 0
    if not left_out:
        return ()
    return (
        f"{left_out:,} items in quarantine are not in the index of {bundle.bundle_id}: refit run "
        "index_refresh brings those back that are for sale",
    )


def _publish(store: AlertStore, registry: Registry) -> None:
    def change(published: tuple[Quarantine, ...]) -> Collection[Quarantine]:
        known = store.quarantines(in_force=False)
        ids = {each.quarantine_id for each in known}
        foreign = [each for each in published if each.quarantine_id not in ids]
        return [*(each for each in known if each.is_in_force), *foreign]

    registry.publish_quarantines(change)


def _take_in(store: AlertStore, registry: Registry, quarantine_id: str, by: str, role: str) -> None:
    """Keep a quarantine that only the registry knows in the store."""
    if any(each.quarantine_id == quarantine_id for each in store.quarantines(in_force=False)):
        return
    published, _ = try_within(registry.quarantines, "read the quarantines")
    for each in published or ():
        if each.quarantine_id == quarantine_id:
            why = f"only the registry knew it: {each.reason}"
            now = datetime.now(UTC)
            entry = make_entry("quarantine", quarantine_id, by, why, role, now, each.alert_id)
            store.add_quarantine(each, entry)


def _may_have_learned(bundle: BundleManifest, quarantine: Quarantine) -> bool:
    """Whether a training may have read rows of a quarantine; items may be older than its events."""
    begin, until = bundle.trained_from, bundle.trained_until
    if until is not None and quarantine.start >= until:
        return False
    ended = quarantine.end is not None and begin is not None and quarantine.end <= begin
    return quarantine.table == "items" or not ended

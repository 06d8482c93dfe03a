"""Check the feeds of items and events for named faults, window by window."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from threadpoolctl import threadpool_limits

from monitoring.faults import FAULTS, PREFIX, NamedFault, Sign, leave_unchecked, load_fault
from monitoring.faults.feed import Feed, read_feed_window
from monitoring.faults.known import TIME_COLUMNS, KnownFeed
from monitoring.frame import Frame
from monitoring.reference import Reference
from monitoring.settings import MeasureSettings
from monitoring.windows import MonitoredData
from refit.drift import DriftResult, DriftState, Window
from refit.errors import RefitError


def check_feeds(
    settings: MeasureSettings,
    reference: Reference,
    data: MonitoredData,
    windows: Sequence[Window],
) -> list[DriftResult]:
    """Check every window of the feeds for every fault.

    A result's subject is ``feed:items``, or ``feed:items.price`` for a column, and its statistic
    the name of the fault. A fault that could not be looked for is insufficient data, with the
    reason, and no more ok than one that was found. One that the data at hand cannot show, such as a
    lost request id where events have none, is not checked, with the reason.

    Args:
        settings: ``settings.faults`` has the sizes, and what is left out.
        reference: What is known of the feeds.
        data: Where the feeds are.
        windows: The windows, oldest first.
    """
    faults = [load_fault(name) for name in FAULTS.names()]
    results: list[DriftResult] = []
    with threadpool_limits(1):
        for name in TIME_COLUMNS:
            own = [fault for fault in faults if name in fault.tables]
            results += _check_feed(name, own, settings, reference, data, windows)
    return [r for r in results if not settings.faults.leaves_out(r.name)]


def _check_feed(
    name: str,
    faults: Sequence[NamedFault],
    settings: MeasureSettings,
    reference: Reference,
    data: MonitoredData,
    windows: Sequence[Window],
) -> Iterator[DriftResult]:
    path: Path | None = getattr(data, name)
    why = f"no {name} were given" if path is None else ""
    if name in data.unreadable:
        why = f"the {name} cannot be read: {data.unreadable[name]}"
    try:
        known = reference.known_feed(name, settings)
        listings = reference.known_listings
    except Exception as error:
        why = f"the reference has no feeds to compare with: {_explain(error)}"
    for window in windows:
        feed = None
        if not why and path is not None:
            is_last = window == windows[-1]
            feed, failed = _read(name, path, window, is_last, settings, known, listings, data)
            if feed is None and not failed:
                continue
        for fault in faults:
            signs = [Sign("", why=why or failed)] if feed is None else _find(fault, feed)
            for sign in signs:
                yield _to_result(name, fault, sign, window, reference)


def _read(
    name: str,
    path: Path,
    window: Window,
    is_last: bool,
    settings: MeasureSettings,
    known: KnownFeed,
    listings: Frame,
    data: MonitoredData,
) -> tuple[Feed | None, str]:
    try:
        feed = read_feed_window(
            name,
            path,
            window,
            is_last,
            settings.faults,
            known,
            listings,
            data,
            settings.closings,
        )
    except Exception as error:
        return None, _explain(error)
    return feed, ""


def _find(fault: NamedFault, feed: Feed) -> list[Sign]:
    try:
        signs = list(fault.find(feed))
    except Exception as error:
        return [Sign("", why=f"{fault.name} could not be looked for: {_explain(error)}")]
    if not signs and feed.is_last:
        return [leave_unchecked(f"no column of the {feed.name} can show it")]
    return signs


def _explain(error: Exception) -> str:
    return str(error) if isinstance(error, RefitError) else f"{type(error).__name__}: {error}"


def _to_result(
    name: str, fault: NamedFault, sign: Sign, window: Window, reference: Reference
) -> DriftResult:
    state = DriftState.DRIFT if sign.is_found else DriftState.OK
    if sign.value is None:
        state = DriftState.INSUFFICIENT_DATA if sign.is_looked_for else DriftState.NOT_CHECKED
    table = PREFIX + (sign.table or name)
    return DriftResult(
        subject=f"{table}.{sign.column}" if sign.column else table,
        statistic=fault.name,
        value=sign.value,
        threshold=sign.threshold,
        n_reference=sign.n_reference,
        n_current=sign.n_current,
        window=window,
        state=state,
        embedding_version=reference.manifest.embedding_version,
        why=sign.why,
        p_value=sign.p_value,
        detail=sign.detail if sign.is_found else "",
    )

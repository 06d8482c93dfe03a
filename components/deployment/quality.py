"""Live quality of the predictors in a rollout: answers without an outcome, by request id."""

from datetime import datetime, timedelta

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from components.deployment.canary import Proportion
from components.deployment.settings import RolloutSettings
from refit.errors import ServiceUnreachable

UTC_TIME = pa.timestamp("us", tz="UTC")


def count_misses(
    settings: RolloutSettings,
    predictions: str,
    outcomes: str,
    bundles: tuple[str, ...],
    since: datetime,
    until: datetime,
) -> dict[str, Proportion]:
    """Count the answers of [since, until) without an outcome, by bundle.

    The predictors answer during the same period, so that recent answers, whose outcomes may still
    follow, affect both alike.

    Args:
        settings: The event types that count as an outcome.
        predictions: Folder or URL of the prediction log.
        outcomes: Folder, file or URL of events with the request id of the preceding answer;
            "" for none.
        bundles: Ids of the predictors' bundles.
        since: Start of the comparison.
        until: Answers from this time on are too recent.

    Returns:
        A proportion for each bundle; unknown if the log or the outcomes are missing or empty.

    Raises:
        ServiceUnreachable: The log or the outcomes could not be read.
    """
    if not predictions or not outcomes or since >= until:
        return dict.fromkeys(bundles, Proportion())
    day = timedelta(days=1)
    days = [f"date={since + day * n:%Y-%m-%d}" for n in range((until - since).days + 2)]
    answers = _read(predictions, ["request_id", "bundle_id", "time"], days, "time", since, until)
    events = _read(outcomes, ["request_id", "event_type", "event_time"], [], "event_time", since)
    if answers is None or events is None:
        return dict.fromkeys(bundles, Proportion())
    is_outcome = pc.is_in(events["event_type"], pa.array(settings.outcome_events, pa.string()))
    hits = pc.unique(events.filter(is_outcome)["request_id"])
    return {bundle: _proportion(answers, hits, bundle) for bundle in bundles}


def _proportion(answers: pa.Table, hits: pa.Array, bundle: str) -> Proportion:
    ids = pc.unique(answers.filter(pc.equal(answers["bundle_id"], bundle))["request_id"])
    n_hits = pc.sum(pc.is_in(ids, hits)).as_py() or 0
    return Proportion(bad=len(ids) - n_hits, total=len(ids)) if len(ids) else Proportion()


def _read(
    url: str,
    columns: list[str],
    days: list[str],
    time: str,
    since: datetime,
    until: datetime | None = None,
) -> pa.Table | None:
    """Rows of [since, until) of a Parquet file or folder; None if there is no file."""
    try:
        fs, root = fsspec.core.url_to_fs(url)
        fs.invalidate_cache()
        patterns = [f"{root}/{one}/*.parquet" for one in days] or [f"{root}/**/*.parquet"]
        paths = [root] if fs.isfile(root) else [p for one in patterns for p in fs.glob(one)]
        paths = [path for path in paths if not path.rsplit("/", 1)[-1].startswith((".", "_"))]
        if not paths:
            return None
        selected = ds.field("request_id").is_valid()
        selected &= ds.field(time) >= pa.scalar(since, UTC_TIME)
        if until:
            selected &= ds.field(time) < pa.scalar(until, UTC_TIME)
        dataset = ds.dataset(paths, filesystem=fs, format="parquet", partitioning=None)
        return dataset.to_table(columns=columns, filter=selected)
    except (OSError, ImportError, pa.ArrowInvalid) as error:
        raise ServiceUnreachable(f"{url} cannot be read: {error}") from error

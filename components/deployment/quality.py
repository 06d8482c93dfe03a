"""Live quality of the predictors in a rollout: answers without an outcome, counted by person."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import NDArray

from components.deployment.canary import Proportion
from components.deployment.settings import RolloutSettings
from refit.errors import RefitError, ServiceUnreachable
from refit.log_parts import LogParts
from refit.prediction import PREDICTION_SCHEMA, keep_first_pages
from refit.remote import open_store
from refit.settings import Settings

UTC_TIME = pa.timestamp("us", tz="UTC")


class LiveQuality(Settings):
    """Answers of one bundle without an outcome.

    Attributes:
        users: Number of people who were answered; None if unknown.
        misses: Answers without each outcome, by its name, as effective numbers.
    """

    users: int | None = None
    misses: dict[str, Proportion] = {}


def count_misses(
    settings: RolloutSettings,
    predictions: str,
    outcomes: str,
    bundles: tuple[str, ...],
    since: datetime,
    until: datetime,
) -> dict[str, LiveQuality]:
    """Count the answers of [since, until) without each outcome, by bundle.

    The predictors answer during the same period, so that recent answers, whose outcomes may still
    follow, affect both alike.

    Args:
        settings: The outcomes and their event types.
        predictions: Folder or URL of the prediction log.
        outcomes: Folder, file or URL of events with the request id of the preceding answer;
            "" for none.
        bundles: Ids of the predictors' bundles.
        since: Start of the comparison.
        until: Answers from this time on are too recent.

    Returns:
        The quality of each bundle; unknown if the log or the outcomes are missing or empty.

    Raises:
        ServiceUnreachable: The log or the outcomes could not be read.
    """
    unknown = dict.fromkeys(bundles, LiveQuality())
    if not predictions or not outcomes or since >= until:
        return unknown
    answers = _read_answers(predictions, since, until)
    events = _read_events(outcomes, since)
    if answers is None or events is None:
        return unknown
    hits = {
        name: pc.unique(
            events.filter(pc.is_in(events["event_type"], pa.array(types, pa.string())))[
                "request_id"
            ]
        )
        for name, types in settings.outcomes.items()
    }
    return {bundle: _count(answers, hits, bundle) for bundle in bundles}


def _count(answers: pa.Table, hits: dict[str, pa.Array], bundle: str) -> LiveQuality:
    own = answers.filter(pc.equal(answers["bundle_id"], bundle))
    own = own.group_by("request_id").aggregate([("user_id", "min")])  # each answer once
    if not own.num_rows:
        return LiveQuality()
    # Nobody knows who got an answer without a user: it counts as a person of its own.
    person = pc.coalesce(
        own["user_id_min"], pc.binary_join_element_wise("?", own["request_id"], "")
    )
    people = person.combine_chunks().dictionary_encode()
    n_people = len(people.dictionary)
    number = people.indices.to_numpy()
    sizes = np.bincount(number, minlength=n_people)
    misses = {}
    for name, found in hits.items():
        missed = ~pc.is_in(own["request_id"], found).to_numpy()
        bad = np.bincount(number, missed.astype(np.float64), minlength=n_people)
        effect = design_effect(bad, sizes)
        misses[name] = Proportion(bad=bad.sum() / effect, total=sizes.sum() / effect)
    return LiveQuality(users=n_people, misses=misses)


def design_effect(bad: NDArray[np.float64], sizes: NDArray[np.int64]) -> float:
    """Variance of a proportion over people, relative to that of independent answers; at least 1.

    The variance is that of a ratio of two sums over people, linearized. Source: Rao and Scott,
    "A simple method for the analysis of clustered binary data", Biometrics 48, 1992. Where it
    cannot be estimated, since all answers are alike or there is one person, all answers to a person
    count as one: the effect is then that of an intra-class correlation of 1 (Kish, 1965).

    Args:
        bad: [P] bad answers of each person.
        sizes: [P] answers of each person.
    """
    n, people = float(sizes.sum()), len(sizes)
    p = float(bad.sum()) / n
    if people < 2 or p in (0.0, 1.0):
        return float((sizes.astype(np.float64) ** 2).sum() / n)
    residuals = bad - p * sizes
    variance = people / (people - 1) * float((residuals**2).sum()) / n**2
    return max(1.0, variance / (p * (1 - p) / (n - 1)))


def _read_answers(log: str, since: datetime, until: datetime) -> pa.Table | None:
    """The answers of [since, until), without later pages of lists; None if there is no part."""
    columns = ["request_id", "bundle_id", "user_id", "time", "positions"]
    with _reading(log):
        parts = LogParts.at(log)
        paths = parts.find(f"{since:%Y-%m-%d}", f"{until:%Y-%m-%d}")
        within = _since("time", since) & (ds.field("time") < pa.scalar(until, UTC_TIME))
        answers = _read(parts.store, paths, columns, within, PREDICTION_SCHEMA)
    return None if answers is None else keep_first_pages(answers)


def _read_events(outcomes: str, since: datetime) -> pa.Table | None:
    """The outcomes from a time on; None if there is no file."""
    with _reading(outcomes):
        fs, root = open_store(outcomes)
        paths = [root] if fs.isfile(root) else fs.glob(f"{root}/**/*.parquet")
        paths = [path for path in paths if not path.rsplit("/", 1)[-1].startswith((".", "_"))]
        columns = ["request_id", "event_type", "event_time"]
        return _read(fs, paths, columns, _since("event_time", since))


def _since(time: str, since: datetime) -> ds.Expression:
    named = ds.field("request_id").is_valid()
    return named & (ds.field(time) >= pa.scalar(since, UTC_TIME))


def _read(
    fs: Any,
    paths: list[str],
    columns: list[str],
    chosen: ds.Expression,
    schema: pa.Schema | None = None,
) -> pa.Table | None:
    if not paths:
        return None
    dataset = ds.dataset(paths, schema=schema, filesystem=fs, format="parquet", partitioning=None)
    return dataset.to_table(columns=columns, filter=chosen)


@contextmanager
def _reading(url: str) -> Iterator[None]:
    try:
        yield
    except RefitError:
        raise
    except Exception as error:  # clients of stores have errors of their own
        raise ServiceUnreachable(f"{url} cannot be read: {error}") from error

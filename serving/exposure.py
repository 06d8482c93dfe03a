"""What is shown how often: coverage, concentration and repetition, before and after a slate.

An answer holds the query vector that it was found with, so that other settings of a slate can be
tried on the answers of a prediction log, without a model server and before anybody sees them.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds
from numpy.typing import NDArray

from refit.bundle import Bundle
from refit.exposure import head_share, repetition
from refit.index import IndexManifest
from refit.log_parts import LogParts
from refit.prediction import PREDICTION_SCHEMA
from serving.catalogue import Catalogue
from serving.fresh import FreshListings
from serving.pool import Pool
from serving.query import Query
from serving.request import Request
from serving.stage_settings import RetrievalSettings, SlateSettings
from serving.stages import AnswerRequest, Stages

COLUMNS = [
    "request_id",
    "user_id",
    "time",
    "context",
    "query_embedding",
    "item_ids",
    "repeat_item_ids",
    "repeat_scores",
]


@dataclass(frozen=True)
class ShownAnswer:
    """One answer.

    Attributes:
        user_id: To whom.
        time: When.
        context: In which context.
        item_ids: What was shown, by slot.
        score: The mean score of the items, in the query tower's scores.
    """

    user_id: str | None
    time: datetime
    context: Mapping[str, Any]
    item_ids: Sequence[str]
    score: float


@dataclass(frozen=True)
class Spread:
    """How widely answers are spread over the stock; None where it was not measured.

    Attributes:
        coverage: Share of the live items that are in an answer.
        head_share: Share of all slots that the most-shown 1% of the live items take.
        repetition: Share of slots that show an item again to the same person; only answers after
            a person's first are counted.
        score: Mean score, in the query tower's scores.
    """

    coverage: float | None
    head_share: float | None
    repetition: float | None
    score: float | None


def measure_spread(answers: Iterable[ShownAnswer], n_live: int) -> Spread:
    """Measure answers, in order of time, against a stock of ``n_live`` items."""
    answers = list(answers)
    shown = Counter(item for answer in answers for item in answer.item_ids)
    if not shown:
        return Spread(None, None, None, None)
    again = repetition((a.user_id, a.item_ids) for a in answers if a.user_id is not None)
    return Spread(
        coverage=len(shown) / n_live,
        head_share=head_share(np.array(list(shown.values()), dtype=np.float64), n_live),
        repetition=None if np.isnan(again) else again,
        score=float(np.mean([answer.score for answer in answers if answer.item_ids])),
    )


def try_slates(
    bundle: Bundle,
    log: Path,
    slates: Mapping[str, SlateSettings],
    until: datetime | None = None,
    retrievals: Mapping[str, RetrievalSettings] | None = None,
    gone_at: Mapping[str, datetime] | None = None,
) -> dict[str, Spread]:
    """Measure the answers to the logged requests of one bundle with other settings.

    See ``answer_again``.
    """
    n_live = IndexManifest.read(bundle.index).n_live
    answers = answer_again(bundle, log, slates, until, retrievals, gone_at)
    return {name: measure_spread(shown, n_live) for name, shown in answers.items()}


def answer_again(
    bundle: Bundle,
    log: Path,
    slates: Mapping[str, SlateSettings],
    until: datetime | None = None,
    retrievals: Mapping[str, RetrievalSettings] | None = None,
    gone_at: Mapping[str, datetime] | None = None,
) -> dict[str, list[ShownAnswer]]:
    """Answer the logged requests of one bundle again, with other settings, in order of time.

    The stock is that of the bundle, without newer listings; what was sold since is left out if
    ``gone_at`` says so. So a slate is compared with another one, not with what was served.

    Args:
        bundle: Answers of its embedding version are repeated from its index.
        log: Folder of a prediction log.
        slates: The settings to try, by name.
        until: Only answers before this time.
        retrievals: Where the candidates of some of them come from; the others': the towers.
        gone_at: When items were sold or withdrawn, by item id. Without it, slates that show what
            sells soon look worse than they are.
    """
    catalogue = Catalogue(bundle)
    rows = _read_answers(bundle, log, until)
    gone = _find_gone(catalogue, gone_at or {})
    found = {}
    for name, slate in slates.items():
        stages = Stages((retrievals or {}).get(name, RetrievalSettings()), slate)
        stages.check(catalogue)
        found[name] = list(_answer(catalogue, stages, rows, gone))
    return found


def _read_answers(bundle: Bundle, log: Path, until: datetime | None) -> list[dict[str, Any]]:
    """The answers by the towers, in order of time."""
    files = LogParts.at(log).find()
    if not files:
        return []
    chosen = ds.field("bundle_id") == bundle.bundle_id
    chosen &= ds.field("query_embedding").is_valid()
    if until is not None:
        chosen &= ds.field("time") < until
    parts = ds.dataset(files, schema=PREDICTION_SCHEMA, format="parquet")
    return list(parts.to_table(columns=COLUMNS, filter=chosen).sort_by("time").to_pylist())


def _find_gone(catalogue: Catalogue, gone_at: Mapping[str, datetime]) -> NDArray[np.float64]:
    """[N] when each live item was gone, Unix seconds; infinite where it never was."""
    times = (gone_at.get(item_id) for item_id in catalogue.item_ids[: catalogue.n_live])
    return np.array([np.inf if time is None else time.timestamp() for time in times])


def _answer(
    catalogue: Catalogue,
    stages: Stages,
    rows: Sequence[Mapping[str, Any]],
    gone: NDArray[np.float64],
) -> Iterator[ShownAnswer]:
    fresh = FreshListings(catalogue).view()
    for row in rows:
        user_id, now = row["user_id"], row["time"]
        request = Request(user_id=user_id, k=max(len(row["item_ids"]), 1))
        repeats = zip(row["repeat_item_ids"] or (), row["repeat_scores"] or (), strict=True)
        query = Query(np.array(row["query_embedding"], dtype=np.float32), dict(repeats))
        pool = Pool(catalogue, fresh, gone <= now.timestamp(), request, now)
        slate = stages.answer(pool, AnswerRequest(request, row["request_id"], now, query))
        scores = pool.score(query, np.array(slate.rows, dtype=np.int64))
        score = float(scores.mean()) if len(scores) else 0.0
        item_ids = [item_id for item_id, _ in slate.items]
        yield ShownAnswer(user_id, now, json.loads(row["context"]), item_ids, score)

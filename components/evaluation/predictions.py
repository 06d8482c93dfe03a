"""The model's answers to the visits of the test window: the reference for drift.

The test queries are target events, such as purchases; live traffic consists of all visits. In
service an index ages until it is refreshed, so visits may be answered from older snapshots; the ids
of their bundles hold the age.
"""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.evaluation.data import EvaluationData
from components.evaluation.ranking import EvaluationSet, build_request_set, recommend
from components.evaluation.settings import EvaluationSettings
from components.evaluation.towers import QueryOutputs, TowerScorer
from refit.bundle import name_bundle
from refit.prediction import build_predictions

OFFLINE = "offline"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def write_predictions(
    path: Path,
    data: EvaluationData,
    towers: TowerScorer,
    embedding_version: str,
    settings: EvaluationSettings,
) -> None:
    """Recommend items for visits from the stock live at that time, and write prediction records.

    Args:
        path: The Parquet file.
        data: The features folder.
        towers: The model.
        embedding_version: The embedding version of its towers.
        settings: Number of visits and length of the lists.

    Raises:
        DataValidationError: The features folder has no requests.
    """
    data = data.of_requests()
    evaluation_set = build_request_set(
        data, settings.prediction_queries, settings.prediction_index_ages_days
    )
    scorer = towers.over(data)
    embedded = scorer.run_query_tower(evaluation_set.queries)
    top, scores = recommend(scorer, evaluation_set, settings.longest)
    rows, spec = evaluation_set.queries.rows, data.spec
    n = len(rows)
    names = list(dict.fromkeys((*spec.context_categorical, *spec.context_numeric)))
    contexts = data.log.table.select(names).take(rows).to_pylist() if names else [{}] * n
    shown = [items[items >= 0] for items in top]
    table = build_predictions(
        {
            "request_id": pa.array([f"offline-{row}" for row in rows]),
            "bundle_id": pa.array(_name_bundles(data, evaluation_set)),
            "embedding_version": pa.array([embedding_version] * n),
            "user_id": pa.array(data.log.user_ids[data.log.user[rows]].tolist(), pa.string()),
            "time": pa.array(data.log.time[rows]).cast(pa.timestamp("us", "UTC")),
            "context": pa.array([json.dumps(_without_nan(context)) for context in contexts]),
            "query_embedding": pa.array(list(embedded.vectors), pa.list_(pa.float32())),
            **_list_repeats(data, embedded),
            "item_ids": pa.array(
                [data.catalogue.item_id[items].tolist() for items in shown], pa.list_(pa.string())
            ),
            "scores": pa.array(
                [s[: len(t)] for s, t in zip(scores, shown, strict=True)],
                pa.list_(pa.float32()),
            ),
        },
        n,
    )
    pq.write_table(table, path, compression="zstd")


def _name_bundles(data: EvaluationData, evaluation_set: EvaluationSet) -> list[str]:
    """[n] ids as of indexes that were as old as the snapshot is older than the newest one."""
    rows = evaluation_set.queries.rows
    newest = data.snapshot_times[data.log.snapshot[rows]]
    names = [""] * len(rows)
    for group in evaluation_set.groups:
        older = newest[group.queries] - group.snapshot.time
        built = data.log.time[rows[group.queries]] - older
        for query, microseconds in zip(group.queries, built.tolist(), strict=True):
            names[query] = name_bundle(EPOCH + timedelta(microseconds=microseconds), OFFLINE)
    return names


def _list_repeats(data: EvaluationData, embedded: QueryOutputs) -> dict[str, pa.Array]:
    """[n] what the history of each query adds to which items, events of an item added up."""
    items: list[list[str]] = [[] for _ in embedded.items]
    scores: list[list[float]] = [[] for _ in embedded.items]
    if embedded.repeats is not None:
        for i, (history, added) in enumerate(zip(embedded.items, embedded.repeats, strict=True)):
            item, events = np.unique(history[history >= 0], return_inverse=True)
            items[i] = data.catalogue.item_id[item].tolist()
            scores[i] = np.bincount(events, added[history >= 0], len(item)).tolist()
    return {
        "repeat_item_ids": pa.array(items, pa.list_(pa.string())),
        "repeat_scores": pa.array(scores, pa.list_(pa.float32())),
    }


def _without_nan(context: dict[str, object]) -> dict[str, object]:
    return {name: None if value != value else value for name, value in context.items()}

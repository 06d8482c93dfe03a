"""What the model would have answered to the test queries: the reference of drift."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.evaluation.data import Floats
from components.evaluation.ranking import Contest, Ranking, spread
from refit.prediction import PREDICTION_SCHEMA

BUNDLE_ID = "offline"


def write_predictions(
    path: Path, contest: Contest, ranking: Ranking, vectors: Floats, towers_id: str, most: int
) -> None:
    """Write at most so many answers, evenly over time, as prediction records.

    Args:
        path: The Parquet file.
        contest: The test queries.
        ranking: The model's lists.
        vectors: [n, D] query vectors.
        towers_id: The towers that the vectors belong to.
        most: At most this many queries.
    """
    data = contest.data
    which = spread(np.arange(len(contest.queries)), most)
    rows = contest.queries.rows[which]
    spec = data.spec
    names = list(dict.fromkeys((*spec.context_categorical, *spec.context_numeric)))
    contexts = data.log.table.select(names).take(rows).to_pylist()
    shown = [top[top >= 0] for top in ranking.top[which]]
    n = len(which)
    table = pa.table(
        {
            "request_id": pa.array([f"offline-{row}" for row in rows]),
            "bundle_id": pa.array([BUNDLE_ID] * n),
            "towers_id": pa.array([towers_id] * n),
            "user_id": pa.array(data.log.user_ids[data.log.user[rows]].tolist(), pa.string()),
            "time": pa.array(data.log.time[rows]).cast(pa.timestamp("us", "UTC")),
            "context": pa.array([json.dumps(_without_nan(context)) for context in contexts]),
            "query_embedding": pa.array(list(vectors[which]), pa.list_(pa.float32())),
            "item_ids": pa.array([data.catalogue.item_id[top].tolist() for top in shown]),
            "scores": pa.array(
                [s[: len(t)] for s, t in zip(ranking.scores[which], shown, strict=True)],
                pa.list_(pa.float32()),
            ),
            "fallback": pa.nulls(n, pa.string()),
            "latency_ms": pa.nulls(n, pa.float32()),
        },
        schema=PREDICTION_SCHEMA,
    )
    pq.write_table(table, path, compression="zstd")


def _without_nan(context: dict[str, object]) -> dict[str, object]:
    return {name: None if value != value else value for name, value in context.items()}

"""The prediction record: one answer with its user, bundle, context and query vector."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

PREDICTION_SCHEMA = pa.schema(
    [
        pa.field("request_id", pa.string(), nullable=False),
        pa.field("bundle_id", pa.string(), nullable=False),
        pa.field("embedding_version", pa.string(), nullable=False),
        pa.field("user_id", pa.string()),
        pa.field("time", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("context", pa.string(), nullable=False),  # JSON object of the request's context
        pa.field("query_embedding", pa.list_(pa.float32())),  # null if the tower did not answer
        pa.field("item_ids", pa.list_(pa.string()), nullable=False),
        pa.field("scores", pa.list_(pa.float32()), nullable=False),
        # why the person's query vector was not used, else null; ON_PURPOSE are no failures
        pa.field("fallback", pa.string()),
        pa.field("latency_ms", pa.float32()),
        # for each of item_ids: the retriever that it comes from, or EXPLORATION
        pa.field("sources", pa.list_(pa.string())),
        # for each of item_ids: its slot from 0; on later pages of a list they go on
        pa.field("positions", pa.list_(pa.int32())),
        # for each of item_ids: the probability with which it was shown in this slot; null where
        # nothing in the answer was drawn at random, so that each was 1
        pa.field("propensities", pa.list_(pa.float32())),
        # the person's bucket of an experiment
        pa.field("bucket", pa.string()),
        # items of the history, and what each adds to its own score beside the query vector; null as
        # that is, empty where the history adds nothing
        pa.field("repeat_item_ids", pa.list_(pa.string())),
        pa.field("repeat_scores", pa.list_(pa.float32())),
    ]
)
"""One row per answer. Outcomes are events with the ``request_id`` of the answer.

Logs of earlier versions lack the last columns, from ``sources`` on, which read as null.
"""

HOLDOUT = "holdout"
"""The ``fallback`` of an answer to a person who gets popularity for comparison, by setting."""
NOT_PERSONALISED = "not_personalised"
"""The ``fallback`` of an answer by popularity that the request asked for."""
SIMILAR_ITEMS = "similar_items"
"""The ``fallback`` of an answer about an item, for whoever asks."""
ON_PURPOSE = (HOLDOUT, NOT_PERSONALISED, SIMILAR_ITEMS)
"""The ``fallback`` of answers that use no person's query vector and are no failures."""


EXPLORATION = "exploration"
"""The source of an item that was drawn at random."""


def keep_first_pages(answers: pa.Table) -> pa.Table:
    """Answers without the later pages of lists, so that a list counts once however far it is read.

    A later page is known by its ``positions``, which go on. One without items, which ends a list,
    is not logged; logs of earlier versions have such rows, which count as answers without items.
    """
    chunks = answers["positions"].chunks
    positions = pa.concat_arrays(chunks) if chunks else pa.array([], pa.list_(pa.int32()))
    lowest = np.zeros(answers.num_rows, dtype=np.int64)
    flat = pc.list_flatten(positions).to_numpy(zero_copy_only=False)
    rows = pc.list_parent_indices(positions).to_numpy(zero_copy_only=False)
    first = np.flatnonzero(np.diff(rows, prepend=-1))
    lowest[rows[first]] = flat[first]
    return answers.filter(pa.array(lowest == 0)) if lowest.any() else answers


def build_predictions(columns: Mapping[str, Any], rows: int) -> pa.Table:
    """A table of ``PREDICTION_SCHEMA`` from columns of ``rows`` values; absent ones are null."""
    nulls = {
        field.name: pa.nulls(rows, field.type)
        for field in PREDICTION_SCHEMA
        if field.nullable and field.name not in columns
    }
    return pa.table({**columns, **nulls}, schema=PREDICTION_SCHEMA)

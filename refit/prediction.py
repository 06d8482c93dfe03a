"""The prediction record: one answer with its user, bundle, context and query vector."""

import pyarrow as pa

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
        # the reason for an answer by popularity, else null; HOLDOUT is no failure
        pa.field("fallback", pa.string()),
        pa.field("latency_ms", pa.float32()),
    ]
)
"""One row per answer. Outcomes are events with the ``request_id`` of the answer."""

HOLDOUT = "holdout"
"""The ``fallback`` of an answer to a person who gets popularity for comparison, by setting."""

PROPENSITIES = pa.field("propensities", pa.list_(pa.float32()))
"""An optional column of a log of serving that explores: the probability with which each of
``item_ids`` was shown where it was shown, in (0, 1]. Logs without it remain readable."""

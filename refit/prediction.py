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
        pa.field("fallback", pa.string()),  # the reason for a fallback, else null
        pa.field("latency_ms", pa.float32()),
    ]
)
"""One row per answer. Outcomes are events with the ``request_id`` of the answer."""

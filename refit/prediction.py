"""The prediction record: what was answered to whom, from which bundle, with which vector."""

import pyarrow as pa

PREDICTION_SCHEMA = pa.schema(
    [
        pa.field("request_id", pa.string(), nullable=False),
        pa.field("bundle_id", pa.string(), nullable=False),
        pa.field("embedding_version", pa.string(), nullable=False),
        pa.field("user_id", pa.string()),
        pa.field("time", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("context", pa.string(), nullable=False),  # JSON object of the request's context
        pa.field("query_embedding", pa.list_(pa.float32())),  # null when the tower did not answer
        pa.field("item_ids", pa.list_(pa.string()), nullable=False),
        pa.field("scores", pa.list_(pa.float32()), nullable=False),
        pa.field("fallback", pa.string()),  # null, or why the model's answer was not used
        pa.field("latency_ms", pa.float32()),
    ]
)
"""One row an answer. Outcomes are events whose ``request_id`` names the answer they follow."""

"""Taste: people choose otherwise among the same things."""

from refit.alert import Action
from refit.incident import Cause

CAUSE = Cause.TASTE
MEANING = "people like other things than before"
SHOWS = {
    "one column": "rarely",
    "named fault": "impossible",
    "new values": "never",
    "listed shares": "sometimes",
    "prices": "never",
    "missing values": "never",
    "picture vectors": "rarely",
    "asked for": "never",
    "queries": "rarely",
    "scores": "sometimes",
    "recommended mix": "rarely",
    "more listings": "never",
    "fewer listings": "never",
    "fewer events": "never",
    "model fell": "sometimes",
    "liked vectors": "often",
    "liked brands": "sometimes",
    "old index": "never",
    "new champion": "never",
    "worse than before": "never",
    "queries alone": "rarely",
}
FOLLOWS = (
    "input:items.brand/*",
    "input:events.*",
    "listing-embedding/*",
    "query-embedding/*",
    "scores/*",
    "mix:*",
    "live:*",
    "choice:*",
)
ACTION = Action.REFIT
ADVICE = "Refit once there are enough new events: only they say what people like now."

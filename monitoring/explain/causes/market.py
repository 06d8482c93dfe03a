"""The market: people buy more or less of everything, or everything costs more."""

from refit.alert import Action
from refit.incident import Cause

CAUSE = Cause.MARKET
MEANING = "the whole market changed, with and without recommendations"
SHOWS = {
    "one column": "never",
    "named fault": "impossible",
    "new values": "never",
    "listed shares": "rarely",
    "prices": "sometimes",
    "missing values": "never",
    "picture vectors": "never",
    "asked for": "never",
    "queries": "never",
    "scores": "sometimes",
    "recommended mix": "sometimes",
    "more listings": "never",
    "fewer listings": "rarely",
    "fewer events": "never",
    "purchases fell": "often",
    "model fell": "never",
    "liked vectors": "never",
    "liked brands": "never",
    "one mix": "never",
    "old index": "never",
    "new champion": "never",
    "worse than before": "never",
    "queries alone": "never",
}
FOLLOWS = (
    "input:items.price/*",
    "input:events.price/*",
    "input:events.event_type/*",
    "mix:price_band/*",
    "scores/*",
    "live:*",
)
ACTION = Action.ALERT
ADVICE = "Tell: no recommender sells more of it, and a refit would not help."

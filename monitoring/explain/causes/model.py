"""The model: a worse model, or a server that does not give it what it was trained with."""

from refit.alert import Action
from refit.incident import Cause

CAUSE = Cause.MODEL
MEANING = "the model answers worse, on the same data"
SHOWS = {
    "one column": "never",
    "named fault": "impossible",
    "new values": "never",
    "listed shares": "never",
    "prices": "never",
    "missing values": "never",
    "picture vectors": "never",
    "asked for": "never",
    "queries": "often",
    "scores": "often",
    "recommended mix": "sometimes",
    "more listings": "never",
    "fewer listings": "never",
    "fewer events": "never",
    "purchases fell": "never",
    "model fell": "sometimes",
    "liked vectors": "never",
    "liked brands": "never",
    "old index": "never",
    "new champion": "sometimes",
    "worse than before": "often",
    "queries alone": "often",
}
FOLLOWS = (
    "query-embedding/*",
    "scores/*",
    "mix:*",
    "live:*",
    "promotion:*",
    "input:events.event_type/*",
)
ACTION = Action.ROLL_BACK
ADVICE = (
    "Roll back to the champion before, or restore what the server lacks (histories, contexts), and "
    "do not refit: a new model would be served the same way."
)

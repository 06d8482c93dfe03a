"""New supply: sellers list what was not listed before, or much more of it."""

from refit.alert import Action
from refit.incident import Cause

CAUSE = Cause.NEW_SUPPLY
MEANING = "sellers list other things than before"
SHOWS = {
    "one column": "rarely",
    "named fault": "impossible",
    "new values": "sometimes",
    "listed shares": "always",
    "prices": "sometimes",
    "missing values": "never",
    "picture vectors": "sometimes",
    "asked for": "sometimes",
    "queries": "sometimes",
    "scores": "sometimes",
    "recommended mix": "sometimes",
    "more listings": "sometimes",
    "fewer listings": "never",
    "fewer events": "never",
    "model fell": "sometimes",
    "one value": "sometimes",
    "one mix": "sometimes",
    "old index": "never",
    "new champion": "never",
    "worse than before": "never",
    "queries alone": "never",
}
FOLLOWS = (
    "input:items.*",
    "input:events.wanted*",
    "input:events.price/*",
    "listing-embedding/*",
    "query-embedding/*",
    "scores/*",
    "mix:*",
    "live:*",
    "choice:*",
)
ACTION = Action.REFIT
ADVICE = (
    "Refit where quality falls, so that the model learns what is new; otherwise tell, and look "
    "again in some days."
)

"""Index age: the index was not refreshed, so that what it holds is old and partly sold."""

from refit.alert import Action
from refit.incident import Cause

CAUSE = Cause.INDEX_AGE
MEANING = "the index is too old"
SHOWS = {
    "one column": "never",
    "named fault": "impossible",
    "new values": "never",
    "listed shares": "never",
    "prices": "never",
    "missing values": "never",
    "picture vectors": "never",
    "asked for": "never",
    "queries": "never",
    "scores": "often",
    "recommended mix": "sometimes",
    "more listings": "never",
    "fewer listings": "never",
    "fewer events": "never",
    "purchases fell": "never",
    "model fell": "sometimes",
    "liked vectors": "never",
    "liked brands": "never",
    "old index": "always",
    "new champion": "never",
    "worse than before": "never",
    "queries alone": "never",
}
FOLLOWS = ("listing-embedding/*", "scores/*", "mix:*", "live:*")
ACTION = Action.REFRESH
ADVICE = "Refresh the index, and find out why its schedule did not."

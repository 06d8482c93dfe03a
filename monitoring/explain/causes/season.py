"""Season: people ask for other categories, and sellers list them, within what was always there."""

from refit.alert import Action
from refit.incident import Cause

CAUSE = Cause.SEASON
MEANING = "the season changes which categories are asked for and listed"
SHOWS = {
    "one column": "rarely",
    "named fault": "impossible",
    "new values": "never",
    "listed shares": "often",
    "prices": "rarely",
    "missing values": "never",
    "picture vectors": "rarely",
    "asked for": "always",
    "queries": "often",
    "scores": "sometimes",
    "recommended mix": "sometimes",
    "more listings": "never",
    "fewer listings": "never",
    "fewer events": "never",
    "one value": "rarely",
    "one mix": "often",
    "liked vectors": "never",
    "liked brands": "never",
    "old index": "never",
    "new champion": "never",
    "worse than before": "never",
    "queries alone": "never",
}
FOLLOWS = (
    "input:items.*",
    "input:events.*",
    "listing-embedding/*",
    "query-embedding/*",
    "scores/*",
    "mix:*",
)
ACTION = Action.ALERT
ADVICE = "Tell, and refit where quality falls: the model knows these categories already."

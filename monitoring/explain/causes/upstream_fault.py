"""An upstream fault: a feed brings wrong rows, or none."""

from refit.alert import Action
from refit.incident import Cause

CAUSE = Cause.UPSTREAM_FAULT
MEANING = "a feed is broken"
SHOWS = {
    "one column": "sometimes",
    "fewer events": "sometimes",
    "model fell": "sometimes",
    "named fault": "always",
    "listed shares": "sometimes",
    "old index": "never",
    "new champion": "never",
    "worse than before": "never",
    "one mix": "never",
    "queries alone": "never",
}
FOLLOWS = (
    "feed:*",
    "input:*",
    "listing-embedding/*",
    "query-embedding/*",
    "scores/*",
    "mix:*",
    "live:*",
    "choice:*",
)
ACTION = Action.QUARANTINE
ADVICE = (
    "Keep the days of this feed out of training, ask its owner to mend and resend them, and do not "
    "refit on them."
)

"""What drift of a result means and what a person on call does about it."""

from fnmatch import fnmatchcase

from monitoring.drift_metrics import Advice, load_metric
from refit.drift import DriftResult, DriftState
from refit.errors import RefitError

LIVE_QUALITY = {
    "live:fallback-share": Advice(
        "The query tower does not answer in time, so users get the fallback.",
        "Check the model server: is it running, and is it overloaded? Restart it or add replicas. "
        "A refit does not help.",
    ),
    "live:other-index-share": Advice(
        "Servers answer from two indexes of the same model: a part of them has not loaded the "
        "newer one, so that its users get what is old and partly sold.",
        "Find the servers whose status names another bundle, and restart them. A refit does not "
        "help.",
    ),
    "live:market-*": Advice(
        "People who do not get the model's answers click or buy less, too: the market fell.",
        "Look for a season, a campaign that ended, or a fault of the shop. A refit does not help; "
        "the model's own rate is compared with this one.",
    ),
    "live:*-lift": Advice(
        "People do less with the model's recommendations, relative to people who do not get them.",
        "Look at the model's own rate. If it did not fall, the others do more than before.",
    ),
    "live:outcome-delay": Advice(
        "Outcomes arrive later than before. Rates do not fall from it until outcomes come later "
        "than outcome_hours.",
        "Ask the owner of the events feed what was released that day. If it stays so, raise "
        "monitoring.quality.outcome_hours or feed_lag_hours.",
    ),
    "live:concept": Advice(
        "What people choose by themselves is ranked lower by the model than before.",
        "Look at what they choose. If taste has changed, refit; if the index is old, refresh it.",
    ),
    "live:revenue-rate": Advice(
        "An answer leads to less revenue.",
        "Compare with the purchase rate. If that did not fall, cheaper items are bought: look at "
        "the prices of the stock. A refit for it alone is seldom right.",
    ),
    "live:*": Advice(
        "Users click or buy less of what is recommended.",
        "Check first that events still arrive and carry request_id. If they do, and the fall "
        "began with the newest bundle, roll back with refit bundles rollback. Otherwise refit.",
    ),
}
"""By subject pattern; drift metrics carry their own entries."""
INSUFFICIENT_DATA = Advice(
    "This was not measured, so nobody knows whether it drifted.",
    "Restore what the reason names: a table, a column, the index, the prediction log, or the "
    "package of a drift metric. If this installation cannot have it, add the results to "
    "monitoring.policy.waived.",
)


def advise(result: DriftResult) -> Advice:
    """The runbook's entry for a result."""
    if result.state is DriftState.INSUFFICIENT_DATA:
        return INSUFFICIENT_DATA
    for pattern, advice in LIVE_QUALITY.items():
        if fnmatchcase(result.subject, pattern):
            return advice
    try:
        return load_metric(result.statistic).advise(result.subject)
    except RefitError as error:
        return Advice(
            "The metric that measured this cannot be loaded here, so its runbook is missing.",
            f"{error}",
        )

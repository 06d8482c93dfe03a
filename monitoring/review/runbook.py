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

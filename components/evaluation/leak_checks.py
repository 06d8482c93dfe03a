"""The gate's checks of what single groups of inputs carry; see ``leaks``."""

from collections.abc import Iterator

from components.evaluation.results import Results
from components.evaluation.settings import EvaluationSettings
from refit.verdict import Check

HISTORY_ADVICE = (
    "a history so close to the event often is the event's own visit: give session_id, or name "
    "{name} in evaluation.leaks.intended if requests are answered in the course of a visit"
)
ITEM_ADVICE = (
    "if its values were known at the request and the sale does not change them, name {name} in "
    "evaluation.leaks.intended; otherwise give its versions, or leave it out of features.spec"
)
QUERY_ADVICE = (
    "if its values are known at the request, name {name} in evaluation.leaks.intended; otherwise "
    "leave it out of features.spec"
)
ADVICE = {
    "history": HISTORY_ADVICE,
    "item": ITEM_ADVICE,
    "user": ITEM_ADVICE,
    "context": QUERY_ADVICE,
}


def check_leaks(settings: EvaluationSettings, results: Results) -> Iterator[Check]:
    """Check that no group of inputs with a limit carries more of the gain than that."""
    leaks = results.leaks
    if not leaks.groups:
        why = leaks.why or "the evaluation measured no group of inputs"
        yield Check(name="share of the gain by inputs", measured=None, why=why)
    for group in leaks.groups:
        if group.limited:
            yield Check(
                name=f"share of the gain that {group.name} carries",
                measured=group.share,
                at_most=settings.leaks.max_share,
                n=leaks.n,
                needs_n=min(settings.min_queries, settings.leaks.queries),
                why=leaks.why,
                more="" if group.share is None else ADVICE[group.kind].format(name=group.name),
            )

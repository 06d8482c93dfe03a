"""What happened since an alert: refits, and live quality then and now."""

from collections.abc import Sequence

from monitoring.store import Refit, RefitState
from refit.alert import Alert
from refit.drift import DriftResult, DriftState

_ENDED = {
    RefitState.REQUESTED: "was asked for and has not begun",
    RefitState.RUNNING: "is under way",
    RefitState.SUCCEEDED: "passed its gate",
    RefitState.REFUSED: "was refused by its gate, the champion stays",
    RefitState.FAILED: "failed, the champion stays",
    RefitState.STOPPED: "was stopped, the champion stays",
}


def describe_since(
    alert: Alert,
    history: Sequence[DriftResult],
    later: Sequence[DriftResult],
    refits: Sequence[Refit],
) -> list[str]:
    """What happened since, one sentence each.

    Args:
        alert: The alert.
        history: Results up to the alert, oldest window first.
        later: Results of live quality after it, whatever towers, oldest window first.
        refits: The refits that followed, oldest first.
    """
    lines = []
    for refit in refits:
        why = f": {refit.outcome}" if refit.outcome else ""
        lines.append(f"The refit of {refit.requested_at:%d %b %H:%M} {_ENDED[refit.state]}{why}.")
    if not refits and alert.outcome:
        lines.append(f"{alert.outcome}.")
    lines += _compare_levels(history, later)
    if not later:
        lines.append("No later window has been measured yet.")
    return lines


_SHOWN = {
    "live:click-rate": ("Click rate", "{:.1%}"),
    "live:purchase-rate": ("Purchase rate", "{:.1%}"),
    "live:revenue-rate": ("Revenue of an answer", "{:.3g}"),
    "live:fallback-share": ("Share of fallback answers", "{:.1%}"),
    "live:other-index-share": ("Share of answers from another index", "{:.1%}"),
}
"""Live quality that is compared, with its name and how a level is written."""


def _compare_levels(history: Sequence[DriftResult], later: Sequence[DriftResult]) -> list[str]:
    """Live quality at the alert and in the newest window, by subject."""
    then = {r.subject: r.level for r in history if r.level is not None}
    now = {r.subject: r for r in later if r.level is not None}
    lines = []
    for subject, (name, form) in _SHOWN.items():
        after = now.get(subject)
        if after is None or after.level is None:
            continue
        text = f"{name}: {form.format(after.level)} in the window of {after.window.start:%d %b}"
        if subject in then:
            text += f", {form.format(then[subject])} at the alert"
        if after.value is not None and after.statistic == "drop":
            text += f", {form.format(after.level + after.value)} expected"
        state = {
            DriftState.OK: "within its bounds",
            DriftState.DRIFT: "still beyond its threshold",
        }.get(after.state, "not judged")
        lines.append(f"{text}; {state}.")
    return lines

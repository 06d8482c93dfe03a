"""The judgement of a test window in the ledger: counted before the gate, kept after it."""

import os
from contextlib import suppress
from pathlib import Path

from components.evaluation.data import EvaluationData
from components.evaluation.gate import apply_gate
from components.evaluation.results import Interval, Results
from components.evaluation.settings import EvaluationSettings
from components.evaluation.towers import read_embedding_version
from components.step import RUN_FOLDER_VARIABLE
from refit.errors import RefitError
from refit.files import fingerprint
from refit.ledger import JudgedWindow, Ledger, describe_window, draft_judgement
from refit.progress import log_message
from refit.subject import VerdictSubject
from refit.verdict import Verdict

POD_VARIABLE = "KFP_POD_NAME"
"""Names a step's pod on a cluster, from which the run can be found."""


def judge(
    settings: EvaluationSettings,
    results: Results,
    data: EvaluationData,
    subject: VerdictSubject,
    registry: str,
    champion: Path | None = None,
) -> tuple[Results, Verdict]:
    """Apply the gate and keep the judgement in the registry's ledger.

    Args:
        settings: The thresholds, and how looks are counted.
        results: The measurements, without looks.
        data: The features folder with the test window.
        subject: What is judged, recorded in the verdict.
        registry: Folder or URL of the registry; with "" no ledger is kept, and looks are not
            counted.
        champion: Bundle folder of the champion it was compared with, if there is one.

    Returns:
        The results with the looks at this window, and the verdict.

    Raises:
        RefitError: The ledger cannot be read or written: a verdict without it would not count.
    """
    if not registry:
        return results, apply_gate(settings, results, subject)
    ledger = Ledger(registry)
    draft = draft_judgement(
        run=Path(os.environ.get(RUN_FOLDER_VARIABLE, "")).name or os.environ.get(POD_VARIABLE, ""),
        window=window_of(data),
        model=results.embedding_version or "unnamed",
        metrics=(settings.metric, settings.guard_metric),
        settings=fingerprint(settings.model_dump(mode="json")),
        champion=_read_version(champion),
    )
    judgement, looks = ledger.begin(draft, settings.looks)
    log_message(f"look {looks.number} at this test window, {100 * looks.level:.4g}% intervals")
    results = results.model_copy(update={"looks": looks})
    verdict = apply_gate(settings, results, subject)
    model = results.methods[0].metrics.get(settings.metric, Interval())
    ledger.finish(
        judgement.model_copy(
            update={
                "result": verdict.outcome,
                "reasons": verdict.reasons,
                "value": model.value,
                "gains": {
                    method.name: method.gain[settings.metric].value
                    for method in results.methods
                    if settings.metric in method.gain
                },
            }
        )
    )
    return results, verdict


def _read_version(champion: Path | None) -> str:
    """The champion's embedding version; "" without one, or where it cannot be read."""
    if champion is None:
        return ""
    with suppress(RefitError):
        return read_embedding_version(champion) or ""
    return ""


def window_of(data: EvaluationData) -> JudgedWindow:
    """The test window of a features folder, with all its queries, judged or left out."""
    rows = data.queries["test"].rows
    return describe_window(
        data.log.user_ids,
        data.catalogue.item_id,
        data.log.user[rows],
        data.log.item[rows],
        data.log.time[rows],
    )

"""Report the outcome of a run."""

from refit.errors import ServiceUnreachable
from refit.progress import log_message
from refit.webhook import post_message


def report_end(pipeline: str, state: str, error: str, webhook: str = "") -> None:
    """Log how a run ended, and post it to ``webhook`` when there is one.

    The webhook gets JSON with a ``text`` field, which chat tools show as a message. A webhook that
    does not answer is logged, and does not change the outcome.

    Args:
        pipeline: Name of the pipeline.
        state: How it ended, as Kubeflow Pipelines names it, such as ``SUCCEEDED``.
        error: The error message; empty when there is none.
        webhook: URL to post to; empty for none.
    """
    text = f"Refit {pipeline}: {state}" + (f" - {error}" if error else "")
    log_message(text)
    if not webhook:
        return
    try:
        post_message(webhook, text, pipeline=pipeline, state=state, error=error)
    except ServiceUnreachable as unreachable:
        log_message(str(unreachable))

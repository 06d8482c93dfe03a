"""Tell people how a run ended."""

import requests

from refit.progress import log_message

TIMEOUT_SECONDS = 10.0


def report_end(pipeline: str, state: str, error: str, webhook: str = "") -> None:
    """Say how a run ended, and post it to ``webhook`` when there is one.

    The webhook gets JSON with a ``text`` field, which chat tools show as a message. A webhook
    that does not answer is said, but does not change how the run ended.
    """
    text = f"Refit {pipeline}: {state}" + (f" - {error}" if error else "")
    log_message(text)
    if not webhook:
        return
    body = {"text": text, "pipeline": pipeline, "state": state, "error": error}
    try:
        requests.post(webhook, json=body, timeout=TIMEOUT_SECONDS).raise_for_status()
    except requests.RequestException as fault:
        log_message(f"the webhook was not reached: {fault}")

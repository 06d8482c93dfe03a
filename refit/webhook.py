"""Post a message to a webhook; chat tools show its field ``text``."""

from typing import Any
from urllib.parse import urlsplit

import requests

from refit.errors import ServiceUnreachable

TIMEOUT_SECONDS = 10.0


def post_message(webhook: str, text: str, **fields: Any) -> None:
    """Post ``text``, and further fields, as JSON.

    Args:
        webhook: The URL. It lets whoever has it post, so that no error repeats it.
        text: The message.
        fields: What programs read.

    Raises:
        ServiceUnreachable: It did not accept the message.
    """
    body = {"text": text, **fields}
    try:
        response = requests.post(webhook, json=body, timeout=TIMEOUT_SECONDS)
        response.raise_for_status()
    except requests.RequestException as error:
        host = urlsplit(webhook).hostname or "an unknown host"
        answer = getattr(error, "response", None)
        why = type(error).__name__ if answer is None else f"it answered {answer.status_code}"
        raise ServiceUnreachable(f"the webhook at {host} was not reached: {why}") from None

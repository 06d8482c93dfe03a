"""Which people get which answers: the holdout, and the buckets of an experiment.

A person is drawn by a hash, so that they are drawn in the same way by every process, for as long as
the salt stays. Requests without a person are in no bucket.
"""

import hashlib

from serving.stage_settings import ExperimentSettings


def draw_person(user_id: str, salt: str) -> float:
    """A number in [0, 1), evenly spread over people; always the same for the same person."""
    digest = hashlib.sha256(f"{salt}:{user_id}".encode()).digest()
    return (int.from_bytes(digest[:8]) >> 11) / 2**53


def is_held_out(user_id: str | None, share: float, salt: str) -> bool:
    """Whether a person gets popularity for comparison; always the same for the same person."""
    return user_id is not None and share > 0 and draw_person(user_id, salt) < share


def find_bucket(settings: ExperimentSettings, user_id: str | None) -> str | None:
    """The bucket that a person is in; None for none."""
    if user_id is None or not settings.buckets:
        return None
    place, end = draw_person(user_id, settings.salt), 0.0
    for name, bucket in settings.buckets.items():
        end += bucket.share
        if place < end:
            return name
    return None

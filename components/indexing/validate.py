"""The gate of a refreshed index: good enough to take the place of the champion's."""

from pathlib import Path

from components.indexing.settings import IndexValidationSettings
from refit.index import IndexManifest
from refit.verdict import Check, Verdict


def validate_index(settings: IndexValidationSettings, index: Path, champion_index: Path) -> Verdict:
    """Judge a refreshed index against the one that serves.

    The towers are the champion's own, which were judged; what can go wrong is the data behind the
    index (stock gone, an older table) and the index itself.

    Args:
        settings: The thresholds.
        index: The refreshed index folder.
        champion_index: The index folder of the bundle that serves.
    """
    new, old = IndexManifest.read(index), IndexManifest.read(champion_index)
    age = (new.as_of - old.as_of).total_seconds() / 3600.0
    return Verdict.of(
        (
            Check(
                name="towers are the champion's (1 = yes)",
                measured=float(new.embedding_version == old.embedding_version),
                at_least=1.0,
            ),
            Check(name="hours newer than the champion's index", measured=age, at_least=0.0),
            Check(name="live listings", measured=float(new.n_live), at_least=1.0),
            Check(
                name="live listings per live listing of the champion",
                measured=new.n_live / old.n_live if old.n_live else None,
                at_least=settings.min_share_of_live,
                why="the champion's index is empty",
            ),
            Check(
                name="index recall@100",
                measured=new.recall_at_100,
                at_least=settings.min_recall_at_100,
                n=new.n_queries,
                needs_n=settings.min_queries,
            ),
            Check(
                name="index p99, ms",
                measured=new.latency_ms.get("p99"),
                at_most=settings.max_p99_ms,
            ),
        )
    )

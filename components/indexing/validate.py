"""The gate of a refreshed index: whether it may replace the champion's."""

from pathlib import Path

from components.indexing.settings import IndexValidationSettings
from refit.bundle import Bundle
from refit.index import IndexManifest
from refit.subject import VerdictSubject
from refit.verdict import Check, Verdict


def validate_index(settings: IndexValidationSettings, index: Path, champion: Bundle) -> Verdict:
    """Check a refreshed index against the champion's.

    The towers are the champion's own, which were evaluated. What can be wrong is the data behind
    the index (missing listings, an older table) and the index itself.

    Args:
        settings: The thresholds.
        index: The refreshed index folder.
        champion: The champion's bundle.
    """
    new, old = IndexManifest.read(index), IndexManifest.read(champion.index)
    age = (new.as_of - old.as_of).total_seconds() / 3600.0
    return Verdict.of(
        (
            Check(
                name="index built with the champion's towers (1 = yes)",
                measured=float(new.embedding_version == old.embedding_version),
                at_least=1.0,
            ),
            Check(name="hours newer than the champion's index", measured=age, at_least=0.0),
            Check(name="live listings", measured=float(new.n_live), at_least=1.0),
            Check(
                name="live listings, as a share of the champion's",
                measured=new.n_live / old.n_live if old.n_live else None,
                at_least=settings.min_share_of_live,
                why="the champion's index has no live listing",
            ),
            Check(
                name="index recall@100",
                measured=new.recall_at_100,
                at_least=settings.min_recall_at_100,
                n=new.n_queries,
                needs_n=settings.min_queries,
            ),
            Check(
                name="index search, 99th percentile in ms",
                measured=new.latency_ms.get("p99"),
                at_most=settings.max_p99_ms,
            ),
        ),
        VerdictSubject.of_folders(champion.path, index, settings),
    )

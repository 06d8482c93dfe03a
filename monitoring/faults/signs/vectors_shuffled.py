"""Listings that have the vectors of others."""

from collections.abc import Iterator

from monitoring.drift_metrics import Advice
from monitoring.faults import Sign, choose_clearest
from monitoring.faults.feed import Feed
from monitoring.faults.vectors import (
    compare_groups,
    compare_pairs,
    find_outliers,
    list_vector_columns,
)

UNIT = "share of known listings with another's vector, or of the categories' differences lost"
RUNBOOK = Advice(
    "Listings carry the vectors of other listings: rows were joined in the wrong order.",
    "Ask the owner of the encoder how vectors are joined to listings, and encode these days again. "
    "Training on them teaches that pictures mean nothing.",
)
TABLES = ("items",)
_LOST = 0.7
_UNLIKE = 0.1
_DEVIATIONS = 5.0


def find(feed: Feed) -> Iterator[Sign]:
    """For each column of vectors, exchanged vectors, then whether categories are still told."""
    for column, length in list_vector_columns(feed):
        signs = []
        for pairs in compare_pairs(feed, column, length):
            share = float(pairs.exchanged.mean())
            detail = (
                f"{share:.0%} of {len(pairs)} known listings have the {column} of another listing "
                f"by {pairs.source}"
            )
            signs.append(Sign(column, share, pairs.limit, detail, None, len(pairs), len(pairs)))
        groups = compare_groups(feed, column, length)
        if groups is not None:
            slope, deviation, size = groups.kept
            outliers = find_outliers(feed, column, length)
            like = outliers is not None and outliers[0] < _UNLIKE
            lost = 1.0 - (slope if like else max(slope, size))
            if _DEVIATIONS * deviation < _LOST:
                detail = (
                    f"{column} of new listings no longer tells categories apart "
                    f"({lost:.0%} of their differences are gone): listings have others' vectors"
                )
                rows = (int(groups.n0.sum()), int(groups.n.sum()))
                signs.append(Sign(column, max(lost, 0.0), _LOST, detail, None, *rows))
        if not signs:
            why = "too few known listings were encoded again, and too few new ones are of known "
            yield Sign(column, why=why + "categories", n_current=len(feed))
            continue
        yield choose_clearest(signs)

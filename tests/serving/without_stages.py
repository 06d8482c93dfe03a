"""Answers as they were before there were stages: what answers by default must stay equal to."""

import numpy as np

from serving.candidates import IndexRows, RequestQuery
from serving.catalogue import top


def answer_without_stages(snapshot, request, query, now):
    """Item ids and scores, best first; by popularity without a query vector."""
    catalogue, fresh, k = snapshot.catalogue, snapshot.stock.fresh, request.k
    view = RequestQuery(catalogue, fresh, request, now)
    found = catalogue.rules.find_eligible(IndexRows(catalogue, snapshot.stock.gone), view)
    eligible = None if found.eligible is None else found.eligible[0]
    newer = catalogue.rules.find_eligible(fresh, view).eligible if len(fresh) else None
    newer = None if newer is None else newer[0]
    if query is None:
        context = catalogue.popularity_context(request.context)
        all_scores = catalogue.popularity.scores(context)
        rows = _best(all_scores, eligible, k)
        scores, fresh_scores = all_scores[rows], np.zeros(len(fresh), np.float32)
    else:
        rows, scores = catalogue.search(query, eligible, k)
        fresh_scores = fresh.score(query)
    pairs = zip(rows, scores, strict=True)
    ranked = [(catalogue.item_ids[row], float(score)) for row, score in pairs]
    return _merge(ranked, fresh, fresh_scores, newer, k)


def _merge(ranked, fresh, fresh_scores, flags, k):
    better = fresh_scores > (ranked[-1][1] if len(ranked) == k else -np.inf)
    if flags is not None:
        better &= flags
    listed = [
        (fresh.listings[i].item_id, float(fresh_scores[i])) for i in _best(fresh_scores, better, k)
    ]
    merged = {}
    for item_id, score in sorted([*ranked, *listed], key=lambda pair: -pair[1]):
        merged.setdefault(item_id, score)
    return list(merged.items())[:k] if listed else ranked


def _best(scores, flags, k):
    if flags is None:
        return top(scores, k)
    best = top(np.where(flags, scores, -np.inf), k)
    return best[flags[best]]

"""What is popular in the request's context; the answer where the query tower gave none."""

import numpy as np

from serving.pool import Found
from serving.retrieval import Search


def retrieve(search: Search) -> Found:
    """Rank by popularity in the context, then overall; nobody has met the newer listings yet.

    A request for an answer that is not personalised is answered by overall popularity: what a
    context says, such as an age, may be about the person.
    """
    catalogue, request = search.catalogue, search.request
    context = catalogue.popularity_context(request.context) if request.personalised else []
    unknown = np.zeros(len(search.pool.fresh), dtype=np.float32)
    return search.pool.best(catalogue.popularity.scores(context), unknown, search.k)

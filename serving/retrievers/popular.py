"""What is popular in the request's context; the answer where the query tower gave none."""

import numpy as np

from serving.pool import Found
from serving.retrieval import Search


def retrieve(search: Search) -> Found:
    """Rank by popularity in the context, then overall.

    A listing that was edited keeps its popularity; nobody has met the newer ones yet.

    A request for an answer that is not personalised is answered by overall popularity: what a
    context says, such as an age, may be about the person.
    """
    catalogue, request = search.catalogue, search.request
    context = catalogue.popularity_context(request.context) if request.personalised else []
    scores, numbers = catalogue.popularity.scores(context), search.pool.fresh.numbers
    edited = numbers < catalogue.n_live
    newer = np.zeros(len(numbers), dtype=np.float32)
    newer[edited] = scores[numbers[edited]]
    return search.pool.best(scores, newer, search.k)

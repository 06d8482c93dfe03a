"""The retrievers, one module each; see ``serving.retrieval.Retriever`` for the protocol.

A module in this package, and any retriever of another package, takes part when
``retrieval.retrievers`` of the recommender names it.
"""

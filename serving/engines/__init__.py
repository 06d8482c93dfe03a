"""Engines on other machines that search the vectors of the live items, and what fills them.

By default each server process searches an index of its own. With ``engine.weaviate`` it asks a
Weaviate cluster; ``python -m serving.engines`` is the one process that writes there.
"""

"""The part of Weaviate's messages that Refit uses, compiled by ``make protocol``."""

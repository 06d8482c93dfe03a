"""The monitoring steps of the pipelines, around the ``monitoring`` package."""

"""The index step: embeds the live listings and builds what serving searches."""

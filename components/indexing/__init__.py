"""The index step: embeds the live listings and builds the index that serving searches."""

"""Wiring: pipelines, settings, the local runner and the command line."""

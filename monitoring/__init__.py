"""Watching what is served: measure drift, decide what it calls for, act on it once."""

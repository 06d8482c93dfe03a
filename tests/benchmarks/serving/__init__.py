"""The doors beside an empty Seldon model: ``python -m tests.benchmarks.serving``."""

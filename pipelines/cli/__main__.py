"""``python -m pipelines.cli`` is ``refit``."""

from pipelines.cli import main

main()

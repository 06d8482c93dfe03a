"""Evidently's reports: what is measured, as its metrics and tests, and its workspace.

Importing Evidently takes seconds: import these modules only where they are used.
"""

import os

# Evidently reports usage over the network unless this is set before it is imported.
os.environ.setdefault("DO_NOT_TRACK", "1")

"""The container images of pipeline steps."""

import os

from refit import __version__

MAIN_IMAGE = os.environ.get("REFIT_MAIN_IMAGE", f"refit/main:{__version__}")
"""Image of pipeline and monitoring steps; the local runner uses the current environment instead."""
MAIN_GPU_IMAGE = os.environ.get("REFIT_MAIN_GPU_IMAGE", f"refit/main-gpu:{__version__}")
"""Image of the steps that get a GPU on a cluster."""

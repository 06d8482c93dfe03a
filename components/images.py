"""The container images that pipeline steps run in; one package of ours in each."""

import os

from refit import __version__

MAIN_IMAGE = os.environ.get("REFIT_MAIN_IMAGE", f"refit/main:{__version__}")
"""Pipeline and monitoring steps; the local runner uses the current environment instead."""

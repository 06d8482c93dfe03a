"""Settings of the deployment step."""

from pydantic import Field

from refit.settings import Settings


class DeploySettings(Settings):
    """How a bundle goes live.

    Attributes:
        by: The name in the audit line.
        keep_bundles: Older bundles are removed, never the champion nor its predecessor.
    """

    by: str = Field(default="pipeline", min_length=1)
    keep_bundles: int = Field(default=20, ge=2)

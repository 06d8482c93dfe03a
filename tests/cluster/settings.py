"""What is decided about the test cluster: where it keeps its state, and its addresses."""

import os
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from refit.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
GO_PROGRAMS = Path(__file__).with_name("go")
MANIFESTS = Path(__file__).with_name("manifests")
CLUSTER_NUMBER = "REFIT_CLUSTER_NUMBER"
"""The variable that says which cluster tests raise."""
LONGEST_FOLDER = 40


def cache_folder() -> Path:
    """Where programs, base images and downloads outlive a cluster."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "refit" / "cluster"


class NodeSettings(Settings):
    """One cluster of one node.

    Attributes:
        number: keeps clusters on one machine apart: addresses, state, control groups.
        parent: the folder that holds the state while the cluster stands.
        ready_seconds: how long any one part may take to become ready.
    """

    number: int = Field(default=0, ge=0, le=9)
    parent: Path = Path("/tmp")
    ready_seconds: float = Field(default=120.0, gt=0)

    @model_validator(mode="after")
    def _short_enough(self) -> Self:
        if len(str(self.folder)) > LONGEST_FOLDER:
            raise ValueError(
                f"{self.folder} is too long for the Unix sockets in it ({LONGEST_FOLDER} at most)"
            )
        return self

    @property
    def name(self) -> str:
        """What the cluster's control groups and folder are called."""
        return f"refit-cluster-{self.number}"

    @property
    def folder(self) -> Path:
        """All state of the cluster; it goes when the cluster does."""
        return self.parent / self.name

    @property
    def interface(self) -> str:
        """The machine's end of the link to the node."""
        return f"refit{self.number}"

    @property
    def machine_ip(self) -> str:
        """The machine, as the node sees it."""
        return f"10.250.{self.number}.1"

    @property
    def node_ip(self) -> str:
        """The node: API server, kubelet, and any program started on it."""
        return f"10.250.{self.number}.2"

    @property
    def pod_range(self) -> str:
        """Addresses of pods; the first /24 is the node's."""
        return f"10.{244 - self.number}.0.0/16"

    @property
    def service_range(self) -> str:
        """Addresses of services."""
        return f"10.{96 + self.number}.0.0/16"

    @property
    def api_ip(self) -> str:
        """The API server's service, as pods see it."""
        return f"10.{96 + self.number}.0.1"

    @property
    def dns_ip(self) -> str:
        """The cluster's DNS service."""
        return f"10.{96 + self.number}.0.10"

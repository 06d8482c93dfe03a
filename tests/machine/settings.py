"""Settings of a test cluster: folders and network addresses."""

import os
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from refit.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
GO_MODULES = Path(__file__).with_name("go")
MANIFESTS = Path(__file__).with_name("manifests")
CLUSTER_NUMBER = "REFIT_CLUSTER_NUMBER"
"""Environment variable with the number of the cluster that tests start."""
LONGEST_FOLDER = 40


def cache_folder() -> Path:
    """The folder of programs, images and environments that are kept between runs."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "refit" / "cluster"


class NodeSettings(Settings):
    """One cluster with one node.

    Attributes:
        number: Distinguishes the clusters on one host: addresses, state, control groups.
        parent: Parent of the folder that contains the state of a running cluster.
        ready_seconds: Timeout for each component to become ready.
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
        """Name of the cluster's control groups and folder."""
        return f"refit-cluster-{self.number}"

    @property
    def folder(self) -> Path:
        """All state of the cluster; removed with the cluster."""
        return self.parent / self.name

    @property
    def interface(self) -> str:
        """Name of the host's interface that is linked to the node."""
        return f"refit{self.number}"

    @property
    def host_ip(self) -> str:
        """The host's address, as seen from the node."""
        return f"10.250.{self.number}.1"

    @property
    def node_ip(self) -> str:
        """The node's address: API server, kubelet, and any program started on the node."""
        return f"10.250.{self.number}.2"

    @property
    def pod_range(self) -> str:
        """Address range of pods; the node's pods use its first /24."""
        return f"10.{244 - self.number}.0.0/16"

    @property
    def service_range(self) -> str:
        """Address range of Services."""
        return f"10.{96 + self.number}.0.0/16"

    @property
    def api_ip(self) -> str:
        """Address of the API server's Service, for pods."""
        return f"10.{96 + self.number}.0.1"

    @property
    def dns_ip(self) -> str:
        """Address of the cluster's DNS Service."""
        return f"10.{96 + self.number}.0.10"

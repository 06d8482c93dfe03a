import pytest
from botocore.exceptions import BotoCoreError

from tests.machine.images import Images
from tests.machine.kubernetes import Cluster
from tests.machine.object_store import ObjectStore
from tests.machine.pods import namespace, pod, run_pod

pytestmark = pytest.mark.cluster
GET_ANONYMOUSLY = """
import os, urllib.error, urllib.request
try:
    urllib.request.urlopen(os.environ["AWS_ENDPOINT_URL"] + "/refit/greeting")
except urllib.error.HTTPError as error:
    print(error.code)
"""


def test_a_written_file_can_be_read(object_store: ObjectStore) -> None:
    files, path = object_store.files(), f"{object_store.bucket}/some/where.txt"
    files.pipe_file(path, b"hello")
    assert files.cat_file(path) == b"hello"
    assert files.ls(f"{object_store.bucket}/some") == [path]


def test_pods_reach_the_store_and_anonymous_requests_are_denied(
    cluster: Cluster, object_store: ObjectStore, images: Images
) -> None:
    object_store.files().pipe_file(f"{object_store.bucket}/greeting", b"hello")
    cluster.apply([namespace("store-tests")])
    manifest = pod("get", "store-tests", images.base(), ["python3", "-c", GET_ANONYMOUSLY])
    manifest["spec"]["containers"][0]["env"] = [
        {"name": name, "value": value} for name, value in object_store.environment().items()
    ]
    assert run_pod(cluster, manifest).strip() == "403"


def test_files_survive_a_stop(object_store: ObjectStore) -> None:
    path = f"{object_store.bucket}/kept"
    object_store.files().pipe_file(path, b"still here")
    object_store.stop()
    try:
        with pytest.raises(BotoCoreError):
            object_store.files().cat_file(path)
    finally:
        object_store.start()
    assert object_store.files().cat_file(path) == b"still here"

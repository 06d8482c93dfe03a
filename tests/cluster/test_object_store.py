import pytest
from botocore.exceptions import BotoCoreError

from tests.cluster.images import Images
from tests.cluster.kubernetes import Cluster
from tests.cluster.object_store import ObjectStore
from tests.cluster.pods import namespace, pod, run_pod

pytestmark = pytest.mark.cluster
ASK = """
import os, urllib.error, urllib.request
try:
    urllib.request.urlopen(os.environ["AWS_ENDPOINT_URL"] + "/refit/greeting")
except urllib.error.HTTPError as error:
    print(error.code)
"""


def test_it_keeps_files(object_store: ObjectStore) -> None:
    files, path = object_store.files(), f"{object_store.bucket}/some/where.txt"
    files.pipe_file(path, b"hello")
    assert files.cat_file(path) == b"hello"
    assert files.ls(f"{object_store.bucket}/some") == [path]


def test_pods_reach_it_and_strangers_are_refused(
    cluster: Cluster, object_store: ObjectStore, images: Images
) -> None:
    object_store.files().pipe_file(f"{object_store.bucket}/greeting", b"hello")
    cluster.apply([namespace("store-tests")])
    asks = pod("ask", "store-tests", images.base(), ["python3", "-c", ASK])
    asks["spec"]["containers"][0]["env"] = [
        {"name": name, "value": value} for name, value in object_store.environment().items()
    ]
    assert run_pod(cluster, asks).strip() == "403"


def test_what_it_holds_outlives_its_absence(object_store: ObjectStore) -> None:
    path = f"{object_store.bucket}/kept"
    object_store.files().pipe_file(path, b"still here")
    object_store.take_away()
    try:
        with pytest.raises(BotoCoreError):
            object_store.files().cat_file(path)
    finally:
        object_store.bring_back()
    assert object_store.files().cat_file(path) == b"still here"

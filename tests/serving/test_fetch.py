import os
import subprocess
import sys
import uuid

import pytest

from refit.errors import RefitError, UsageError
from refit.ports import free_port
from refit.registry import Registry
from serving.fetch import MODELS_CONFIG, fetch, models_config, read_models_config
from serving.processes import Process
from serving.towers import TowerClient, models_of


@pytest.fixture
def remote(tmp_path, bundle, other_bundle):
    """A registry that is no local folder to fsspec; its champion is ``bundle``."""
    url = f"memory://{uuid.uuid4().hex}/registry"
    store = Registry(url, cache=tmp_path / "none")
    store.add(other_bundle)
    store.add(bundle)
    store.promote(bundle.bundle_id, "a test", "it is wanted")
    return url


def test_a_bundle_is_downloaded_with_the_config_of_the_model_server(tmp_path, remote, other_bundle):
    fetched = fetch(remote, other_bundle.bundle_id, tmp_path / "b")
    assert fetched.path == tmp_path / "b" / other_bundle.bundle_id
    models = read_models_config((tmp_path / "b" / MODELS_CONFIG).read_text())
    assert models == models_of(fetched)
    assert all((path / "1" / "saved_model.pb").exists() for path in models.values())


def test_a_second_download_changes_nothing_even_without_the_store(
    tmp_path, remote, bundle, monkeypatch
):
    first = fetch(remote, bundle.bundle_id, tmp_path / "b")
    written = {p: p.stat().st_mtime_ns for p in first.path.rglob("*")}

    def away(*_):
        raise OSError("connection refused")

    monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.cat_file", away)
    again = fetch(remote, bundle.bundle_id, tmp_path / "b")
    assert {p: p.stat().st_mtime_ns for p in again.path.rglob("*")} == written


def test_without_an_id_the_champion_is_downloaded(tmp_path, remote, bundle):
    assert fetch(remote, "", tmp_path / "b").bundle_id == bundle.bundle_id


def test_a_missing_champion_and_an_unknown_bundle_are_errors(tmp_path, bundle):
    Registry(tmp_path / "r").add(bundle)
    with pytest.raises(UsageError, match="no champion"):
        fetch(str(tmp_path / "r"), "", tmp_path / "b")
    with pytest.raises(UsageError, match="no bundle"):
        fetch(str(tmp_path / "r"), "nothing", tmp_path / "b")


def test_a_changed_bundle_is_refused(tmp_path, remote, bundle):
    fetched = fetch(remote, bundle.bundle_id, tmp_path / "b")
    (fetched.path / "index" / "items.parquet").write_text("torn")
    with pytest.raises(RefitError, match=r"items\.parquet does not match its checksum"):
        fetch(remote, bundle.bundle_id, tmp_path / "b")


def test_a_store_that_does_not_answer_is_exit_code_5(tmp_path):
    command = [sys.executable, "-m", "serving.fetch", "--registry", "s3://refit/registry"]
    away = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_MAX_ATTEMPTS": "1",
    }
    done = subprocess.run(
        [*command, "--bundle", "b", "--to", str(tmp_path)],
        env={**os.environ, **away},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 5, done.stderr
    assert "cannot be reached" in done.stderr + done.stdout
    assert not list(tmp_path.iterdir())


def test_an_invalid_config_is_refused():
    assert read_models_config(models_config({})) == {}
    with pytest.raises(UsageError, match="cannot be read"):
        read_models_config("model_config_list { nonsense }")


def test_a_model_server_starts_with_the_towers_of_the_file(tmp_path, remote, bundle):
    fetched = fetch(remote, bundle.bundle_id, tmp_path / "b")
    port = free_port()
    command = [sys.executable, "-m", "serving.model_server", "--port", str(port)]
    command += ["--model_config_file", str(tmp_path / "b" / MODELS_CONFIG)]
    server = Process("model server", command, tmp_path / "server.log")
    try:
        server.wait_until(lambda: "model server listens" in server.output(), 120)
        client = TowerClient(f"127.0.0.1:{port}")
        models = models_of(fetched)
        assert all(client.is_available(name) for name in models)
        client.serve_only(models, 30)  # what the recommender does: nothing is loaded again
        assert server.output().count("serving query_tower") == 1
        client.close()
    finally:
        server.stop()

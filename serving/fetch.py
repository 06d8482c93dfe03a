"""Download one bundle for the containers of a pod: ``python -m serving.fetch``.

An init container runs it before the recommender and TensorFlow Serving start::

    python -m serving.fetch --registry s3://refit/registry --bundle ID --to /bundles

It writes ``/bundles/<ID>``, with every checksum verified, and ``/bundles/models.config``, with both
towers under the names that the recommender uses::

    tensorflow_model_server --port=8500 --model_config_file=/bundles/models.config

The recommender makes the model server load the same towers under the same names and paths. This has
no effect on a server that has loaded them already, and completes one that started without the file.
A bundle that was downloaded before is verified and kept. Exit codes are those of ``refit``; 5 means
that the store does not answer.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from refit.bundle import Bundle
from refit.errors import RefitError, UsageError
from refit.files import write_atomically
from refit.progress import log_message, set_up_logging
from refit.registry import Registry
from serving.towers import models_of

MODELS_CONFIG = "models.config"


def fetch(registry: str, bundle_id: str, folder: Path) -> Bundle:
    """Download a bundle, verified, and write the model server's configuration beside it.

    Args:
        registry: Folder or fsspec URL of the registry.
        bundle_id: The bundle; empty takes the current champion.
        folder: Parent of the downloaded bundle, ``folder/<bundle id>``; a bundle of a local
            registry is not copied.

    Raises:
        ServiceUnreachable: The store does not answer.
        UsageError: There is no such bundle, or no champion.
        RefitError: The bundle is corrupt.
    """
    store = Registry(registry, cache=folder)
    bundle = store.get(bundle_id or store.needed_champion_id())
    with write_atomically(folder / MODELS_CONFIG) as staging:
        staging.write_text(models_config(models_of(bundle)), encoding="utf-8")
    log_message(f"{bundle.bundle_id} is at {bundle.path}")
    return bundle


def models_config(models: Mapping[str, Path]) -> str:
    """TensorFlow Serving's ``ModelServerConfig`` for models by name, as text."""
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    config = model_server_config_pb2.ModelServerConfig()
    for name, path in models.items():
        config.model_config_list.config.add(
            name=name, base_path=str(path), model_platform="tensorflow"
        )
    return str(text_format.MessageToString(config))


def read_models_config(text: str) -> dict[str, Path]:
    """Parse a ``ModelServerConfig``: base paths by model name.

    Raises:
        UsageError: The text is not a ``ModelServerConfig``.
    """
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    try:
        config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    except text_format.ParseError as error:
        raise UsageError(f"the model config file cannot be read: {error}") from None
    return {one.name: Path(one.base_path) for one in config.model_config_list.config}


def main(arguments: list[str] | None = None) -> None:
    """Run the command; a RefitError ends it with its message and exit code."""
    parser = argparse.ArgumentParser(prog="serving.fetch", description=__doc__)
    parser.add_argument("--registry", required=True)
    parser.add_argument("--bundle", default="", help="empty: the champion")
    parser.add_argument("--to", type=Path, required=True)
    options = parser.parse_args(arguments)
    set_up_logging()
    try:
        fetch(options.registry, options.bundle, options.to)
    except RefitError as error:
        log_message(f"error: {error}")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()

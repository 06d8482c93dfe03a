import os
from pathlib import Path

import pytest

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # before anything imports TensorFlow
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests on public data were asked for: say what is missing instead of skipping them."""
    if any(item.get_closest_marker("data") for item in items) and "REFIT_DATA" not in os.environ:
        raise pytest.UsageError(
            "REFIT_DATA is not set: name the folder that holds renttherunway/, online_retail/ ..."
        )


@pytest.fixture(scope="session")
def public_data() -> Path:
    """The folder of public data sets, for tests marked ``data``."""
    folder = Path(os.environ["REFIT_DATA"])
    assert folder.is_dir(), f"REFIT_DATA={folder} is not a folder"
    return folder

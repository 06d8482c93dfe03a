from pathlib import Path

import pytest

from tests.components.encoding import models


@pytest.fixture(scope="session")
def text_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.write_text_encoder(tmp_path_factory.mktemp("encoders") / "text")


@pytest.fixture(scope="session")
def picture_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.write_picture_encoder(tmp_path_factory.mktemp("encoders") / "picture")

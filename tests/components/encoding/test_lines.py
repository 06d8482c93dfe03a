import numpy as np
import pytest

from components.encoding.encode import encode_items
from components.encoding.lines import LineEncoder
from components.encoding.plan import plan_run
from components.encoding.settings import EncodingSettings
from refit.encoding import ENCODER_VERSION
from refit.errors import UsageError
from tests.components.encoding import models
from tests.components.encoding.test_encode import read

ITEMS = [
    {"item_id": "a", "title": "red", "description": "coat", "image_embedding": [3.0, 4.0]},
    {"item_id": "b", "title": None, "description": "blue", "image_embedding": None},
    {"item_id": "c", "title": None, "description": None, "image_embedding": None},
]


@pytest.fixture
def settings(tmp_path, text_encoder, picture_encoder):
    models.write_picture(tmp_path / "pictures" / "a.png", (255, 0, 51))
    text = {"encoder": "onnx_text", "columns": ["title", "description"], "size": 3}
    text |= {"path": str(text_encoder), "options": {"pooling": "mean"}}
    picture = {"encoder": "onnx_picture", "pictures": f"{tmp_path}/pictures/{{item_id}}.png"}
    picture |= {"path": str(picture_encoder)}
    values = {"encoders": [text, picture], "keep": ["image_embedding"], "most_unread": 1.0}
    return EncodingSettings.parse(values)


@pytest.fixture
def encoding(tmp_path, settings):
    dataset = models.write_items(tmp_path / "dataset", ITEMS)
    return encode_items(plan_run(settings, "", ""), dataset, tmp_path / "out").encoding


def test_a_listed_line_gets_the_vector_that_the_step_gives(tmp_path, settings, encoding):
    lines = [{"change": "listed", "at": "2026-01-01T00:00:00Z", **item} for item in ITEMS]
    with LineEncoder(encoding, settings) as encoder:
        done = encoder.encode(lines)
    vectors = read(tmp_path / "out")
    for line, item in zip(done[:2], ITEMS, strict=False):
        assert line["listing_vector"] == pytest.approx(vectors[item["item_id"]], abs=1e-7)
        assert line[ENCODER_VERSION] == encoding.encoder_version
        assert "image_embedding" not in line
        assert line["title"] == item["title"]
    assert np.linalg.norm(done[0]["listing_vector"]) == pytest.approx(np.sqrt(3))
    assert "listing_vector" not in done[2], "there is nothing to encode, and the server refuses it"
    assert ENCODER_VERSION not in done[2]


def test_other_lines_are_encoded_if_they_have_everything(settings, encoding):
    edit = {"item_id": "a", "change": "changed", "title": "blue"}
    whole = {**edit, "description": None, "image_embedding": [1.0, 0.0]}
    sold = {"item_id": "a", "change": "sold"}
    with LineEncoder(encoding, settings) as encoder:
        done = encoder.encode([edit, whole, sold])
    assert done[0] == edit
    assert done[2] == sold
    assert done[1]["listing_vector"] == pytest.approx(
        [0, 1, 0, *(np.array([1, 0, 0.2]) / np.sqrt(1.04)), 1, 0], abs=1e-3
    )


def test_a_kept_vector_of_another_length(settings, encoding):
    with LineEncoder(encoding, settings) as encoder, pytest.raises(UsageError, match="2 numbers"):
        encoder.encode([{"item_id": "a", "change": "listed", "image_embedding": [1.0]}])


def test_encoders_that_are_not_the_bundles(settings, encoding):
    first = encoding.parts[0].model_copy(update={"code": "0"})
    other = encoding.model_copy(update={"parts": (first, *encoding.parts[1:])})
    with (
        pytest.raises(UsageError, match="its code has another version"),
        LineEncoder(other, settings),
    ):
        pass

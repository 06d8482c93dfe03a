import importlib
import shutil
import socket

import numpy as np
import pytest
from PIL import Image

from components.encoding.encoder import encode_checked, finding, pin_encoders
from components.encoding.encoders import ENCODERS
from components.encoding.encoders.onnx_picture import Preparation
from components.encoding.settings import EncoderSettings, EncodingSettings
from refit.errors import RefitError, UsageError
from refit.files import write_json
from tests.components.encoding import models

ON_CPU = EncodingSettings()


def opened(**values):
    with finding(EncoderSettings.parse(values)) as found:
        return found.open(ON_CPU)


def text(folder, **values):
    options = {"pooling": "mean", **values.pop("options", {})}
    return {
        "encoder": "onnx_text",
        "columns": ["title"],
        "path": str(folder),
        "options": options,
    } | values


def test_the_mean_of_a_texts_tokens_without_those_that_fill_up(text_encoder):
    encoder = opened(**text(text_encoder))
    assert encoder.size == 4
    vectors = encoder.encode(["red", "red coat blue blue", "nonsense", "coat coat"])
    assert vectors.tolist() == [[1, 0, 0, 0], [0.25, 0.5, 0.75, 1], [0, 0, 0, 0], [0, 0, 3, 4]]


def test_the_first_token_and_an_output_that_is_one_vector_already(tmp_path, text_encoder):
    first = opened(**text(text_encoder, options={"pooling": "first"}))
    assert first.encode(["blue red", "coat"]).tolist() == [[0, 1, 0, 0], [0, 0, 3, 4]]
    folder = models.write_text_encoder(tmp_path / "pooled", pooled=True)
    whole = opened(**text(folder, options={"pooling": "", "prefix": "coat ", "max_tokens": 3}))
    assert whole.encode(["blue red"]).tolist() == [[0, 0, 3, 4]]
    fixed = opened(**text(text_encoder, options={"pad_to": "max_tokens", "max_tokens": 7}))
    assert fixed.encode(["red"]).tolist() == [[1, 0, 0, 0]]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"pooling": ""}, "set the option pooling to mean or first"),
        ({"output": "text_embeds"}, "no output 'text_embeds'"),
        ({"model": "other.onnx"}, "has no other.onnx; it has model.onnx, tokenizer.json"),
        ({"poling": "mean"}, "did you mean 'pooling'?"),
    ],
)
def test_options_that_do_not_fit_a_model(text_encoder, options, why):
    with pytest.raises(UsageError, match="onnx_text") as raised:
        opened(**text(text_encoder, options=options))
    assert why in str(raised.value)


def test_a_file_that_is_no_model(tmp_path, text_encoder):
    broken = shutil.copytree(text_encoder, tmp_path / "broken")
    (broken / "model.onnx").write_bytes(b"no model")
    with pytest.raises(UsageError, match=r"model\.onnx cannot be loaded"):
        opened(**text(broken))
    with pytest.raises(UsageError, match="is no folder"):
        opened(**text(tmp_path / "nothing"))
    with pytest.raises(UsageError, match="needs path"):
        opened(**text("", options={"pooling": "mean"}))


def test_a_gpu_that_is_not_visible_is_an_error(text_encoder, picture_encoder):
    for values in (
        text(text_encoder, device="gpu"),
        {"encoder": "onnx_picture", "pictures": "/p/{item_id}", "path": str(picture_encoder)}
        | {"device": "gpu"},
        {"encoder": "wordllama", "columns": ["title"], "device": "gpu"},
    ):
        with pytest.raises(UsageError, match="device"):
            opened(**values)


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_provider_that_falls_back_to_the_cpu_is_an_error(text_encoder, monkeypatch):
    """As ONNX Runtime for GPUs does without CUDA: it offers the provider, and leaves it out."""
    import onnxruntime

    offered = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: offered)
    with pytest.raises(UsageError, match="no GPU is visible"):
        opened(**text(text_encoder, device="gpu"))


def test_a_picture_becomes_its_mean_colour(picture_encoder):
    encoder = opened(encoder="onnx_picture", pictures="/p/{item_id}", path=str(picture_encoder))
    pictures = [Image.new("RGB", (5, 9), (255, 0, 51)), Image.new("RGB", (2, 2), (0, 255, 0))]
    assert encoder.encode(pictures) == pytest.approx(np.array([[1, 0, 0.2], [0, 1, 0]]), abs=1e-6)


def test_a_picture_is_scaled_by_its_shorter_edge_and_cut_in_the_middle(tmp_path):
    config = {"size": 2, "do_center_crop": True, "crop_size": 2, "resample": 0}
    config |= {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    write_json(tmp_path / "preprocessor_config.json", config)
    picture = Image.new("RGB", (12, 4), (0, 0, 0))
    picture.paste((255, 255, 255), (4, 0, 8, 4))  # the middle third is white
    pixels = Preparation(tmp_path / "preprocessor_config.json")(picture)
    assert pixels.shape == (3, 2, 2)
    assert pixels.tolist() == np.ones((3, 2, 2)).tolist()


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"size": {"shortest_edge": 2}}, "so that all pictures get one size"),
        ({"size": {"height": 2, "width": 2}, "image_mean": [0, 0]}, "image_mean must be three"),
        ("{", "is not JSON"),
    ],
)
def test_a_preparation_that_cannot_be_done(tmp_path, config, why):
    path = tmp_path / "preprocessor_config.json"
    normal = {"image_mean": [0, 0, 0], "image_std": [1, 1, 1]}
    path.write_text(config) if isinstance(config, str) else write_json(path, normal | config)
    with pytest.raises(UsageError, match=why):
        Preparation(path)


def test_wordllama_gives_what_its_package_gives_and_opens_no_connection(monkeypatch):
    from wordllama import WordLlama

    def refuse(*_: object) -> None:
        raise AssertionError("it opens a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    encoder = opened(encoder="wordllama", columns=["title"])
    texts = ["Acne Studios blue jeans, size M", "", "Kleid für den Sommer — nie getragen", "x" * 40]
    package = importlib.util.find_spec("wordllama").submodule_search_locations[0]
    theirs = WordLlama.load(cache_dir=package, disable_download=True).embed(texts)
    assert encoder.encode(texts) == pytest.approx(theirs, abs=1e-6)
    assert encoder.size == 256
    near = encode_checked(encoder, "x", ["red wool coat", "crimson woollen jacket", "tax return"])
    assert near[0] @ near[1] > near[0] @ near[2] + 0.2


def test_the_checksum_covers_the_files_and_refuses_others(tmp_path, text_encoder):
    folder = shutil.copytree(text_encoder, tmp_path / "encoder")
    settings = EncodingSettings(encoders=(EncoderSettings.parse(text(folder)),))
    pinned = pin_encoders(settings)
    assert len(pinned.encoders[0].checksum) == 64
    assert pin_encoders(pinned) == pinned
    models.write_text_encoder(folder, table=models.VECTORS + 1)
    assert pin_encoders(settings) != pinned
    with pytest.raises(UsageError, match="give the files of that version"):
        pin_encoders(pinned)


def test_files_are_downloaded_from_a_url(text_encoder):
    from_url = text(f"file://{text_encoder}")
    with finding(EncoderSettings.parse(from_url)) as remote:
        assert remote.open(ON_CPU).encode(["red"]).tolist() == [[1, 0, 0, 0]]
        with finding(EncoderSettings.parse(text(text_encoder))) as local:
            assert local.version == remote.version


class Own:
    """An encoder of somebody's own: the number of characters, and 1."""

    READS, CODE, size = "text", "1", 2

    @staticmethod
    def find_files(options, folder):
        from pathlib import Path

        return [Path(__file__)]

    @classmethod
    def open_encoder(cls, options, folder, device, threads):
        return cls()

    def encode(self, contents):
        if "fail" in contents:
            raise KeyError("fail")
        if "long" in contents:
            return np.ones((len(contents), 3))
        if "nan" in contents:
            return np.full((len(contents), 2), np.nan)
        return np.array([[len(each), 1] for each in contents])


def test_an_encoder_of_ones_own_is_found_by_its_dotted_name():
    name = f"{__name__}:Own"
    encoder = opened(encoder=name, columns=["title"])
    unit = encode_checked(encoder, "own", ["abc"])
    assert unit == pytest.approx(np.array([[3, 1]]) / np.sqrt(10))
    for content, why in (("fail", "KeyError"), ("long", "shape"), ("nan", "not finite")):
        with pytest.raises(RefitError, match=f"own.*{why}"):
            encode_checked(encoder, "own", [content])


def test_what_an_encoder_must_have():
    with pytest.raises(UsageError, match="lacks READS, CODE, find_files, open_encoder"):
        ENCODERS.load("refit.files")
    with pytest.raises(UsageError, match="takes no options, got speed"):
        opened(encoder=f"{__name__}:Own", columns=["title"], options={"speed": 1})
    with pytest.raises(UsageError, match="reads texts: give its columns"):
        opened(encoder="wordllama", pictures="/p/{item_id}.jpg")

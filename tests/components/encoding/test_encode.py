import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from components.encoding import encode as module
from components.encoding.encode import encode_items
from components.encoding.plan import EncodingPlan
from components.encoding.settings import EncodingSettings
from refit.encoding import CHAMPION_FOLDER, ITEM_VECTORS, UNREAD_FILE, EncodedItems
from refit.errors import DataValidationError, ServiceUnreachable, UsageError
from tests.components.encoding import models

ITEMS = [
    {"item_id": "a", "title": "red", "description": None},
    {"item_id": "b", "title": " ", "description": ""},
    {"item_id": "c", "title": "blue", "description": "coat"},
    {"item_id": "d", "title": None, "description": "red"},
    {"item_id": "e", "title": "nonsense", "description": None},
]


@pytest.fixture
def dataset(tmp_path):
    return models.write_items(tmp_path / "dataset", ITEMS)


@pytest.fixture
def texts(text_encoder):
    def make(**values):
        encoder = {
            "encoder": "onnx_text",
            "columns": ["title", "description"],
            "path": str(text_encoder),
            "options": {"pooling": "mean"},
        }
        of_step = {name: values.pop(name) for name in list(values) if name in OF_STEP}
        return EncodingSettings.parse({"encoders": [encoder | values], **of_step})

    return make


OF_STEP = set(EncodingSettings.model_fields)


@pytest.fixture
def run(tmp_path, dataset):
    def encode(settings, out="out", store=None, **plan):
        place = str(tmp_path / "store") if store is None else store
        return encode_items(EncodingPlan(settings=settings, **plan), dataset, tmp_path / out, place)

    return encode


def read(folder, column="listing_vector"):
    table = pq.read_table(folder / ITEM_VECTORS)
    return dict(zip(table["item_id"].to_pylist(), table[column].to_pylist(), strict=True))


def test_without_an_encoder_nothing_but_the_record_is_written(tmp_path, run):
    assert run(EncodingSettings()) == EncodedItems() == EncodedItems.read(tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["encoded.json"]
    assert not (tmp_path / "store").exists()


def test_texts_are_joined_and_become_vectors_of_length_one(tmp_path, run, texts):
    record = run(texts())
    vectors = read(tmp_path / "out")
    assert vectors["a"] == [1, 0, 0, 0] == vectors["d"]
    assert vectors["b"] is vectors["e"] is None
    # "blue. coat" is blue, an unknown mark and coat.
    assert vectors["c"] == pytest.approx(np.array([0, 1, 3, 4]) / np.sqrt(26), abs=1e-3)
    (part,) = record.encoding.parts
    assert (part.encoder, part.reads, part.size, part.columns) == (
        *("onnx_text", "text", 4),
        ("title", "description"),
    )
    assert len(part.checksum) == 64
    assert (record.rows, record.encoded) == (5, 3), "red is encoded once"
    shown = {check.name: check.shown for check in record.health}
    assert shown == {
        "items without a text for onnx_text": "1 of 5 (20.0%)",
        "items without a listing_vector": "2 of 5 (40.0%)",
    }


def test_only_new_contents_are_encoded(tmp_path, run, texts, dataset):
    assert run(texts()).encoded == 3
    first = read(tmp_path / "out")
    assert run(texts(), "again").encoded == 0
    assert read(tmp_path / "again") == first, "a vector is the same whenever it was made"
    changed = [{**ITEMS[0], "title": "blue"}, *ITEMS[1:], {"item_id": "f", "title": "coat"}]
    models.write_items(dataset, changed)
    assert run(texts(), "later").encoded == 2
    assert run(texts(columns=["title"]), "titles").encoded == 0, "they are contents of others"


def test_another_encoder_starts_anew_and_another_size_does_not(tmp_path, run, texts):
    whole = run(texts()).encoding
    cut = run(texts(size=3), "cut")
    assert cut.encoded == 0
    assert read(tmp_path / "cut")["c"] == pytest.approx(np.array([0, 1, 3]) / np.sqrt(10), abs=1e-3)
    first = run(texts(options={"pooling": "first"}), "first")
    assert first.encoded == 3
    versions = {whole.encoder_version, cut.encoding.encoder_version, first.encoding.encoder_version}
    assert len(versions) == 3
    with pytest.raises(UsageError, match="cannot be cut to 5"):
        run(texts(size=5), "long")


def test_an_encoder_that_has_moved_is_the_same(tmp_path, run, texts, text_encoder):
    before = run(texts()).encoding
    moved = shutil.copytree(text_encoder, tmp_path / "moved")
    after = run(texts(path=str(moved)), "after")
    assert after.encoded == 0
    assert after.encoding.encoder_version == before.encoder_version


def test_without_a_store_everything_is_encoded_each_time(run, texts):
    assert [run(texts(), store="").encoded for _ in range(2)] == [3, 3]


def test_versions_of_items_have_a_vector_each(tmp_path, run, texts, dataset):
    start = datetime(2026, 1, 1, tzinfo=UTC)
    rows = [
        {"item_id": "a", "valid_from": start, "title": "red", "description": None},
        {"item_id": "a", "valid_from": start + timedelta(days=1), "title": "blue"},
    ]
    models.write_items(dataset, rows, "item_versions")
    run(texts())
    table = pq.read_table(tmp_path / "out" / ITEM_VECTORS)
    assert table.column_names == ["item_id", "valid_from", "listing_vector"]
    assert table["listing_vector"].to_pylist() == [[1, 0, 0, 0], [0, 1, 0, 0]]


@pytest.fixture
def pictures(tmp_path, dataset, picture_encoder):
    """Items with pictures, two of which cannot be read."""
    folder = tmp_path / "pictures"
    for name, colour in (("a", (255, 0, 0)), ("b", (0, 0, 255)), ("c", (0, 255, 0))):
        models.write_picture(folder / f"{name}.png", colour)
    (folder / "d.png").write_text("no picture")
    names = {"a": "a.png", "b": "b.png", "c": "c.png", "d": "d.png", "e": None}
    items = [
        {**item, "picture": names[item["item_id"]], "taken": "1", "image_embedding": [0.0, 2.0]}
        for item in ITEMS
    ]
    items.append({**items[2], "item_id": "f", "title": None, "description": None})
    models.write_items(dataset, [{**items[4], "image_embedding": None}, *items[:4], items[5]])

    def make(encoders=(), **values):
        encoder = {
            "encoder": "onnx_picture",
            "pictures": f"{folder}/{{picture}}",
            "path": str(picture_encoder),
        }
        of_step = {"most_unread": 0.5}
        of_step |= {name: values.pop(name) for name in list(values) if name in OF_STEP}
        return EncodingSettings.parse({"encoders": [*encoders, encoder | values], **of_step})

    make.folder = folder
    make.items = items
    return make


def test_pictures_are_read_and_missing_ones_are_counted_with_their_reason(tmp_path, run, pictures):
    record = run(pictures())
    vectors = read(tmp_path / "out")
    assert vectors["a"] == [1, 0, 0]
    assert vectors["b"] == [0, 0, 1]
    assert vectors["c"] == vectors["f"] == [0, 1, 0]
    assert vectors["d"] is vectors["e"] is None
    assert record.encoded == 3, "c and f show the same picture"
    unread = pq.read_table(tmp_path / "out" / UNREAD_FILE).to_pylist()
    place = f"{pictures.folder}/d.png"
    reason = "it is no picture that can be decoded"
    assert unread == [{"item_id": "d", "picture": place, "reason": reason}]
    shown = {check.name: check.shown for check in record.health}
    assert shown["items without a picture for onnx_picture"] == "1 of 6 (16.7%)"
    assert shown["pictures for onnx_picture that cannot be read"] == f"1 of 5 (20.0%): 1 {reason}"


def test_a_picture_that_could_not_be_read_is_tried_again(tmp_path, run, pictures):
    run(pictures())
    models.write_picture(pictures.folder / "d.png", (255, 0, 0))
    assert run(pictures(), "again").encoded == 1
    assert read(tmp_path / "again")["d"] == [1, 0, 0]


def test_too_many_pictures_that_cannot_be_read_end_the_step(tmp_path, run, pictures):
    with pytest.raises(DataValidationError, match=r"1 of 5 \(20.0%\) of the pictures.*no picture"):
        run(pictures(most_unread=0.1))
    assert not (tmp_path / "out").exists()
    assert run(pictures(), "again").encoded == 0, "what was encoded was kept"


def test_a_store_of_pictures_that_is_away_ends_the_step_soon(run, pictures, monkeypatch):
    monkeypatch.setattr(module, "TRIED_PICTURES", 2)
    monkeypatch.setattr(module, "FEW_PICTURES", 1)
    with pytest.raises(ServiceUnreachable, match=r"does not answer for 2 of 2 .*127\.0\.0\.1:1/"):
        run(pictures(pictures="http://127.0.0.1:1/{item_id}.png"))


def test_a_picture_that_changes_at_the_same_place(tmp_path, run, pictures, dataset):
    settings = pictures(changes_with="taken")
    assert run(settings).encoded == 3
    models.write_picture(pictures.folder / "a.png", (0, 255, 0))
    assert run(settings, "same").encoded == 0
    items = [{**item, "taken": "2"} if item["item_id"] == "a" else item for item in pictures.items]
    models.write_items(dataset, items)
    assert run(settings, "changed").encoded == 1
    assert read(tmp_path / "changed")["a"] == [0, 1, 0]


def test_texts_pictures_and_kept_vectors_are_one_column(tmp_path, run, pictures, texts):
    settings = pictures(texts().encoders, keep=["image_embedding"], column="looks", size=2)
    record = run(settings)
    vectors = read(tmp_path / "out", "looks")
    assert vectors["a"] == [1, 0, 0, 0, 1, 0, 0, 1]
    assert vectors["f"] == [0, 0, 0, 0, 0, 1, 0, 1], "nothing is known of its text"
    assert vectors["e"] is None
    assert record.encoding.size == 8
    assert [part.encoder for part in record.encoding.parts] == [
        *("onnx_text", "onnx_picture", "image_embedding")
    ]
    assert str(record.encoding).startswith("onnx_text (4) + onnx_picture (2) + image_embedding (2)")


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"columns": ["titel"]}, r"encoding.encoders.0: the items have no column 'titel'"),
        ({"keep": ["image"]}, r"encoding.keep: the items have no column 'image'"),
        ({"column": "title"}, "have a column 'title' already"),
    ],
)
def test_columns_that_are_not_as_they_are_named(run, texts, values, why):
    with pytest.raises(UsageError, match=why):
        run(texts(**values))


def test_kept_vectors_need_one_length(run, texts, dataset):
    models.write_items(dataset, [{**ITEMS[0], "v": [1.0]}, {**ITEMS[1], "v": [1.0, 2.0]}])
    with pytest.raises(DataValidationError, match=r"must have one length, found \[1, 2\]"):
        run(texts(keep=["v"]))
    models.write_items(dataset, [{**ITEMS[0], "v": "text"}])
    with pytest.raises(DataValidationError, match="holds no vectors, but string"):
        run(texts(keep=["v"]))


def test_a_folder_of_something_else_is_not_replaced(tmp_path, run, texts):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with pytest.raises(UsageError, match="does not contain encoded items"):
        run(texts())


def test_the_champions_vectors_are_written_too_where_its_encoders_are_others(tmp_path, run, texts):
    theirs = run(texts(columns=["title"])).encoding
    same = run(texts(columns=["title"]), "same", champion=theirs)
    assert not (tmp_path / "same" / CHAMPION_FOLDER).exists()
    record = run(texts(), "other", champion=theirs)
    own = tmp_path / "other" / CHAMPION_FOLDER
    assert EncodedItems.read(own).encoding == theirs == same.encoding
    assert read(own)["d"] is None
    assert record.encoding != theirs
    assert read(tmp_path / "other")["d"] == [1, 0, 0, 0]
    run(EncodingSettings(), "none", champion=theirs)
    assert read(tmp_path / "none" / CHAMPION_FOLDER)["a"] == [1, 0, 0, 0]


def test_champions_encoders_that_are_gone_are_a_problem_and_no_error(tmp_path, run, texts):
    moved = shutil.copytree(texts().encoders[0].path, tmp_path / "moved")
    theirs = run(texts(path=str(moved), columns=["title"])).encoding
    shutil.rmtree(moved)
    run(texts(), "other", champion=theirs)
    record = EncodedItems.read(tmp_path / "other" / CHAMPION_FOLDER)
    assert "is no folder" in record.problem
    assert record.encoding == theirs


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from components.encoding import encode
    from components.encoding.plan import EncodingPlan

    encode.SAVED_ROWS = 2
    class Killing(encode._Saving):
        def add(self, positions):
            super().add(positions)
            if not self._waiting:
                os.kill(os.getpid(), signal.SIGKILL)
    encode._Saving = Killing
    plan = EncodingPlan.parse_json(sys.argv[1])
    encode.encode_items(plan, Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
"""


def test_a_killed_run_resumes(tmp_path, run, texts, dataset):
    settings = texts(batch_size=1)
    plan = EncodingPlan(settings=settings).to_json()
    places = [str(dataset), str(tmp_path / "out"), str(tmp_path / "store")]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), plan, *places],
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    assert run(settings).encoded == 1
    assert json.loads((tmp_path / "out" / "encoded.json").read_text())["rows"] == 5

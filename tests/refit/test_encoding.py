import pytest

from refit.encoding import EncodedPart, ItemEncoding, differ
from refit.features import FeaturesManifest, FeatureSpec

PART = EncodedPart(
    encoder="onnx_text",
    reads="text",
    size=4,
    checksum="a" * 64,
    code="1",
    columns=("title",),
    settings={"path": "/here", "batch_size": 8, "options": {"pooling": "mean"}},
)


def encoding(**changes: object) -> ItemEncoding:
    return ItemEncoding(column="listing_vector", parts=(PART.model_copy(update=changes),))


@pytest.mark.parametrize(
    "changes",
    [
        {"encoder": "other"},
        {"size": 3},
        {"checksum": "b" * 64},
        {"code": "2"},
        {"columns": ("description",)},
        {"settings": {"options": {"pooling": "first"}}},
    ],
)
def test_what_shapes_the_vectors_is_another_version(changes):
    assert encoding(**changes).encoder_version != encoding().encoder_version
    assert differ(encoding(**changes), encoding())


def test_where_things_are_is_no_other_version():
    moved = encoding(settings={"path": "/there", "options": {"pooling": "mean"}})
    assert not differ(moved, encoding())
    renamed = encoding().model_copy(update={"column": "looks"})
    assert not differ(renamed, encoding())


def test_the_order_of_parts_is_part_of_the_version():
    one, other = PART, PART.model_copy(update={"encoder": "other", "size": 2})
    both = ItemEncoding(column="v", parts=(one, other))
    assert both.size == 6
    assert differ(both, ItemEncoding(column="v", parts=(other, one)))
    assert str(both) == f"onnx_text (4) + other (2), version {both.encoder_version}"


def test_none_and_none_are_the_same_and_none_and_some_are_not():
    assert not differ(None, None)
    assert differ(None, encoding())
    assert differ(encoding(), None)


def test_a_manifest_keeps_it(tmp_path):
    manifest = FeaturesManifest(
        spec=FeatureSpec(), popularity_values={}, vector_size=4, encoding=encoding()
    )
    manifest.write(tmp_path)
    assert FeaturesManifest.read(tmp_path).encoding == encoding()

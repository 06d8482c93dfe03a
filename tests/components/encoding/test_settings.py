import pytest

from components.encoding.settings import EncoderSettings, EncodingSettings
from refit.errors import UsageError

TEXT = {"encoder": "wordllama", "columns": ["title"]}
PICTURE = {"encoder": "onnx_picture", "path": "models/clip"}


@pytest.mark.parametrize(
    ("encoder", "why"),
    [
        ({"encoder": "wordlama", "columns": ["title"]}, "did you mean 'wordllama'?"),
        ({"encoder": "wordllama"}, "give either columns, for texts, or pictures"),
        ({**TEXT, "pictures": "/p/{item_id}"}, "give either columns, for texts, or pictures"),
        ({**TEXT, "roots": ["/p"]}, "roots and changes_with are for pictures"),
        ({**TEXT, "size": 0}, "greater than 0"),
        ({**TEXT, "checksum": "abc"}, "should match pattern|must match pattern"),
        ({**PICTURE, "pictures": "/p/a.jpg"}, "names no item column"),
        ({**PICTURE, "pictures": "/p/{item_id.__class__}"}, "the name of an item column only"),
        ({**PICTURE, "pictures": "/p/{item_id!r}"}, "the name of an item column only"),
        ({**PICTURE, "pictures": "/p/{item_id"}, "expected '}'"),
        ({**PICTURE, "pictures": "{picture_url}"}, "name the folders or URLs below which"),
        ({**TEXT, "colums": ["x"]}, "did you mean 'columns'?"),
    ],
)
def test_a_mistake_is_an_error_that_says_what_to_write(encoder, why):
    with pytest.raises(UsageError, match=r"encoders\.0") as raised:
        EncodingSettings.parse({"encoders": [encoder]})
    assert any(each in str(raised.value) for each in why.split("|"))


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"keep": ["image_embedding"]}, "name the column in features.spec.item_vector instead"),
        ({"encoders": [TEXT], "keep": ["x"], "column": "x"}, "'x' is kept as it is"),
        ({"most_unread": 1.5}, "less than or equal to 1"),
        ({"fetch_seconds": float("inf")}, "finite"),
    ],
)
def test_mistakes_of_the_step(values, why):
    with pytest.raises(UsageError) as raised:
        EncodingSettings.parse(values)
    assert why in str(raised.value)


def test_the_roots_of_pictures_are_what_stands_before_the_first_brace():
    def roots(**values):
        return EncoderSettings.parse({**PICTURE, **values}).picture_roots

    assert roots(pictures="https://img.acme.com/p/x{item_id}.jpg") == ("https://img.acme.com/p/",)
    assert roots(pictures="{url}", roots=["https://a/", "s3://b"]) == ("https://a/", "s3://b")


def test_what_an_encoder_reads():
    settings = EncoderSettings.parse(
        {**PICTURE, "pictures": "/p/{seller_id}/{item_id}-{item_id}.jpg", "changes_with": "taken"}
    )
    assert settings.read_columns == ("seller_id", "item_id", "taken")
    assert EncoderSettings.parse(TEXT).read_columns == ("title",)

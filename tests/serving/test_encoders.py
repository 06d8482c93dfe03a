"""A vector of the stock feed is read by the bundle whose encoders made it, and by no other."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from refit.encoding import ENCODER_VERSION, EncodedPart, ItemEncoding
from refit.errors import RefitError
from serving.catalogue import Catalogue
from serving.feeds.stock import StockChange
from serving.listings import ListingReader
from tests.serving import tiny
from tests.serving.tiny import LATER, NEW, every_item

ENCODING = ItemEncoding(
    column="image_embedding",
    parts=(EncodedPart(encoder="wordllama", reads="text", size=3, checksum="a" * 64),),
)
VERSION = ENCODING.encoder_version


@pytest.fixture(scope="module")
def encoded_bundle(root: Path, model: Path):
    """A bundle that names the encoders of its vectors."""
    copy = shutil.copytree(model, root / "encoded-model")
    tiny.FEATURES.model_copy(update={"encoding": ENCODING}).write(copy)
    return tiny.make_bundle(root / "encoded", copy)


@pytest.fixture(scope="module")
def reader(encoded_bundle) -> ListingReader:
    return ListingReader(Catalogue(encoded_bundle))


def line(**values: object) -> StockChange:
    return StockChange.model_validate_json(json.dumps(NEW | values))


def test_a_vector_of_the_bundles_encoders_is_read(reader):
    told = reader.read(line(**{ENCODER_VERSION: VERSION}))
    assert np.frombuffer(told["image_embedding"], np.float32) == pytest.approx([0.1, 0.2, 0.3])
    assert ENCODER_VERSION not in told


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({}, f"without {ENCODER_VERSION}"),
        ({ENCODER_VERSION: None}, f"without {ENCODER_VERSION}"),
        ({ENCODER_VERSION: "0" * 16}, f"{ENCODER_VERSION} '{'0' * 16}'"),
        ({ENCODER_VERSION: 7}, f"{ENCODER_VERSION} 7"),
        ({ENCODER_VERSION: VERSION, "image_embedding": [0, 0, 0]}, "zeros"),
    ],
)
def test_any_other_vector_is_refused(reader, values, why):
    with pytest.raises(ValueError, match="image_embedding: ") as refused:
        reader.read(line(**values))
    assert why in str(refused.value)
    if why != "zeros":
        assert f"wordllama (3), version {VERSION}; encode the listing" in str(refused.value)


def test_a_line_without_a_vector_needs_no_encoder(reader):
    values = {"item_id": "item-1", "change": "changed", "at": LATER, "price": 5.0}
    assert reader.read(StockChange.model_validate_json(json.dumps(values))) == {"price": 5.0}


def test_a_bundle_that_names_no_encoder_reads_what_comes(bundle):
    plain = ListingReader(Catalogue(bundle))
    assert "image_embedding" in plain.read(line(**{ENCODER_VERSION: VERSION}))


def test_a_server_puts_such_listings_on_sale_and_sets_others_aside(
    tmp_path, registry, encoded_bundle, serve, until
):
    tiny.promote(registry, encoded_bundle)
    recommender = serve()
    good = {**NEW, ENCODER_VERSION: VERSION}
    bad = {**NEW, "item_id": "new-2", ENCODER_VERSION: "0" * 16}
    lines = "".join(json.dumps(each) + "\n" for each in (bad, good))
    (tmp_path / "stock" / "feed.jsonl").write_text(lines)
    until(lambda: "new-1" in every_item(recommender))
    assert "new-2" not in every_item(recommender)
    assert recommender.counters.total("refit_stock_dead_letters") == 1


def test_a_bundle_with_other_encoders_than_the_feed_is_refused(
    tmp_path, registry, bundle, encoded_bundle, serve, until
):
    tiny.promote(registry, encoded_bundle)
    feeds = {"stock": str(tmp_path / "stock"), "encoder_version": VERSION}
    recommender = serve(feeds=feeds)
    assert recommender.snapshot.bundle_id == encoded_bundle.bundle_id
    tiny.promote(registry, bundle)
    until(lambda: recommender.counters.total("refit_bundles_refused"))
    assert recommender.snapshot.bundle_id == encoded_bundle.bundle_id
    with pytest.raises(RefitError, match="item vectors of no encoder"):
        serve(feeds=feeds)

import shutil

import pytest

from components.encoding.encode import encode_items
from components.encoding.plan import EncodingPlan, encoders_of, plan_run
from components.encoding.settings import EncodingSettings
from refit.errors import UsageError
from refit.features import FeaturesManifest, FeatureSpec
from tests.components.encoding import models


def settings_of(folder, **values):
    encoder = {"encoder": "onnx_text", "columns": ["title"], "path": str(folder)}
    return EncodingSettings.parse(
        {"encoders": [encoder | {"options": {"pooling": "mean"}} | values]}
    )


@pytest.fixture
def dataset(tmp_path):
    return models.write_items(tmp_path / "dataset", [{"item_id": "a", "title": "red"}])


@pytest.fixture
def encoding(tmp_path, dataset, text_encoder):
    """That of a bundle which was built with a copy of the encoder."""
    copy = shutil.copytree(text_encoder, tmp_path / "encoder")
    return encode_items(plan_run(settings_of(copy), "", ""), dataset, tmp_path / "out").encoding


@pytest.fixture
def registry(tmp_path, encoding):
    """A registry with two bundles, as far as a plan reads them."""
    for name, made_by in (("b1", encoding), ("plain", None)):
        folder = tmp_path / "registry" / "bundles" / name
        folder.mkdir(parents=True)
        manifest = FeaturesManifest(
            spec=FeatureSpec(), popularity_values={}, vector_size=4, encoding=made_by
        )
        manifest.write(folder)
    return str(tmp_path / "registry")


def test_a_training_uses_the_settings_and_knows_the_champions_encoders(
    registry, encoding, text_encoder
):
    settings = settings_of(text_encoder, size=2)
    plan = plan_run(settings, registry, "b1")
    assert plan.like is None
    assert plan.champion == encoding
    assert plan.settings.encoders[0].checksum == encoding.parts[0].checksum
    assert EncodingPlan.parse_json(plan.to_json()) == plan
    assert plan_run(settings, registry, "").champion is None
    assert plan_run(EncodingSettings(), registry, "plain") == EncodingPlan()


def test_a_refresh_uses_the_champions_encoders_whatever_the_settings_say(
    tmp_path, registry, encoding, dataset
):
    plan = plan_run(EncodingSettings(threads=3), registry, "b1", keeps_towers=True)
    assert plan.like == encoding
    assert plan.settings.threads == 3
    assert encode_items(plan, dataset, tmp_path / "again").encoding == encoding
    none = plan_run(settings_of(tmp_path / "encoder"), registry, "plain", keeps_towers=True)
    assert none.settings.encoders == ()


def test_a_refresh_finds_encoders_that_have_moved(tmp_path, registry, encoding, text_encoder):
    shutil.rmtree(tmp_path / "encoder")
    plan = plan_run(settings_of(text_encoder), registry, "b1", keeps_towers=True)
    assert plan.settings.encoders[0].path == str(text_encoder)
    assert plan.settings.encoders[0].checksum == encoding.parts[0].checksum


def test_a_refresh_refuses_other_files_in_their_place(tmp_path, registry, dataset):
    models.write_text_encoder(tmp_path / "encoder", table=models.VECTORS + 1)
    plan = plan_run(EncodingSettings(), registry, "b1", keeps_towers=True)
    with pytest.raises(UsageError, match="give the files of that version"):
        encode_items(plan, dataset, tmp_path / "again")


def test_a_refresh_refuses_vectors_of_another_version(tmp_path, encoding, dataset):
    """As when the code of an encoder has changed since."""
    older = encoding.parts[0].model_copy(update={"code": "0"})
    like = encoding.model_copy(update={"parts": (older,)})
    plan = EncodingPlan(settings=encoders_of(like, EncodingSettings()), like=like)
    with pytest.raises(UsageError, match="not those that the model was trained with"):
        encode_items(plan, dataset, tmp_path / "again")


def test_a_bundle_that_does_not_exist(registry):
    with pytest.raises(UsageError, match="no bundle 'b9'"):
        plan_run(EncodingSettings(), registry, "b9")


def test_two_encoders_of_one_name_keep_their_own_files(tmp_path, dataset, text_encoder):
    other = models.write_text_encoder(tmp_path / "other", table=models.VECTORS + 1)
    both = EncodingSettings.parse(
        {
            "encoders": [
                settings_of(folder).encoders[0].model_dump() for folder in (text_encoder, other)
            ]
        }
    )
    made = encode_items(plan_run(both, "", ""), dataset, tmp_path / "both").encoding
    again = encoders_of(made, both)
    assert [each.path for each in again.encoders] == [str(text_encoder), str(other)]
    plan = EncodingPlan(settings=again, like=made)
    assert encode_items(plan, dataset, tmp_path / "again").encoding == made

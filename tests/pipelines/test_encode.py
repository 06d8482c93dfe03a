"""refit encode, and what of the encoding goes to a run."""

import io
import json
from pathlib import Path

import pytest

from components.encoding.encode import encode_items
from components.encoding.plan import EncodingPlan, plan_run
from pipelines.arguments import continuous_training_arguments, index_refresh_arguments
from pipelines.cluster.settings import ClusterSettings
from pipelines.cluster.submit import Submission, _arguments
from pipelines.home import Home
from pipelines.settings import read_settings
from refit.encoding import ENCODER_VERSION
from refit.features import FeaturesManifest, FeatureSpec
from refit.files import write_json
from tests.components.encoding.models import write_items

CONFIG = Path(__file__).parent / "configs" / "valid" / "least.yaml"
ENCODED = (
    "encoding.encoders=[{encoder: wordllama, columns: [title]}]",
    "features.spec.item_vector=listing_vector",
)
NEW = {"item_id": "m1", "change": "listed", "at": "2026-05-01T10:00:00Z", "title": "wool coat"}
SOLD = {"item_id": "m2", "change": "sold", "at": "2026-05-01T10:00:00Z"}


@pytest.fixture(scope="module")
def encoding(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoding")
    dataset = write_items(folder / "dataset", [{"item_id": "a", "title": "wool coat"}])
    plan = plan_run(read_settings(str(CONFIG), ENCODED).encoding, "", "")
    return encode_items(plan, dataset, folder / "out").encoding


@pytest.fixture
def home(tmp_path, encoding):
    """A home whose champion was built with the encoder, as far as these commands read it."""
    home = Home.at(tmp_path / "home")
    promotion = {"number": 1, "action": "promote", "bundle_id": "b1", "previous": None}
    promotion |= {"at": "2024-05-01T00:00:00Z", "by": "a test", "reason": "x", "forced": False}
    write_json(Path(home.registry) / "champion.json", promotion)
    for bundle_id, made_by in (("b1", encoding), ("plain", None)):
        folder = Path(home.registry) / "bundles" / bundle_id
        folder.mkdir(parents=True)
        spec = FeatureSpec(item_vector="listing_vector")
        FeaturesManifest(spec=spec, popularity_values={}, vector_size=256, encoding=made_by).write(
            folder
        )
    return home


@pytest.fixture
def encode(home, monkeypatch, capsys):
    from pipelines.cli.encode import encode

    def run(*lines: object, file: Path | None = None, **options: object) -> list[dict]:
        monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(map(str, lines)) + "\n"))
        encode(file=file, config=str(CONFIG), home=home.folder, **options)
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run


def test_lines_get_the_vectors_of_the_champions_encoders(encode, encoding, tmp_path):
    lines = [json.dumps(NEW), "", json.dumps(SOLD)]
    new, sold = encode(*lines)
    assert len(new["listing_vector"]) == 256
    assert new[ENCODER_VERSION] == encoding.encoder_version
    assert {name: new[name] for name in NEW} == NEW
    assert sold == SOLD
    (tmp_path / "new.jsonl").write_text("\n".join(lines))
    assert encode(file=tmp_path / "new.jsonl") == [new, sold]


def test_lines_that_cannot_be_encoded(encode, tmp_path):
    from refit.errors import DataValidationError, UsageError

    for line, why in (("{", "line 2 is not JSON"), ("[]", "line 2 is no JSON object")):
        with pytest.raises(DataValidationError, match=why):
            encode(json.dumps(SOLD), line)
    with pytest.raises(UsageError, match="bundle plain names no encoder"):
        encode(json.dumps(NEW), bundle="plain")
    with pytest.raises(UsageError, match="no bundle 'b9'"):
        encode(json.dumps(NEW), bundle="b9")
    with pytest.raises(UsageError, match="cannot be read"):
        encode(file=tmp_path / "nothing.jsonl")


def test_a_run_gets_a_plan_and_the_place_of_the_vectors(home, encoding):
    settings = read_settings("simulated", ["encoding={}"])
    given = continuous_training_arguments(settings, home)
    assert EncodingPlan.parse_json(given["encoding"]) == EncodingPlan(champion=encoding)
    assert given["vector_store"] == str(home.vectors)
    refresh = EncodingPlan.parse_json(index_refresh_arguments(settings, home)["encoding"])
    assert refresh.like == encoding
    assert refresh.settings.encoders[0].checksum == encoding.parts[0].checksum


@pytest.mark.parametrize("pipeline", ["continuous_training", "index_refresh", "backtest"])
def test_on_a_cluster_the_run_makes_the_plan(pipeline):
    cluster = ClusterSettings(registry="s3://refit/registry", vectors="s3://refit/vectors")
    settings = read_settings(str(CONFIG), ENCODED)
    given = _arguments(cluster, Submission(pipeline, settings))
    assert EncodingPlan.parse_json(given["encoding"]) == EncodingPlan(settings=settings.encoding)
    assert given["vector_store"] == "s3://refit/vectors"

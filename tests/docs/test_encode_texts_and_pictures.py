"""The page "Encode texts and pictures": its configs are valid, and its encoder encodes."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from components.encoding.encode import encode_items
from components.encoding.plan import plan_run
from components.encoding.settings import EncodingSettings
from pipelines.cluster.settings import ClusterSettings
from pipelines.settings import RunSettings
from refit.encoding import ITEM_VECTORS
from tests.components.encoding.models import write_items
from tests.docs.pages import read_blocks, write_files

PAGE = "how-to/encode-texts-and-pictures.md"
CONFIGS = [yaml.safe_load(block.text) for block in read_blocks(PAGE) if block.language == "yaml"]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: str(config)[:60])
def test_every_config_of_the_page_is_valid(config):
    if "gpu" in config:
        assert ClusterSettings.parse({"registry": "s3://r", **config}).gpu.count == 1
        return
    settings = EncodingSettings.parse(config["encoding"])
    ingestion = {"source": "files", "validation_days": 1, "test_days": 1}
    features = {"spec": {"item_vector": settings.column}}
    RunSettings.parse({"ingestion": ingestion, "features": features, **config})


def test_the_encoder_of_the_page_encodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_files(PAGE, tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    rows = [{"item_id": name, "title": name} for name in ("wool coat", "a woollen coat", "jeans")]
    settings = EncodingSettings.parse(CONFIGS[-1]["encoding"])
    dataset = write_items(tmp_path / "dataset", rows)
    encode_items(plan_run(settings, "", ""), dataset, tmp_path / "out")
    table = pq.read_table(tmp_path / "out" / ITEM_VECTORS)
    coat, woollen, jeans = table["listing_vector"].to_numpy()
    assert coat @ woollen > 0.4
    assert coat @ jeans < 0.1

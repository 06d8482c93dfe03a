"""The page "Use a GPU": its two files are valid, and agree."""

import yaml

from pipelines.cluster.devices import TRAINS, check_devices
from pipelines.cluster.settings import ClusterSettings
from pipelines.settings import read_settings
from tests.docs.pages import read_blocks

PAGE = "how-to/use-a-gpu.md"
FILES = {each.title: yaml.safe_load(each.text) for each in read_blocks(PAGE) if each.title}


def test_the_files_of_the_page_agree():
    cluster = ClusterSettings.parse({"registry": "s3://r", **FILES["my-cluster.yaml"]})
    (change,) = FILES["my.yaml"]["training"].items()
    settings = read_settings("simulated", [f"training.{change[0]}={change[1]}"])
    assert settings.training.device == "gpu"
    for pipeline, step in TRAINS.items():
        check_devices(pipeline, settings, cluster)
        assert cluster.image_of(step) == "registry.example.org/refit/main-gpu:0.1.0"
        assert cluster.image_of("gate") == "registry.example.org/refit/main:0.1.0"

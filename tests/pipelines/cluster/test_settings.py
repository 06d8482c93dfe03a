import pytest
import yaml

from pipelines.cluster.cron import check_cron
from pipelines.cluster.settings import EXAMPLE, ClusterSettings, read_cluster
from refit.errors import UsageError

LEAST = {"registry": "s3://refit/registry"}


def test_the_example_teaches_every_setting():
    assert set(yaml.safe_load(EXAMPLE.read_text("utf-8"))) == set(ClusterSettings.model_fields)
    read_cluster(EXAMPLE)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "registry"),
        ({"registy": "x"}, "did you mean 'registry'?"),
        ({"resources": {"train": {"cpu": "1"}}}, "no step train; steps: find_start"),
        ({"volumes": [{"claim": "c", "path": "/x", "steps": ["watch"]}]}, "no step watch"),
        ({"checkpoints": "/lost"}, "on no claim of volumes"),
        ({"alert_store": "postgresql+psycopg://refit:hush@db/refit"}, "PGPASSWORD"),
        ({"alert_store": "postgresql+psycopg://refit:hush@db:x/refit"}, "cannot be read"),
        ({"alert_store": "/var/alerts.sqlite"}, "with monitoring"),
        ({"backend": "1.8"}, "2.17"),
        ({"backend": "2.0", "tolerations": [{"key": "k"}]}, "cannot obey tolerations"),
        ({"backend": "2.0", "retries": {"times": 1}}, "cannot obey retries.times"),
    ],
)
def test_what_is_off_is_told(values, words, tmp_path):
    file = tmp_path / "cluster.yaml"
    file.write_text(yaml.safe_dump(({} if values == {} else LEAST) | values))
    with pytest.raises(UsageError, match=words.replace("?", r"\?")) as refused:
        read_cluster(file)
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize(
    "cron",
    ["0 0 3 * * *", "*/10 * * * * ?", "0 0,30 8-18/2 1 jan-MAR mon-fri", "0  0 0 1 1 *"],
)
def test_crons(cron):
    assert check_cron(cron) == " ".join(cron.split())


@pytest.mark.parametrize(
    ("cron", "words"),
    [
        ("", "six fields"),
        ("0 3 * * *", 'did you mean "0 0 3'),
        ("60 0 0 * * *", "second: '60' is not within 0 to 59"),
        ("0 0 24 * * *", "hour: '24'"),
        ("0 0 0 0 * *", "day of month: '0'"),
        ("0 0 0 * 13 *", "month: '13'"),
        ("0 0 0 * * 7", "day of week: '7' is not within 0 to 6"),
        ("0 0 0 * * monday", "or sun to sat"),
        ("0 */0 * * * *", "step that is no positive number"),
        ("0 5-1 * * * *", "no range from low to high"),
        ("? 0 0 * * *", "second: '[?]' is none of"),
        ("0 0 -1 * * *", "hour: '-1'"),
        ("@daily", "six fields"),
    ],
)
def test_no_crons(cron, words):
    with pytest.raises(UsageError, match=words):
        check_cron(cron)

import pytest
import yaml

from pipelines.cluster.cron import check_cron
from pipelines.cluster.settings import EXAMPLE, ClusterSettings, read_cluster
from refit.errors import UsageError

LEAST = {"registry": "s3://refit/registry"}


def test_the_example_shows_every_setting():
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
        (
            {"backend": 2.17},
            'read the number 2.17; write "2.17" in quotes',
        ),
        (
            {"resources": {"gate": {"cpu": 4}}},
            "resources.gate.cpu: expected text, read the number 4",
        ),
        ({"resources": {"gate": {"memory": "8GB"}}}, "must be a quantity of Kubernetes such as"),
        ({"service": {"port": 88888}}, "service.port: must be less than or equal to 65535"),
        (
            {"schedules": {"index_refresh": "0 3 * * *"}},
            "index_refresh: cron '0 3 [*] [*] [*]' has five",
        ),
        ({"retries": {"times": True}}, "retries.times: expected a whole number, read true"),
        ({"rollout": {"slow_ms": float("inf")}}, "rollout.slow_ms: .inf can be read in two ways"),
        ({"verify_tls": "no"}, "verify_tls: expected true or false"),
        ({"gpu": {"count": 2}}, "gpu.count: must be less than or equal to 1"),
        ({"gpu": {"steps": ["gate"]}}, "gate would leave a GPU idle; steps that run on one: enc"),
        ({"gpu": {"steps": ["train"]}}, "gpu.steps: no step train; steps: find_start"),
        ({"gpu": {"count": 1}, "image": "mine:1"}, "gpu.image: name the image of the steps with a"),
        ({"backend": "2.0", "tolerations": [{"key": "k"}]}, "does not support tolerations"),
        ({"backend": "2.0", "retries": {"times": 1}}, "does not support retries.times"),
    ],
)
def test_faults_are_explained(values, words, tmp_path):
    file = tmp_path / "cluster.yaml"
    file.write_text(yaml.safe_dump(({} if values == {} else LEAST) | values))
    with pytest.raises(UsageError, match=words.replace("?", r"\?")) as refused:
        read_cluster(file)
    assert "hush" not in str(refused.value)


def test_a_cluster_file_that_cannot_be_read(tmp_path):
    with pytest.raises(UsageError, match=r"no cluster file .*; copy .*example.yaml"):
        read_cluster(tmp_path / "mine.yaml")
    with pytest.raises(UsageError, match=r"cluster file .* cannot be read: Is a directory"):
        read_cluster(tmp_path)
    (tmp_path / "list.yaml").write_text("- a")
    with pytest.raises(UsageError, match=r"list.yaml must hold settings by name"):
        read_cluster(tmp_path / "list.yaml")


@pytest.mark.parametrize(
    "cron",
    ["0 0 3 * * *", "*/10 * * * * ?", "0 0,30 8-18/2 1 jan-MAR mon-fri", "0  0 0 1 1 *"],
)
def test_valid_crons(cron):
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
        ("0 */0 * * * *", "step that is not a positive number"),
        ("0 5-1 * * * *", "not a range from low to high"),
        ("? 0 0 * * *", "second: '[?]' is not"),
        ("0 0 -1 * * *", "hour: '-1'"),
        ("@daily", "six fields"),
    ],
)
def test_invalid_crons(cron, words):
    with pytest.raises(UsageError, match=words):
        check_cron(cron)

from datetime import timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.demo.scenarios import SimulatedScenario
from pipelines.demo.settings import DemoSettings
from pipelines.settings import read_settings
from refit.errors import UsageError


@pytest.fixture(scope="module")
def scenario(tmp_path_factory):
    settings = DemoSettings(
        out=tmp_path_factory.mktemp("demo"), past_days=10, change_step=1, requests_per_step=40
    )
    return SimulatedScenario(settings)


def test_a_day_sends_requests_and_announces_its_changes_of_stock(scenario):
    requests, announced = [], []
    scenario.data_options()
    items = pq.read_table(scenario._folder / "items.parquet")
    on_sale = items.filter(pa.compute.is_null(items["delisted_at"]))["item_id"].to_pylist()

    def recommend(request):
        requests.append(request)
        return {
            "request_id": f"r{len(requests)}",
            "items": [{"item_id": name, "score": 0.0} for name in on_sale[: request["k"]]],
        }

    before = scenario.now
    step = scenario.live(recommend, announced.extend)
    assert step.answers == len(requests) == 40
    assert 0 <= step.hits <= 40
    assert (step.start, step.end) == (before, scenario.now)
    assert {"user_id", "context", "history", "k", "time"} == requests[0].keys()
    followed = {name for name in step.events["request_id"].to_pylist() if name is not None}
    assert followed <= {f"r{i + 1}" for i in range(40)}
    assert {line["change"] for line in announced} == {"listed", "delisted"}
    assert 0 < step.truth["random_chance"] < step.truth["perfect_chance"] <= 1


def test_a_calm_marketplace_does_not_change(tmp_path):
    calm = SimulatedScenario(DemoSettings(out=tmp_path, past_days=10, change=""))
    assert calm.truth() == []
    assert calm.what.endswith("Nothing changed.")


def test_the_true_chance_of_a_sale_of_a_list_is_known(scenario):
    items = scenario._market.items_table()
    on_sale = items.filter(pa.compute.is_null(items["delisted_at"]))["item_id"].to_pylist()
    context = {"surface": "home", "wanted_category": "", "wanted_size": ""}
    at = scenario.now - timedelta(hours=1)
    few, many, none = (
        scenario.chance_of_sale("shopper-000012", context, items, at)
        for items in (on_sale[:1], on_sale[:10], ["item-9999999"])
    )
    assert none == 0 < few <= many < 1
    gone = scenario.gone_at()
    assert len(gone) + len(on_sale) == items.num_rows
    assert max(gone.values()) < scenario.now


def test_shoppers_do_not_react_to_a_failed_request(scenario):
    step = scenario.live(lambda request: None, lambda lines: None)
    assert step.hits == 0
    assert step.events["request_id"].null_count == step.events.num_rows


def test_a_run_reads_the_data_up_to_now(scenario):
    settings = read_settings(scenario.config, scenario.data_options()[1::2])
    assert settings.ingestion.end == scenario.now
    assert settings.ingestion.path == str(scenario._folder)
    events = pq.read_table(scenario._folder / "events.parquet", columns=["event_time"])[
        "event_time"
    ]
    last_day = scenario.now - timedelta(days=1)
    assert last_day < pa.compute.max(events).as_py() < scenario.now


def test_the_change_of_the_settings_is_the_truth(scenario):
    assert [change["name"] for change in scenario.truth()] == ["new_category_wave"]


def test_an_unknown_source_lists_the_known_ones():
    with pytest.raises(UsageError, match="'simulated' or 'renttherunway'"):
        DemoSettings.parse({"source": "ebay"})


@pytest.mark.parametrize("data", [None, "nowhere"])
def test_a_replay_without_data_names_the_option(data):
    with pytest.raises(UsageError, match="--data"):
        DemoSettings.parse({"source": "renttherunway", "data": data})

"""The cuts of a backtest: earlier ends, the splits moved with them, a champion that is fresh."""

import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from components.ingestion import backtest
from components.ingestion.backtest import find_data_end, plan_fits
from components.ingestion.settings import IngestSettings
from refit.backtest import BacktestSettings
from refit.errors import UsageError

END = datetime(2026, 5, 29, tzinfo=UTC)
BY_DAYS = IngestSettings(source="files", end=END, validation_days=3, test_days=7)
TRAINING = {"seed": 5, "max_epochs": 2}


def plan(ingestion=BY_DAYS, champion="", **settings):
    return plan_fits(BacktestSettings(**settings), ingestion, TRAINING, "unused", champion)


def test_the_latest_cut_is_the_config_itself_so_that_its_steps_are_cached():
    first, second = plan(cuts=2)
    expected = json.dumps(BY_DAYS.model_dump(mode="json"), sort_keys=True)
    assert first.ingestion == expected
    assert first.training == json.dumps(TRAINING, sort_keys=True)
    moved = IngestSettings.parse_json(second.ingestion)
    assert moved.end == END - timedelta(days=7)
    assert (moved.validation_days, moved.test_days) == (3, 7)
    assert [first.cut, second.cut] == [END.isoformat(), (END - timedelta(days=7)).isoformat()]


def test_dates_of_a_split_are_moved_with_its_end():
    ingestion = IngestSettings(
        source="files",
        start=datetime(2026, 1, 1, tzinfo=UTC),
        end=END,
        validation_start=END - timedelta(days=8),
        test_start=END - timedelta(days=5),
    )
    third = IngestSettings.parse_json(plan(ingestion, cuts=3)[2].ingestion)
    assert third.end == END - timedelta(days=10)
    assert third.test_start == END - timedelta(days=15)
    assert third.validation_start == END - timedelta(days=18)
    assert third.start == ingestion.start


def test_a_step_of_its_own_moves_the_cuts():
    ends = [datetime.fromisoformat(fit.cut) for fit in plan(cuts=3, step_days=1.0)]
    assert ends == [END, END - timedelta(days=1), END - timedelta(days=2)]


def test_every_cut_is_fitted_with_every_seed():
    fits = plan(cuts=2, seeds=3)
    assert [(fit.cut[:10], fit.seed) for fit in fits] == [
        (day, seed) for day in ("2026-05-29", "2026-05-22") for seed in ("5", "6", "7")
    ]
    assert json.loads(fits[1].training) == {"seed": 6, "max_epochs": 2}


@pytest.mark.parametrize(
    ("trained_until", "states"),
    [
        (END - timedelta(days=7), ["compared", "seen", "seen"]),
        (END - timedelta(days=14), ["compared", "compared", "seen"]),
        (END, ["seen", "seen", "seen"]),
        (None, ["seen", "seen", "seen"]),
    ],
)
def test_the_champion_is_compared_only_on_windows_after_its_training(
    monkeypatch, trained_until, states
):
    manifest = SimpleNamespace(trained_until=trained_until)
    bundle = SimpleNamespace(manifest=manifest)
    monkeypatch.setattr(backtest, "Registry", lambda url: SimpleNamespace(get=lambda _: bundle))
    fits = plan(champion="b1", cuts=3)
    assert [fit.champion_state for fit in fits] == states
    assert [fit.champion for fit in fits] == ["b1" if s == "compared" else "" for s in states]


def test_a_cut_before_the_start_is_an_error():
    ingestion = BY_DAYS.model_copy(update={"start": END - timedelta(days=20)})
    assert len(plan(ingestion, cuts=2)) == 2
    with pytest.raises(UsageError, match="ends on 2026-05-15 has no training"):
        plan(ingestion, cuts=3)


def test_without_an_end_the_data_say_it(tmp_path):
    days = "\n".join(f"u1,i1,view,2026-03-{day:02}T10:00:00Z" for day in range(1, 21))
    (tmp_path / "events.csv").write_text(f"user_id,item_id,event_type,event_time\n{days}\n")
    (tmp_path / "items.csv").write_text("item_id,listed_at,price\ni1,2026-02-01T00:00:00Z,1\n")
    settings = IngestSettings(source="files", path=str(tmp_path), validation_days=1, test_days=2)
    assert find_data_end(settings) == datetime(2026, 3, 21, tzinfo=UTC)
    cuts = [fit.cut[:10] for fit in plan(settings, cuts=3)]
    assert cuts == ["2026-03-21", "2026-03-19", "2026-03-17"]

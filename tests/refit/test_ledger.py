"""The ledger counts looks at a window, whoever writes and wherever it is kept."""

import threading
from statistics import NormalDist

import fsspec
import numpy as np
import pytest

from refit.errors import RefitError
from refit.files import read_json
from refit.ledger import (
    Ledger,
    Looks,
    LookSettings,
    confidence,
    describe_window,
    draft_judgement,
    stretch,
)

SETTINGS = LookSettings(most=3)
DAY = 86_400_000_000
PLACES = ["folder", "memory"]


@pytest.fixture(params=PLACES)
def ledger(request, tmp_path):
    if request.param == "folder":
        yield Ledger(tmp_path / "registry")
        return
    url = f"memory://{tmp_path.name}/registry"
    yield Ledger(url)
    memory = fsspec.filesystem("memory")
    if memory.exists(url):
        memory.rm(url, recursive=True)


def window(first_day=0.0, days=7.0, per_day=300, seed=1, salt=""):
    """Queries of a stretch of one endless log: overlapping stretches share their queries."""
    rng = np.random.default_rng(seed)
    n = 30 * per_day
    time = np.sort(rng.integers(0, 30 * DAY, n))
    user, item = rng.integers(0, 500, n), rng.integers(0, 900, n)
    inside = (time >= first_day * DAY) & (time < (first_day + days) * DAY)
    return describe_window(
        [f"u{salt}{i}" for i in range(500)],
        [f"i{i}" for i in range(900)],
        user[inside],
        item[inside],
        time[inside],
    )


def draft(model, where, **more):
    values = {"run": "r", "metrics": ("hit_rate_at_100",), "settings": "s"}
    return draft_judgement(model=model, window=where, **{**values, **more})


def judge(ledger, model, where, result="refused", **more):
    judgement, looks = ledger.begin(draft(model, where, **more), SETTINGS)
    ledger.finish(judgement.model_copy(update={"result": result}))
    return looks


def test_every_other_model_on_the_same_window_is_one_look_more(ledger):
    numbers = [judge(ledger, f"m{i}", window()).number for i in range(5)]
    assert numbers == [1, 2, 3, 4, 5]
    kept = ledger.read()
    assert [one.model for one in kept] == [f"m{i}" for i in range(5)]
    assert [one.look for one in kept] == numbers
    assert all(one.result == "refused" and one.by and one.host for one in kept)


def test_the_same_model_judged_again_is_no_new_look_and_keeps_its_number(ledger):
    judge(ledger, "a", window())
    judge(ledger, "b", window())
    assert judge(ledger, "a", window(), settings="other thresholds").number == 1
    assert judge(ledger, "c", window()).number == 3
    assert judge(ledger, "b", window()).number == 2


def test_the_same_model_judged_by_another_metric_is_a_new_look(ledger):
    judge(ledger, "a", window())
    assert judge(ledger, "a", window(), metrics=("ndcg_at_10",)).number == 2


def test_a_window_is_recognised_when_it_is_moved_or_cut_and_not_when_it_is_fresh(ledger):
    judge(ledger, "a", window(0, 7))
    assert judge(ledger, "b", window(0.04, 7)).number == 2, "moved by an hour"
    assert judge(ledger, "c", window(0, 2)).number == 3, "cut to two of its days"
    assert judge(ledger, "d", window(7, 7)).number == 1, "the next week"
    assert judge(ledger, "e", window(0, 7, salt="x")).number == 1, "other people"


def test_an_estimated_share_is_close_to_the_true_one():
    for days in (1, 2, 3.5, 5):
        share = window(0, 7).share_in(window(days, 7))
        assert share == pytest.approx((7 - days) / 7, abs=0.1)
    assert window(0, 2).share_in(window(0, 7)) == pytest.approx(1.0, abs=0.15)
    assert window().share_in(window()) == 1.0
    assert window(0, 7).share_in(window(7, 7)) == 0.0


def test_the_window_is_described_by_its_queries_whatever_their_order_and_numbers():
    time = np.array([3, 1, 2]) * DAY
    one = describe_window(["a", "b"], ["x", "y"], np.array([0, 1, 1]), np.array([0, 1, 0]), time)
    other = describe_window(
        ["b", "a", "c"], ["y", "x"], np.array([0, 0, 1]), np.array([1, 0, 1]), time[[2, 1, 0]]
    )
    assert one == other
    assert one.queries == 3
    assert one.fingerprint == other.fingerprint
    assert (one.start.day, one.until.day) == (2, 4)


def test_two_that_are_judged_at_the_same_time_count_each_other(ledger):
    first, second = draft("a", window()), draft("b", window())
    ledger.finish(first)  # as begin does, before it counts
    _, looks = ledger.begin(second, SETTINGS)
    assert looks.number == 2
    _, looks = ledger.begin(first, SETTINGS)
    assert looks.number == 2


def test_many_writers_lose_no_judgement(tmp_path):
    def write(number):
        judge(Ledger(tmp_path), f"m{number}", window())

    threads = [threading.Thread(target=write, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = Ledger(tmp_path).read()
    assert len({one.model for one in kept}) == 12
    assert max(one.look for one in kept) == 12


def test_what_was_killed_before_its_verdict_counts_and_may_be_judged_again(ledger):
    ledger.begin(draft("a", window()), SETTINGS)
    assert judge(ledger, "a", window()).number == 1
    assert judge(ledger, "b", window()).number == 2


def test_an_entry_that_cannot_be_read_stops_the_count(tmp_path):
    ledger = Ledger(tmp_path)
    judge(ledger, "a", window())
    path = next((tmp_path / "ledger").glob("*.json"))
    assert read_json(path)["model"] == "a"
    path.write_text("{")
    with pytest.raises(RefitError, match=f"{path.name} is not a judgement.*restore"):
        judge(ledger, "b", window())


def test_passes_of_other_models_are_told(ledger):
    judge(ledger, "a", window(), result="passed")
    looks = judge(ledger, "b", window(), result="passed")
    assert looks.earlier_passes == 1
    assert "look 2 at this test window: 1 other model was judged on it, 1 of" in looks.describe()


def test_the_interval_widens_with_the_look():
    assert confidence(1) == 0.95
    assert confidence(2) == pytest.approx(0.9875)
    assert stretch(1) == 1.0
    assert stretch(2) == pytest.approx(NormalDist().inv_cdf(0.99375) / 1.959964, rel=1e-6)
    assert [Looks(number=k).widen(0.3, 0.1) for k in (1, None)] == pytest.approx([0.1, 0.1])
    assert Looks(number=2).widen(0.3, 0.1) == pytest.approx(0.3 - 0.2 * stretch(2))
    errors = sum(1 - confidence(k) for k in range(1, 100_000))
    assert errors == pytest.approx(0.05 * np.pi**2 / 6, rel=1e-4)


def test_a_fresh_window_is_due_after_the_stated_number_of_looks():
    assert not Looks(number=3, most=3).due
    assert Looks(number=4, most=3).due
    assert "fresh window is due" in Looks(number=4, most=3).describe()
    assert not Looks().due
    assert "not counted" in Looks().describe()

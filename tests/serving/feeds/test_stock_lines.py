"""What lines of the stock feed mean, whatever their order; and which of them break the contract."""

import itertools
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from serving.counters import Counters
from serving.feeds.dead_letters import DeadLetters
from serving.feeds.feed import Line, Position
from serving.feeds.folder import FolderFeed
from serving.feeds.lines import FeedReader, parse_line
from serving.feeds.stock import ListingState, StockChange

NOW = datetime(2024, 5, 1, 10, tzinfo=UTC)


def line(change: str, second: int, **fields: object) -> dict:
    at = (NOW + timedelta(seconds=second)).isoformat()
    return {"item_id": "m1", "change": change, "at": at, **fields}


def state_of(lines: list[dict]) -> tuple:
    state = ListingState()
    for one in lines:
        change = StockChange.model_validate(one)
        state.add(change, change.attributes, "vector")
    values = state.values if state.on_sale else None
    return state.on_sale, state.on_sale_at, values


STORY = [
    line("listed", 1, brand="Acne", price=80, size="M", vector="v1"),
    line("changed", 2, price=70),
    line("sold", 3),
    line("relisted", 4, price=75),
    line("listed", 5, brand="COS", price=60),
    line("changed", 6, colour="red"),
]


def test_any_order_and_any_repetition_give_the_same_listing():
    expected = (
        True,
        state_of(STORY)[1],
        {"brand": "COS", "price": 60, "colour": "red", "vector": "v1"},
    )
    for order in itertools.permutations(STORY):
        assert state_of(list(order)) == expected
    rng = np.random.default_rng(0)
    for _ in range(200):
        repeated = [STORY[i] for i in rng.integers(0, 6, 20)] + STORY
        rng.shuffle(repeated)
        assert state_of(repeated) == expected


def test_a_line_that_is_read_again_is_no_news():
    state = ListingState()
    for one in STORY:
        change = StockChange.model_validate(one)
        assert state.add(change, change.attributes)
    for one in STORY:
        change = StockChange.model_validate(one)
        assert not state.add(change, change.attributes)


def test_what_is_sold_when_it_is_listed_is_sold():
    for order in itertools.permutations([line("listed", 1, price=5), line("sold", 1)]):
        assert state_of(list(order))[0] is False


def as_line(content: object) -> Line:
    text = content if isinstance(content, str) else json.dumps(content)
    return Line(text.encode(), Position("a.jsonl", 0))


BAD = {
    "not JSON": "{",
    "price: negative": line("listed", 0, price=-5),
    "price: Input should be a finite number": line("changed", 0, price=float("nan")),
    "price: Input should be a valid number": line("changed", 0, price="80"),
    "item_id: empty": line("sold", 0) | {"item_id": " \u00a0"},
    "item_id: holds control or invisible characters": line("sold", 0) | {"item_id": "m\u200b1"},
    "seller_id: empty": line("listed", 0, seller_id="\t"),
    "change: Input should be": line("stolen", 0),
    "at: Field required": {"item_id": "m1", "change": "sold"},
    "the year must be in": line("sold", 0) | {"at": "9999-12-31T23:59:59Z"},
    "is in the future": line("sold", 0) | {"at": "2099-01-01T00:00:00Z"},
    "listed_at: a time is ISO 8601 text": line("listed", 0, listed_at=7),
    "Input should be a valid dictionary": [1],
}


@pytest.mark.parametrize("reason", BAD)
def test_a_line_that_breaks_the_contract_is_refused_with_its_reason(reason):
    with pytest.raises(ValueError, match=reason):
        parse_line(StockChange, as_line(BAD[reason]), NOW + timedelta(minutes=5))


def test_a_clock_that_is_a_little_ahead_is_let_through_and_a_replay_has_no_now():
    ahead = as_line(line("sold", 200))
    assert parse_line(StockChange, ahead, NOW + timedelta(minutes=5)).item_id == "m1"
    far = as_line(line("sold", 0) | {"at": "2099-01-01T00:00:00Z"})
    assert parse_line(StockChange, far, None).at.year == 2099


def test_bad_lines_are_kept_with_their_place_counted_once_and_stop_nothing(tmp_path):
    feed, counters = tmp_path / "stock", Counters()
    feed.mkdir()
    texts = [one if isinstance(one, str) else json.dumps(one) for one in BAD.values()]
    (feed / "a.jsonl").write_text("\n".join([*texts, json.dumps(line("sold", 0)), ""]))
    letters = DeadLetters(tmp_path / "bad.jsonl", counters, "bad")
    for _ in range(2):  # as after a swap of the bundle, which reads the feed from its start
        used: list[StockChange] = []
        reader = FeedReader(FolderFeed(feed), StockChange, letters, timedelta(days=365))
        reader.read(lambda change, _, used=used: used.append(change))
        assert [change.change for change in used] == ["sold"]
        assert reader.lag.newest == NOW
    kept = [json.loads(text) for text in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert len(kept) == len(BAD) == counters.total("bad")
    assert kept[1]["file"] == "a.jsonl"
    assert kept[1]["offset"] == 2
    assert kept[1]["reason"] == "price: negative"


def test_an_error_about_a_line_makes_it_a_dead_letter_and_the_next_is_used(tmp_path):
    (tmp_path / "a.jsonl").write_text(2 * (json.dumps(line("sold", 0)) + "\n"))
    counters, used = Counters(), []
    letters = DeadLetters(tmp_path / "bad" / "letters.jsonl", counters, "bad")

    def use(change: StockChange, at: Line) -> None:
        if at.position.offset == 0:
            raise KeyError("m1")
        used.append(change)

    FeedReader(FolderFeed(tmp_path), StockChange, letters).read(use)
    assert len(used) == counters.total("bad") == 1


def test_no_more_dead_letters_are_kept_than_a_disk_can_bear(tmp_path, monkeypatch):
    monkeypatch.setattr("serving.feeds.dead_letters.MOST_KEPT", 3)
    counters = Counters()
    letters = DeadLetters(tmp_path / "bad.jsonl", counters, "bad")
    for offset in range(5):
        letters.keep(Line(b"x", Position("a", offset)), "bad")
    assert counters.total("bad") == 5
    assert len(Path(tmp_path / "bad.jsonl").read_text().splitlines()) == 3

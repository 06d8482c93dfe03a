"""Example queries for the report: the recommendations of each method and the positive item."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from components.evaluation.data import ItemCatalogue
from components.evaluation.ranking import EvaluationSet, Ranking

SHOWN = ("title", "brand", "category_3", "category_2", "category_1", "colour", "size", "condition")
LENGTH = 5
HIT_AT = 10


@dataclass(frozen=True)
class Shown:
    """An item with its attributes in one line; ``positive`` marks the positive item."""

    item_id: str
    words: str
    positive: bool = False


@dataclass(frozen=True)
class AnswerExample:
    """A method's top items, and the rank of the positive item, the first of several."""

    method: str
    rank: int
    items: tuple[Shown, ...]


@dataclass(frozen=True)
class Example:
    """One query: its context and history, its positive item, and the answer of each method."""

    time: str
    context: dict[str, str]
    history: tuple[Shown, ...]
    positive: Shown
    candidates: int
    answers: tuple[AnswerExample, ...]


def draw_examples(
    evaluation_set: EvaluationSet,
    rankings: Mapping[str, Ranking],
    model: str,
    how_many: int,
    seed: int,
) -> list[Example]:
    """Draw queries at random; in half of them the model ranks the positive item in its top 10."""
    random = np.random.default_rng(seed)
    hit = rankings[model].first <= HIT_AT
    hits = random.permutation(np.flatnonzero(hit))[: how_many // 2]
    misses = random.permutation(np.flatnonzero(~hit))[: how_many - len(hits)]
    return [_example(evaluation_set, rankings, int(i)) for i in (*hits, *misses)]


def describe_item(catalogue: ItemCatalogue, content: int) -> str:
    """The attributes of a row of ``catalogue.contents`` in one line."""
    row = {
        name: catalogue.contents[name][content].as_py()
        for name in (*SHOWN, "price")
        if name in catalogue.contents.column_names
    }
    category = next((row[c] for c in SHOWN[2:5] if row.get(c)), None)
    size = row.get("size")
    title = None if row.get("brand") or category else row.get("title")
    words = [title, row.get("brand"), category, row.get("colour")]
    words += [f"size {size}" if size else None, row.get("condition")]
    price = row.get("price")
    words.append(f"{price:,.2f}" if price is not None and price == price else None)
    return " · ".join(str(word) for word in words if word) or "no attributes"


def _example(evaluation_set: EvaluationSet, rankings: Mapping[str, Ranking], i: int) -> Example:
    data, queries = evaluation_set.data, evaluation_set.queries
    row = int(queries.rows[i])
    positive = int(data.log.item[row])

    read_at = int(data.snapshot_times[data.log.snapshot[row]])

    def show(item: int) -> Shown:
        content = data.catalogue.versions.rows_at(np.array(item), read_at)
        words = describe_item(data.catalogue, int(content))
        return Shown(str(data.catalogue.item_id[item]), words, item == positive)

    past = list(dict.fromkeys(int(j) for j in queries.history.item[i] if j >= 0))
    context = data.log.table.slice(row, 1).to_pylist()[0]
    time = datetime.fromtimestamp(data.log.time[row] / 1e6, UTC)
    return Example(
        time=f"{time:%Y-%m-%d %H:%M}",
        context={k: str(v) for k, v in context.items() if v is not None and v == v and v != ""},
        history=tuple(show(j) for j in past[:LENGTH]),
        positive=show(positive),
        candidates=int(next(iter(rankings.values())).candidates[i]),
        answers=tuple(
            AnswerExample(
                name, int(r.first[i]), tuple(show(int(j)) for j in r.top[i][:LENGTH] if j >= 0)
            )
            for name, r in rankings.items()
        ),
    )

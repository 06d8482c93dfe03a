"""How often the gate passes models whose truth is known: twins, and refits that each lose a little.

Real per-query results of one model are resampled by user, as often as wanted. A twin is the same
model trained again: in a share of the queries its positive falls to another rank, drawn from the
ranks of the same queries' results, so that its quality is the same and its mistakes are others. A
worse refit loses a share of its hits besides. Every judgement is the gate's own code, on the
metrics, the paired bootstrap and the settings of an evaluation.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.evaluation.bootstrap import Replicates
from components.evaluation.gate import decide_against_champion
from components.evaluation.results import Interval, Method
from components.evaluation.settings import EvaluationSettings
from refit.verdict import Outcome, Verdict

Hits = NDArray[np.float64]


@dataclass(frozen=True)
class JudgedQueries:
    """Per-query results of a champion.

    Attributes:
        user: [n] user number.
        hit: [n] 1 where the positive is in the list, else 0.
    """

    user: NDArray[np.int64]
    hit: Hits

    def resample(self, n_queries: int, random: np.random.Generator) -> "JudgedQueries":
        """Draw users with replacement, each with all queries, until there are ``n_queries``."""
        order = np.argsort(self.user, kind="stable")
        ends = np.cumsum(np.bincount(self.user))
        starts = np.concatenate([[0], ends[:-1]])
        present = np.flatnonzero(ends > starts)
        drawn = random.choice(present, n_queries)
        sizes = (ends - starts)[drawn]
        drawn = drawn[: np.searchsorted(np.cumsum(sizes), n_queries) + 1]
        which = np.concatenate([order[starts[user] : ends[user]] for user in drawn])[:n_queries]
        users = np.repeat(np.arange(len(drawn)), sizes[: len(drawn)])[:n_queries]
        return JudgedQueries(users, self.hit[which])


def train_again(hit: Hits, changed: float, random: np.random.Generator, loss: float = 0.0) -> Hits:
    """The hits of a model of the same quality, less ``loss``, that differs in some queries.

    Args:
        hit: [n] hits.
        changed: Share of the queries whose result is drawn again from the rate of all.
        random: Random numbers.
        loss: Share of the hits that are lost besides.
    """
    again = np.where(random.random(len(hit)) < changed, random.random(len(hit)) < hit.mean(), hit)
    return np.where(random.random(len(hit)) < loss, 0.0, again).astype(np.float64)


def judge(
    queries: JudgedQueries,
    model: Hits,
    champions: Sequence[Hits],
    settings: EvaluationSettings,
    seed: int = 0,
) -> Verdict:
    """The gate's verdict on a model, against champions on the same queries.

    Args:
        queries: The queries and their users.
        model: [n] hits of the model.
        champions: Each [n] hits.
        settings: The gate's settings.
        seed: Seed of the bootstrap.
    """
    columns = {"model": model, "n": np.ones(len(model))}
    columns |= {f"champion {i}": hits for i, hits in enumerate(champions)}
    replicates = Replicates(queries.user, columns, settings.replicates, seed)

    def describe(name: str, gain: Interval) -> Method:
        return Method(
            name=name,
            kind="champion",
            gain={settings.metric: gain},
            compared={settings.metric: replicates.mean(name, "n")},
            n_compared=len(model),
            users_compared=replicates.n_users,
        )

    methods = [
        describe(name, replicates.difference("model", name, "n"))
        for name in columns
        if name.startswith("champion")
    ]
    return Verdict.of(
        check for method in methods for check in decide_against_champion(settings, method)
    )


def rate_twins(
    found: JudgedQueries,
    n_queries: int,
    changed: float,
    settings: EvaluationSettings,
    judgements: int = 200,
    seed: int = 0,
) -> Counter[Outcome]:
    """How often an equal model with other mistakes passes, is refused, or cannot be told."""
    random = np.random.default_rng(seed)
    outcomes: Counter[Outcome] = Counter()
    for number in range(judgements):
        queries = found.resample(n_queries, random)
        twin = train_again(queries.hit, changed, random)
        outcomes[judge(queries, twin, [queries.hit], settings, number).outcome] += 1
    return outcomes


def rate_identical(
    found: JudgedQueries,
    n_queries: int,
    settings: EvaluationSettings,
    judgements: int = 200,
    seed: int = 0,
) -> Counter[Outcome]:
    """How often the champion itself passes."""
    random = np.random.default_rng(seed)
    samples = (found.resample(n_queries, random) for _ in range(judgements))
    return Counter(
        judge(queries, queries.hit, [queries.hit], settings, number).outcome
        for number, queries in enumerate(samples)
    )


def run_ratchet(
    found: JudgedQueries,
    n_queries: int,
    changed: float,
    loss: float,
    refits: int,
    settings: EvaluationSettings,
    seed: int = 0,
) -> Iterator[tuple[Outcome, float]]:
    """Refit again and again, each a share ``loss`` worse than the champion; stop where one fails.

    The best of the last champions is the first one, since every later one is worse. Each refit is
    judged in a test window of its own.

    Yields:
        The outcome, and the quality that is left of the first model's.
    """
    random = np.random.default_rng(seed)
    left = 1.0
    for number in range(refits):
        queries = found.resample(n_queries, random)
        champion = train_again(queries.hit, changed, random, 1.0 - left)
        refit = train_again(queries.hit, changed, random, 1.0 - left * (1.0 - loss))
        best = [queries.hit] if number and settings.best_of_last > 1 else []
        outcome = judge(queries, refit, [champion, *best], settings, number).outcome
        if outcome == "passed":
            left *= 1.0 - loss
        yield outcome, left

"""How often a model that is no better passes at least once, when many are tried on one window.

Every try is a whole judgement: real intervals by the bootstrap over users, the real gate, a real
ledger. A model of no gain answers as the baseline does, except that it trades some of the hits for
as many others by chance.

    .venv/bin/python -m tests.benchmarks.gate.looks
"""

import uuid
from dataclasses import dataclass

import fsspec
import numpy as np
from numpy.typing import NDArray

from components.evaluation.bootstrap import Replicates
from components.evaluation.gate import apply_gate
from components.evaluation.results import MODEL, Interval, Results
from components.evaluation.settings import EvaluationSettings
from refit.ledger import JudgedWindow, Ledger, Looks, describe_window, draft_judgement
from tests.components.evaluation.test_gate import results as make_passing

SETTINGS = EvaluationSettings(slice_floors=(), required_baselines=("popularity",), margin=0.0)
METRIC, GUARD = SETTINGS.metric, SETTINGS.guard_metric
USERS, QUERIES, REPLICATES = 400, 1000, 400
HIT_RATE, TRADED = 0.3, 0.2
Values = NDArray[np.float64]


@dataclass(frozen=True)
class PassRates:
    """Shares of windows on which at least one of the tries passed.

    Attributes:
        windows, tries: How many windows, and how many models on each.
        once: Share of the judgements that pass at their first look.
        uncorrected: Share of windows without a ledger.
        corrected: The same with one.
    """

    windows: int
    tries: int
    once: float
    uncorrected: float
    corrected: float


def simulate_tries(
    windows: int = 100, tries: int = 20, gain: float = 0.0, seed: int = 0
) -> PassRates:
    """Judge ``tries`` models on each of ``windows`` windows, with and without the ledger.

    Args:
        windows: Number of fresh windows.
        tries: Models on each window.
        gain: By how much each model's hit rate is above that of the baseline.
        seed: Of all chance.
    """
    rng = np.random.default_rng(seed)
    first, without, with_ledger = [], [], []
    for number in range(windows):
        user = rng.integers(0, USERS, QUERIES)
        baseline = (rng.random(QUERIES) < HIT_RATE).astype(np.float64)
        window = _window(user, number)
        passed = []
        registry = f"memory://{uuid.uuid4().hex}"
        ledger = Ledger(registry)
        for n in range(tries):
            model = _try(rng, baseline, gain)
            measured = _measure(user, model, baseline, seed=number * tries + n)
            passed.append((_judge(measured, Looks()), _judge_in(ledger, window, n, measured)))
        fsspec.filesystem("memory").rm(registry, recursive=True)
        first.append(passed[0][0])
        without.append(any(plain for plain, _ in passed))
        with_ledger.append(any(corrected for _, corrected in passed))
    return PassRates(
        windows, tries, float(np.mean(first)), float(np.mean(without)), float(np.mean(with_ledger))
    )


def _try(rng: np.random.Generator, baseline: Values, gain: float) -> Values:
    """[n] hits of a model that finds what the baseline finds, but for trades and its gain."""
    hits = baseline.sum()
    lost = baseline * (rng.random(QUERIES) < TRADED)
    found = (1 - baseline) * (
        rng.random(QUERIES) < (TRADED * hits + gain * QUERIES) / (QUERIES - hits)
    )
    return baseline - lost + found


def _window(user: NDArray[np.int64], number: int) -> JudgedWindow:
    start = 7 * 86_400_000_000 * number
    time = start + np.arange(len(user), dtype=np.int64)
    return describe_window([f"u{i}" for i in range(USERS)], ["i"], user, np.zeros_like(user), time)


def _measure(user: NDArray[np.int64], model: Values, baseline: Values, seed: int) -> Results:
    columns = {"n": np.ones(QUERIES), "model": model, "baseline": baseline}
    drawn = Replicates(user, columns, REPLICATES, seed)
    gain = drawn.difference("model", "baseline", "n")
    guard = Interval(value=0.1, low=0.05, high=0.15)
    measured = {
        MODEL: {"metrics": {METRIC: drawn.mean("model", "n"), GUARD: guard}},
        "popularity": {
            "metrics": {METRIC: drawn.mean("baseline", "n"), GUARD: guard},
            "gain": {METRIC: gain, GUARD: guard},
        },
    }
    passing = make_passing()
    return passing.model_copy(
        update={
            "n_queries": QUERIES,
            "n_users": drawn.n_users,
            "methods": tuple(
                method.model_copy(update=measured[method.name])
                for method in passing.methods
                if method.name in measured
            ),
        }
    )


def _judge(results: Results, looks: Looks) -> bool:
    return apply_gate(SETTINGS, results.model_copy(update={"looks": looks})).passed


def _judge_in(ledger: Ledger, window: JudgedWindow, number: int, results: Results) -> bool:
    draft = draft_judgement(
        run="", window=window, model=f"m{number}", metrics=(METRIC,), settings=""
    )
    judgement, looks = ledger.begin(draft, SETTINGS.looks)
    passed = _judge(results, looks)
    ledger.finish(judgement.model_copy(update={"result": "passed" if passed else "refused"}))
    return passed


if __name__ == "__main__":
    print(simulate_tries())  # noqa: T201
    print(simulate_tries(gain=0.05, windows=20, seed=1))  # noqa: T201

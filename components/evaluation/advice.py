"""After a refusal: on which parts of the test a baseline was better, and what to try first.

Each piece of advice follows from measurements by a rule of this module and states its figures. None
of it is certain; the order is that of the queries that were lost.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from components.evaluation.results import MODEL, BaselineWin, Interval, Method, Results
from components.evaluation.settings import EvaluationSettings
from components.evaluation.slices import COLD
from refit.features import FeatureSpec
from refit.files import read_json
from refit.model import MODEL_FILE

ALL = "all queries"
POPULARITY = "popularity"
IN_CONTEXT = "popularity_in_context"
ATTRIBUTES = "attributes_in_context"
OF_HISTORIES = ("cooccurrence", "ease")
"""Baselines by their name in the settings."""
LATEST = "latest "
"""Before a column of the newest item in the history, in the factors of a baseline."""
MET_BEFORE = 0.05
"""From this share of queries on whose item stands in the history, items should be recognised."""
CLOSE = 2.0
"""A half-life is close to another one within this ratio."""


def find_wins(results: Results, settings: EvaluationSettings) -> tuple[BaselineWin, ...]:
    """Where the best baseline has a higher value than the model, the most lost queries first.

    Slices with fewer than ``slice_min_n`` queries say too little and are left out.
    """
    found = [_whole(results, settings.metric)]
    baselines = results.of_kind("baseline")
    for part in results.slices:
        if part.n < settings.slice_min_n:
            continue
        values = {m.name: part.metrics.get(m.name, Interval()).value for m in baselines}
        model = part.metrics.get(MODEL, Interval()).value
        found.append(_win(part.name, part.n, model, values, part.gain))
    wins = [win for win in found if win is not None]
    return tuple(sorted(wins, key=lambda win: (win.slice != ALL, -win.lost)))


def advise(
    results: Results, wins: Sequence[BaselineWin], spec: FeatureSpec, model: Path
) -> tuple[str, ...]:
    """What to try first, from where baselines were better.

    Args:
        results: The measurements.
        wins: See ``find_wins``.
        spec: The feature spec that the model was trained with.
        model: The model folder, whose manifest says how it was trained.
    """
    manifest = read_json(model / MODEL_FILE)
    training = manifest.get("settings") or {}
    methods = {method.name: method for method in results.of_kind("baseline")}
    by_kind: dict[str, BaselineWin] = {}
    for win in sorted(wins, key=lambda win: -win.lost):
        by_kind.setdefault(_kind(methods[win.baseline]), win)
    found: list[str] = []
    for kind, win in by_kind.items():
        winner = methods[win.baseline]
        if kind == "histories":
            found += _on_histories(results, win, spec, training)
        elif kind == IN_CONTEXT:
            found += _on_context(win, winner, spec, training)
        elif kind == ATTRIBUTES:
            found += _on_attributes(win, winner, spec, training)
        elif kind == POPULARITY:
            found += _on_popularity(win, winner, spec)
        else:
            found.append(f"{_figures(win)}. What it reads, the towers lack or do not use.")
    found += _on_cold_listings(results, wins, spec)
    if wins and not results.of_kind("champion"):
        found.append(
            "There is no champion: until a model passes, popularity in the context can be served "
            "as itself, with training.towers: popularity and evaluation.serve_baseline: true."
        )
    if wins:
        found += _on_epochs(manifest, training)
        found.append(
            "The settings of the training are tried on the validation days by refit tune; what "
            "the towers lack, such as a column, it cannot find."
        )
    return tuple(found)


def _whole(results: Results, metric: str) -> BaselineWin | None:
    baselines = results.of_kind("baseline")
    values = {m.name: m.metrics.get(metric, Interval()).value for m in baselines}
    gains = {m.name: m.gain.get(metric, Interval()) for m in baselines}
    model = next((m for m in results.methods if m.name == MODEL), None)
    value = model.metrics.get(metric, Interval()).value if model else None
    return _win(ALL, results.n_queries, value, values, gains)


def _win(
    name: str,
    n: int,
    model: float | None,
    values: Mapping[str, float | None],
    gains: Mapping[str, Interval],
) -> BaselineWin | None:
    measured = {each: value for each, value in values.items() if value is not None}
    if model is None or not measured:
        return None
    best = max(measured, key=lambda each: measured[each])
    if measured[best] <= model:
        return None
    gain = gains.get(best, Interval())
    return BaselineWin(slice=name, n=n, baseline=best, value=measured[best], model=model, gain=gain)


def _kind(method: Method) -> str:
    name = method.extension or method.name
    return "histories" if name in OF_HISTORIES else name


def _figures(win: BaselineWin) -> str:
    """Such as ``co-occurrence wins on known users, 0.2611 against 0.2161 (n = 3,012)``."""
    shown = "" if win.shown else ", which may be chance"
    return (
        f"{win.baseline} wins on {win.slice}, {win.value:.4f} against {win.model:.4f} "
        f"(n = {win.n:,}{shown})"
    )


def _on_histories(
    results: Results, win: BaselineWin, spec: FeatureSpec, training: Mapping[str, Any]
) -> Iterator[str]:
    known = results.positive_in_history
    met = (known.within_hour or 0.0) + (known.within_day or 0.0) + (known.older or 0.0)
    text = f"{_figures(win)}: it goes by the items that people met before, which the towers miss. "
    if met >= MET_BEFORE:
        text += f"Of {met:.1%} of the test queries the item stands in the history. "
    tries = [f"longer histories (features.spec.history_length, now {spec.history_length})"]
    if (ids := training.get("id_embedding")) in ("auto", "never"):
        tries.insert(0, f"items that are recognised (training.id_embedding: always, now {ids})")
    elif "id_l2" in training:
        tries.insert(0, f"ids that may say more (training.id_l2, now {training['id_l2']:g})")
    if training.get("history") == "pooled":
        tries.append("a query tower that reads histories in order (training.history: sequence)")
    yield f"{text}Try {' and '.join(tries)}."


def _on_context(
    win: BaselineWin, winner: Method, spec: FeatureSpec, training: Mapping[str, Any]
) -> Iterator[str]:
    contexts = _parts(winner, 1)
    latest = [name for name in contexts if name.startswith(LATEST)]
    missing = [name for name in contexts if name not in {*spec.popularity_by, *latest}]
    text = f"{_figures(win)}: it counts what is chosen in a context. "
    if missing:
        yield (
            f"{text}Try its columns in the towers' counts: add {', '.join(missing)} to "
            f"features.spec.popularity_by, which has {', '.join(spec.popularity_by) or 'none'}."
        )
        return
    if half_life := _other_half_life(winner, spec):
        yield f"{text}{half_life}"
        return
    gates = f", now {training['gate_l2']:g}" if "gate_l2" in training else ""
    yield (
        f"{text}The towers have the same counts and move away from them: try a larger "
        f"training.gate_l2{gates}, or a smaller training.learning_rate."
    )


def _on_attributes(
    win: BaselineWin, winner: Method, spec: FeatureSpec, training: Mapping[str, Any]
) -> Iterator[str]:
    read = {*spec.item_categorical, *spec.item_numeric, *spec.item_text}
    counted = {name for name in _parts(winner, 0) if name != "item"}
    contexts = _parts(winner, 1)
    latest = [name for name in contexts if name.startswith(LATEST)]
    known = {*spec.context_categorical, *spec.context_numeric, *spec.user_categorical}
    known |= {*spec.user_numeric, *spec.popularity_by, *latest}
    text = f"{_figures(win)}: it counts attributes of items ({', '.join(_factors(winner))}). "
    unread = [name for name in sorted(counted) if name not in read and " " not in name]
    unknown = [name for name in contexts if name not in known]
    if unread or unknown:
        tries = []
        if unread:
            tries.append(f"{', '.join(unread)} in features.spec.item_categorical or item_numeric")
        if unknown:
            tries.append(f"{', '.join(unknown)} in features.spec.context_categorical")
        yield f"{text}The towers do not read all of it: try {' and '.join(tries)}."
    elif latest:
        yield (
            f"{text}It looks at the latest item of a history: try longer training, or a query "
            "tower that reads histories in order (training.history: sequence)."
        )
    else:
        size = f", now {training['learned_size']}" if "learned_size" in training else ""
        yield (
            f"{text}The towers read all of it, and match it worse: try more epochs, or a larger "
            f"training.learned_size{size}."
        )


def _on_popularity(win: BaselineWin, winner: Method, spec: FeatureSpec) -> Iterator[str]:
    text = f"{_figures(win)}: the towers rank worse than by plain counts. "
    half_life = _other_half_life(winner, spec)
    yield text + (half_life or "Look first at what they were trained on: target events, weights.")


def _on_cold_listings(
    results: Results, wins: Sequence[BaselineWin], spec: FeatureSpec
) -> Iterator[str]:
    win = next((win for win in wins if win.slice == COLD), None)
    if win is None:
        return
    lacks = []
    if not spec.item_vector:
        lacks.append("no vector of pictures or texts (features.spec.item_vector)")
    if not spec.item_text:
        lacks.append("no text (features.spec.item_text)")
    read = "; the item tower reads " + " and ".join(lacks) if lacks else ""
    share = win.n / results.n_queries if results.n_queries else 0.0
    yield (
        f"Listings of the first 24 hours are ranked too low, {win.model:.4f} against "
        f"{win.value:.4f} of {win.baseline} ({share:.1%} of the queries): nobody has chosen them "
        f"yet, so only their content can tell{read}. Try an encoder, more columns of the items, or "
        "a larger training.id_dropout where items have ids."
    )


def _on_epochs(manifest: Mapping[str, Any], training: Mapping[str, Any]) -> Iterator[str]:
    chosen, epochs = manifest.get("chosen_epoch"), manifest.get("epochs") or ()
    recalls = [epoch.get("recall") for epoch in epochs]
    if not recalls or None in recalls or chosen is None:
        return
    if chosen == training.get("max_epochs") and len(recalls) > 1 and recalls[-1] > recalls[-2]:
        yield (
            f"Validation recall still rose in the last epoch ({recalls[-2]:.4f} to "
            f"{recalls[-1]:.4f}): raise training.max_epochs, now {chosen}."
        )
    elif chosen == 1 and len(recalls) > 1:
        yield (
            f"Validation recall fell after the first epoch ({recalls[0]:.4f} to {recalls[1]:.4f}): "
            f"lower training.learning_rate, now {training.get('learning_rate', 0.0):g}."
        )


def _other_half_life(winner: Method, spec: FeatureSpec) -> str:
    """Advice where the baseline forgets at another speed than every count of the towers."""
    days = winner.tuned.get("half_life_days")
    own = spec.popularity_half_lives_days
    if not isinstance(days, int | float) or any(1 / CLOSE <= days / each <= CLOSE for each in own):
        return ""
    shown = ", ".join(f"{each:g}" for each in own)
    return (
        f"It forgets half in {days:g} days, the towers' counts in {shown}: try that half-life in "
        "features.spec.popularity_half_lives_days."
    )


def _factors(winner: Method) -> list[str]:
    found = winner.tuned.get("factors", [])
    return [str(each) for each in found] if isinstance(found, list | tuple) else []


def _parts(winner: Method, position: int) -> list[str]:
    """What the factors count (0), or the columns that they are conditioned on (1), each once."""
    found: dict[str, None] = {}
    for factor in _factors(winner):
        parts = factor.removesuffix(" (snapshots)").split(" | ")
        if position < len(parts):
            found[parts[position]] = None
    return list(found)

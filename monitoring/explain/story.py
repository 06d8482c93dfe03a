"""Explain an alert: its cause, what speaks for it, and what was ruled out."""

import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from monitoring.budget import Evidence
from monitoring.explain.causes import CAUSES, KnownCause
from monitoring.explain.context import ExplainContext, WithoutValue
from monitoring.explain.moves import FEED, Moves, is_fault
from monitoring.explain.signs import SIGNS, Observed, find_signs
from monitoring.faults.causes import name_faults
from refit.drift import DriftResult
from refit.incident import Cause, Incident

DEPENDENCE = 0.8
"""Signs are seen together, so that each counts for less than if it was alone."""
SURE = 0.8
"""The smallest probability of a cause that is named; with less it is unknown."""
_POSSIBLE = 0.1
_TELLING = 0.3
_MOST_SENTENCES = 6
States = Mapping[str, bool | None]


def explain(
    results: Sequence[DriftResult], evidence: Evidence | None, context: ExplainContext
) -> Incident:
    """Tell the results of an alert as one story.

    Every cause says how often each sign shows with it. The signs that are known weigh the causes
    against each other (naive Bayes, all causes alike before, each sign tempered by
    ``DEPENDENCE``). A cause is named when its probability is at least ``SURE``; otherwise it is
    unknown, and the story says between what.

    Args:
        results: Of the newest and earlier windows, in any order. A result whose alert was resolved
            is given from then on, as for ``collect_evidence``.
        evidence: Of all results: which one moved most; None if it was not collected.
        context: What else is known.

    Raises:
        ValueError: There are no results.
    """
    if not results:
        raise ValueError("there are no results to explain")
    moves = Moves.of(results)
    seen = Observed(moves, context)
    states = find_signs(seen)
    ranked = weigh_causes(states)
    best, chance = ranked[0]
    moved = moves.list_moved()
    is_known = chance >= SURE and _has_reason(best, states)
    fault, feed, said = (
        _name_fault(moves, states) if best.cause is Cause.UPSTREAM_FAULT else ("",) * 3
    )
    cover = cover_results(context.without) if best.cause is Cause.NEW_SUPPLY else []
    explained, unexplained = _split(best, moved, cover) if is_known else ([], moved)
    return Incident(
        cause=best.cause if is_known else Cause.UNKNOWN,
        summary=_summarise(ranked, is_known, said, cover, explained, moved, evidence),
        began=moves.began,
        fault=fault if is_known else "",
        feed=feed if is_known else "",
        first_moved=moves.first_moved,
        explained=tuple(explained),
        unexplained=tuple(unexplained),
        evidence=tuple(_list_evidence(seen, states, ranked, said, cover)),
        ruled_out=tuple(_list_ruled_out(states, ranked, is_known)),
    )


def weigh_causes(states: States) -> list[tuple[KnownCause, float]]:
    """The causes with their probabilities, the most probable first."""
    scores = {
        each.cause: DEPENDENCE * sum(_log_chance(each, name, s) for name, s in states.items())
        for each in CAUSES
    }
    top = max(scores.values())
    total = sum(math.exp(score - top) for score in scores.values())
    ranked = sorted(CAUSES, key=lambda each: -scores[each.cause])
    return [(each, math.exp(scores[each.cause] - top) / total) for each in ranked]


def _log_chance(cause: KnownCause, sign: str, state: bool | None) -> float:
    if state is None:
        return 0.0
    chance = cause.chance(sign)
    return math.log(chance if state else 1.0 - chance)


def _has_reason(cause: KnownCause, states: States) -> bool:
    """Whether a sign that is there speaks for the cause: the absence of all others is no reason."""
    return any(
        state and cause.chance(name) > 2 * _mean_chance(cause, name)
        for name, state in states.items()
    )


def _mean_chance(cause: KnownCause, sign: str) -> float:
    others = [each.chance(sign) for each in CAUSES if each is not cause]
    return sum(others) / len(others)


def _name_fault(moves: Moves, states: States) -> tuple[str, str, str]:
    """Name, feed and words of the fault that came first, and that others follow from."""
    found = [
        r
        for name in moves.find(FEED + "*")
        for r in moves.series[name]
        if is_fault(r) and moves.is_recent(r)
    ]
    named = [r for r in name_faults(found) if is_fault(r)] or found
    if named:
        first = min(named, key=lambda r: (r.window.start, r.p_value or 0.0, -_strength(r), r.name))
        return first.statistic, first.subject.removeprefix(FEED), first.detail
    for sign, feed in (("fewer events", "events"), ("fewer listings", "items")):
        if states.get(sign):
            return "lost", feed, f"a part of the {feed} is missing"
    return "", "", ""


def _strength(result: DriftResult) -> float:
    return (result.value or 0.0) / max(result.threshold or 0.0, 1e-9)


def cover_results(without: Sequence[WithoutValue]) -> list[WithoutValue]:
    """The fewest values that explain most results: greedily the one that explains most of the rest.

    Source: Chvátal, A greedy heuristic for the set-covering problem, 1979.
    """
    chosen: list[WithoutValue] = []
    covered: set[str] = set()
    values = [each for each in without if each.value]
    while values:
        best = max(values, key=lambda w: (len(set(w.gone) - covered), w.now - w.before))
        more = len(set(best.gone) - covered)
        if not more or (chosen and more < max(2, 0.2 * len(best.measured))):
            break
        chosen.append(best)
        covered |= set(best.gone)
        values.remove(best)
    return chosen


def _split(
    cause: KnownCause, moved: Sequence[str], cover: Sequence[WithoutValue]
) -> tuple[list[str], list[str]]:
    """Results that follow from the cause, and the others."""
    gone = {name for each in cover for name in each.gone}
    explained = [
        name
        for name in dict.fromkeys([*moved, *sorted(gone)])
        if name in gone or any(fnmatchcase(name, pattern) for pattern in cause.follows)
    ]
    return explained, [name for name in moved if name not in explained]


def _summarise(
    ranked: Sequence[tuple[KnownCause, float]],
    is_known: bool,
    said: str,
    cover: Sequence[WithoutValue],
    explained: Sequence[str],
    moved: Sequence[str],
    evidence: Evidence | None,
) -> str:
    if not is_known:
        likely = [each for each, chance in ranked if chance >= _POSSIBLE][:3]
        between = " or ".join(each.cause.value for each in likely)
        return (
            f"Something changed in {_count(moved, evidence)}, and what was measured does not tell "
            f"why: it may be {between}."
        )
    best = ranked[0][0]
    if cover and len(cover[0].gone) >= 2:
        return f"{best.cause.value.capitalize()}: {_describe_value(cover[0])}."
    said = said or best.meaning
    follows = ""
    if explained:
        follows = f"; {len(explained)} of {len({*explained, *moved})} moved results follow from it"
    return f"{best.cause.value.capitalize()}: {said}{follows}."


def _count(moved: Sequence[str], evidence: Evidence | None) -> str:
    if len(moved) < 2:
        return moved[0] if moved else "what was measured"
    shares = evidence.shares if evidence is not None else {}
    most = max(moved, key=lambda name: shares.get(name, 0.0))
    return f"{len(moved)} results, most in {most}"


def _describe_value(found: WithoutValue) -> str:
    column = found.column.partition(".")[2].replace("_", " ").rstrip(" 0123456789") or found.column
    where = "new listings" if found.column.startswith("items.") else "events"
    kind = (
        f"a {column} never seen, {found.value!r}," if found.is_new else f"{column} {found.value!r}"
    )
    before = "" if found.is_new else f" ({found.before:.0%} before)"
    return (
        f"{kind} is {found.now:.0%} of {where}{before}; "
        f"{len(found.gone)} of {len(found.measured)} results follow from it"
    )


def _list_evidence(
    seen: Observed,
    states: States,
    ranked: Sequence[tuple[KnownCause, float]],
    said: str,
    cover: Sequence[WithoutValue],
) -> list[str]:
    """What speaks for the most probable cause, the strongest first."""
    best = ranked[0][0]
    sentences = [said] if said else []
    sentences += [_describe_value(each) for each in cover if len(each.gone) >= 2]
    weighed = []
    for sign in SIGNS:
        state = states[sign.name]
        if state is None or (sign.name == "named fault" and said):
            continue
        others = _mean_chance(best, sign.name)
        chance = best.chance(sign.name)
        weight = math.log(chance / others) if state else math.log((1 - chance) / (1 - others))
        if weight >= _TELLING:
            weighed.append((-weight, sign.there if state else sign.absent))
    sentences += [sentence for _, sentence in sorted(weighed)]
    return [f"{s[0].upper()}{s[1:]}." for s in dict.fromkeys(sentences)][:_MOST_SENTENCES]


def _list_ruled_out(
    states: States, ranked: Sequence[tuple[KnownCause, float]], is_known: bool
) -> list[str]:
    """Every other cause, with the strongest sign against it, or that none speaks against it."""
    best, _ = ranked[0]
    sentences = []
    for other, chance in ranked[1 if is_known else 0 :]:
        against = _find_against(states, other, best)
        if against and (is_known or chance < _POSSIBLE):
            sentences.append(f"{other.cause.value}: {against}")
        else:
            sentences.append(f"{other.cause.value}: not ruled out")
    return sentences


def _find_against(states: States, cause: KnownCause, best: KnownCause) -> str:
    """The sign that speaks most against a cause, beside the one that is most probable."""
    found = (0.0, "")
    for sign in SIGNS:
        state = states[sign.name]
        if state is None:
            continue
        rival = _mean_chance(cause, sign.name) if cause is best else best.chance(sign.name)
        chance = cause.chance(sign.name)
        weight = math.log(rival / chance) if state else math.log((1 - rival) / (1 - chance))
        if weight > max(found[0], _TELLING):
            found = weight, sign.there if state else sign.absent
    return found[1]

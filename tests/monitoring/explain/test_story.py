"""Each cause from results made by hand; what is unknown is never evidence."""

from datetime import timedelta

import pytest

from monitoring.explain import ExplainContext, explain
from monitoring.explain.context import WithoutValue
from monitoring.explain.moves import Moves
from monitoring.explain.signs import SIGNS, Observed, find_signs
from monitoring.explain.story import cover_results, weigh_causes
from refit.drift import DriftState
from refit.incident import Cause
from tests.monitoring.explain.cases import (
    BEGAN,
    CALM,
    DAYS,
    LISTED,
    START,
    USUAL,
    context,
    day,
    lived,
    result,
)

QUERIES, SCORES = "query-embedding/mean_shift", "scores/quantile_shares"
ASKED = "input:events.wanted_category/value_shares"
CATEGORY, PRICE = "input:items.category_1/value_shares", "input:items.price/quantile_shares"
NEW = ("input:items.category_1/new_values", "input:items.brand/new_values")
OUTDOOR = WithoutValue(
    column="items.category_1",
    value="outdoor",
    now=0.48,
    is_new=True,
    measured=(CATEGORY, *NEW, QUERIES),
    gone=(CATEGORY, *NEW),
)


def tell(*moved, known=None, **changes):
    return explain(lived(*moved, **changes), None, known or context())


def test_a_named_fault_is_an_upstream_fault():
    story = tell("feed:items.price/scale", PRICE, "mix:price_band/value_shares")
    assert (story.cause, story.fault, story.feed) == (Cause.UPSTREAM_FAULT, "scale", "items.price")
    assert story.began == BEGAN
    assert PRICE in story.explained
    assert not story.unexplained


def test_outcomes_that_name_no_answer_are_an_upstream_fault():
    lost = "feed:events.request_id/unattributed"
    story = tell("live:click-lift/drop", "live:purchase-lift/drop", lost)
    assert (story.cause, story.feed) == (Cause.UPSTREAM_FAULT, "events.request_id")


def test_new_supply_names_the_value_that_explains_most():
    moved = (*NEW, CATEGORY, "input:items.image_embedding/centroid_shift", ASKED, QUERIES)
    story = tell(*moved, known=context(without=(OUTDOOR,)))
    assert story.cause is Cause.NEW_SUPPLY
    assert "a category never seen, 'outdoor', is 48% of new listings" in story.summary
    assert "3 of 4 results follow from it" in story.summary
    assert {CATEGORY, *NEW} <= set(story.explained)
    assert len(story.ruled_out) == 6


def test_many_more_listings_of_other_kinds_are_new_supply():
    moved = ("input:items.brand/value_shares", "input:items.image_embedding/vector_norm", PRICE)
    assert tell(*moved, known=context(factors={"listings": 2.5})).cause is Cause.NEW_SUPPLY


def test_liking_other_things_among_the_same_is_taste():
    story = tell(known=context(liked=("image_embedding",)))
    assert story.cause is Cause.TASTE
    assert "like other pictures" in story.evidence[0]


def test_other_categories_asked_for_and_listed_are_the_season():
    assert tell(ASKED, CATEGORY, QUERIES).cause is Cause.SEASON


def test_what_is_asked_for_is_in_any_column_beyond_the_contract():
    names = [name for name in USUAL if name != ASKED]

    def sees(moved):
        moves = Moves.of(lived(moved, names=names))
        return find_signs(Observed(moves, context()))["asked for"]

    assert sees("input:events.occasion/value_shares")
    assert sees("input:events.event_type/value_shares") is None


def test_an_index_older_than_ever_is_index_age():
    story = tell(SCORES, known=context(index_age_days=11.0))
    assert story.cause is Cause.INDEX_AGE
    assert story.explained == (SCORES,)


def test_queries_that_move_by_themselves_are_the_model():
    story = tell(QUERIES, SCORES)
    assert story.cause is Cause.MODEL
    assert any("nothing that queries are made of" in sentence for sentence in story.evidence)


def test_a_new_champion_that_people_follow_less_is_the_model():
    earlier = [result("live:click-rate/drop", day(n), towers="t1") for n in range(CALM)]
    worse = "promotion:click-rate/drop"
    since = [r for r in lived(worse) if r.window.start >= BEGAN]
    story = explain([*earlier, *since], None, context(champion_since=BEGAN))
    assert story.cause is Cause.MODEL


def test_fewer_purchases_everywhere_are_the_market():
    story = tell("input:events.event_type/value_shares", known=context(factors={"purchases": 0.6}))
    assert story.cause is Cause.MARKET


def test_dearer_listings_of_all_kinds_that_sell_less_are_the_market():
    moved = (PRICE, "mix:price_band/value_shares")
    assert tell(*moved, known=context(factors={"purchases": 0.7})).cause is Cause.MARKET


def test_signs_of_two_causes_give_unknown():
    both = context(liked=("image_embedding",), index_age_days=11.0)
    story = tell(ASKED, CATEGORY, known=both)
    assert story.cause is Cause.UNKNOWN
    assert "does not tell why" in story.summary
    assert sum("not ruled out" in sentence for sentence in story.ruled_out) >= 2
    assert set(story.unexplained) == {ASKED, CATEGORY}


def test_where_nothing_moved_nothing_is_named():
    story = tell()
    assert story.cause is Cause.UNKNOWN
    assert not story.explained


def test_nothing_measured_is_evidence_for_nothing():
    results = lived(unmeasured=USUAL)
    states = find_signs(Observed(Moves.of(results), ExplainContext()))
    assert set(states.values()) == {None}
    assert {round(chance, 9) for _, chance in weigh_causes(states)} == {round(1 / 7, 9)}
    assert explain(results, None, ExplainContext()).cause is Cause.UNKNOWN


@pytest.mark.parametrize("sign", [sign.name for sign in SIGNS])
def test_a_sign_that_becomes_unknown_only_loses_its_weight(sign):
    states = find_signs(Observed(Moves.of(lived(QUERIES)), context()))
    with_it = {c.cause: p for c, p in weigh_causes(states)}
    without = {c.cause: p for c, p in weigh_causes({**states, sign: None})}
    if states[sign] is None:
        assert with_it == without
    assert sum(without.values()) == pytest.approx(1.0)


def test_results_of_the_feed_do_not_count_once_the_fault_is_chance():
    weak = [
        r.model_copy(update={"p_value": 1e-3}) if r.subject.startswith("feed:") else r
        for r in lived("feed:items.price/scale")
    ]
    assert explain(weak, None, context()).cause is Cause.UNKNOWN


def test_the_beginning_is_that_of_the_latest_run_of_drift():
    results = lived(QUERIES, SCORES)
    old = [
        r.model_copy(update={"state": DriftState.DRIFT, "p_value": 1e-5})
        if r.name == QUERIES and r.window.start == START
        else r
        for r in results
    ]
    moves = Moves.of(old)
    assert moves.began == BEGAN
    assert moves.first_moved in (QUERIES, SCORES)
    late = [r for r in old if not (r.name == SCORES and r.window.start == BEGAN)]
    assert Moves.of(late).first_moved == QUERIES


def test_drift_that_ended_moves_nothing():
    results = [
        *lived(*LISTED, days=1),
        *(result(name, day(CALM + n), moves=False) for n in range(1, 6) for name in USUAL),
    ]
    assert not Moves.of(results).list_moved()


def test_live_rates_began_before_their_windows():
    moves = Moves.of(lived("live:click-lift/drop", days=DAYS))
    assert moves.began == BEGAN - timedelta(days=2)


def test_the_fewest_values_are_chosen():
    def found(value, *gone):
        return WithoutValue(
            column="items.brand", value=value, now=0.2, measured=tuple("abcdef"), gone=gone
        )

    values = (found("one", "a", "b"), found("two", "a", "b", "c", "d"), found("three", "e", "f"))
    assert [each.value for each in cover_results(values)] == ["two", "three"]
    assert cover_results((found("none"),)) == []


def test_no_results_are_no_story():
    with pytest.raises(ValueError, match="no results"):
        explain([], None, ExplainContext())

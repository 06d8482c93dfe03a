import pytest

from refit.errors import UsageError
from refit.predicates import (
    ITEM_ID,
    SELLER,
    AllOf,
    AnyOf,
    Between,
    ListedAfter,
    Not,
    OneOf,
    UnderShown,
)
from serving.engines.filters import say, uuid_of
from serving.engines.nodes import Turns
from serving.engines.settings import EngineSettings

KINDS = {SELLER: "text", "brand": "text", "price": "number", "size (EU)": "text"}
UNSAYABLE = OneOf("size (EU)", ("38",))


def tell(filters):
    """Filters as nested tuples, short enough to compare."""
    name = filters.Operator.Name(filters.operator).removeprefix("OPERATOR_")
    if filters.filters:
        return (name, *map(tell, filters.filters))
    value = getattr(filters, filters.WhichOneof("test_value"))
    return name, filters.target.property, getattr(value, "values", value)


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        (OneOf("brand", ("Acne ", "")), ("CONTAINS_ANY", "c_brand", ["=Acne =", "=="])),
        (OneOf("price", (80, 90.5)), ("CONTAINS_ANY", "c_price", [80.0, 90.5])),
        (OneOf(ITEM_ID, ("m1",)), ("CONTAINS_ANY", "_id", [uuid_of("m1")])),
        (Between("price", 5.0), ("GREATER_THAN_EQUAL", "c_price", 5.0)),
        (
            Between("price", 5.0, 9.0),
            (
                "AND",
                ("GREATER_THAN_EQUAL", "c_price", 5.0),
                ("LESS_THAN_EQUAL", "c_price", 9.0),
            ),
        ),
        (Not(OneOf(SELLER, ("u1",))), ("NOT", ("CONTAINS_ANY", "c_seller_id", ["=u1="]))),
        (ListedAfter(1_700_000_000_000_001), ("GREATER_THAN", "listed_at", 1_700_000_000_000_001)),
        (AllOf((OneOf("brand", ("a",)), UNSAYABLE)), ("CONTAINS_ANY", "c_brand", ["=a="])),
    ],
)
def test_conditions_are_said(condition, told):
    assert tell(say(condition, KINDS).filters) == told


@pytest.mark.parametrize(
    "condition",
    [
        None,
        UNSAYABLE,
        OneOf("unknown", ("x",)),
        OneOf("brand", ()),
        Between("brand", 1.0),
        AnyOf((OneOf("brand", ("a",)), UNSAYABLE)),
        AllOf((UNSAYABLE,)),
        Not(UNSAYABLE),
        Not(AllOf((OneOf("brand", ("a",)), UNSAYABLE))),
        Not(UnderShown(0.2)),
    ],
)
def test_what_cannot_be_said_whole_is_left_out_where_it_would_say_more(condition):
    assert say(condition, KINDS).filters is None


def test_the_place_by_popularity_leaves_room_for_another_bundle():
    name, on, most = tell(say(UnderShown(0.2), KINDS).filters)
    assert (name, on) == ("LESS_THAN_EQUAL", "popularity_rank")
    assert most == pytest.approx(0.201)


def test_nodes_take_turns_and_one_that_failed_comes_last_for_a_moment():
    now = [0.0]
    turns = Turns(3, lambda: now[0])
    assert [turns.order()[0] for _ in range(4)] == [0, 1, 2, 0]
    turns.set_aside(1)
    assert all(turns.order()[-1] == 1 for _ in range(6))
    now[0] = 2.0
    assert sorted({turns.order()[0] for _ in range(3)}) == [0, 1, 2]
    assert Turns(1).order() == [0, 0], "a Service stands for several nodes"


def test_settings_that_cannot_work_are_refused():
    node = {"http": ["w:8080"], "grpc": ["w:50051"]}
    assert EngineSettings.parse({"weaviate": node}).weaviate is not None
    assert EngineSettings().weaviate is None
    for wrong in ({"attempt_ms": 900.0}, {"collections": "refit"}, {"grpc": []}, {"hosts": []}):
        with pytest.raises(UsageError):
            EngineSettings.parse({"weaviate": {**node, **wrong}})


def test_an_item_has_the_same_id_on_every_machine():
    assert uuid_of("m1") == "44c13acf-2dac-5146-876b-a2e8dbec86cf"
    assert uuid_of("m1 ") != uuid_of("m1")

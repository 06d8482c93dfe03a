import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.request import (
    Request,
    RequestError,
    parse_batch,
    parse_request,
    parse_similar,
)
from tests.serving.malformed import EVENT, MALFORMED


@pytest.mark.parametrize(("body", "named"), MALFORMED)
def test_a_malformed_request_is_refused_by_name(body, named):
    with pytest.raises(RequestError, match=named):
        parse_request(body)


def test_a_full_request_is_read():
    request = parse_request(
        {
            "user_id": "u",
            "history": [EVENT],
            "context": {"occasion": "party", "age": 30, "size": None},
            "k": 3,
            "exclude": ["x"],
            "require": {"size": ["M", "L"], "price": {"max": 20}},
            "request_id": "r",
            "time": "2026-01-02T01:00:00+01:00",
        }
    )
    assert request.history[0].event_time == datetime(2026, 1, 1, tzinfo=UTC)
    assert request.time == datetime(2026, 1, 2, tzinfo=UTC)
    assert request.require["price"].max == 20


def test_whole_floats_are_ints_since_protobuf_has_no_ints():
    assert parse_request({"k": 7.0}).k == 7


def test_a_naive_time_is_utc():
    assert parse_request({"time": "2026-01-02T00:00:00"}).time == datetime(2026, 1, 2, tzinfo=UTC)


def test_a_long_list_of_faults_is_shortened():
    with pytest.raises(RequestError, match="and 5 more"):
        parse_request({"exclude": [1] * 10})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from([*Request.model_fields, "unknown"])
NEARLY = st.fixed_dictionaries(
    {},
    optional={
        "user_id": st.text(max_size=5) | JSON,
        "k": st.integers() | st.floats() | JSON,
        "history": st.lists(
            st.fixed_dictionaries(
                {
                    "item_id": st.text() | JSON,
                    "event_type": st.sampled_from(["view", "purchase", "VIEW"]) | JSON,
                    "event_time": st.datetimes().map(datetime.isoformat) | st.text() | JSON,
                }
            )
            | JSON,
            max_size=3,
        ),
        "context": st.dictionaries(st.text(), JSON, max_size=3),
        "require": st.dictionaries(
            st.text(max_size=5), JSON | st.fixed_dictionaries({"min": JSON, "max": JSON})
        ),
        "exclude": JSON,
        "time": st.datetimes(timezones=st.timezones()).map(datetime.isoformat) | JSON,
    },
)


@given(
    JSON
    | st.dictionaries(FIELDS | st.just("item_id"), JSON)
    | st.fixed_dictionaries({"requests": st.lists(NEARLY | JSON, max_size=3) | JSON})
    | st.fixed_dictionaries({"item_id": st.text(max_size=5) | JSON, "k": st.integers() | JSON})
)
def test_a_batch_and_a_request_about_an_item_are_parsed_or_refused(body):
    for parse in (parse_batch, parse_similar):
        try:
            parse(body)
        except RequestError as error:
            assert str(error).encode()  # noqa: PT017 - refusing is one of two good ends


@given(JSON | st.dictionaries(FIELDS, JSON) | NEARLY)
def test_any_body_is_parsed_or_refused_with_a_message_that_can_be_sent(body):
    try:
        request = parse_request(body)
    except RequestError as error:
        assert str(error).encode()  # noqa: PT017 - refusing is one of two good ends
    else:
        # What was taken can be stored and sent on.
        json.dumps(request.model_dump(mode="json"), allow_nan=False).encode()
        request.model_dump_json().encode()

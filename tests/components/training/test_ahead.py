import threading
from collections.abc import Iterator

import pytest

from components.training.ahead import build_ahead


def test_items_come_in_order_and_are_made_by_another_thread() -> None:
    makers = []

    def numbers() -> Iterator[int]:
        for i in range(100):
            makers.append(threading.get_ident())
            yield i

    assert list(build_ahead(numbers(), 3)) == list(range(100))
    assert len(set(makers)) == 1
    assert threading.get_ident() not in makers


def test_no_more_are_made_than_are_wanted_ahead() -> None:
    made = []

    def numbers() -> Iterator[int]:
        for i in range(100):
            made.append(i)
            yield i

    ahead = build_ahead(numbers(), 3)
    assert next(ahead) == 0
    ahead.close()
    assert len(made) <= 1 + 3


def test_an_error_is_raised_where_its_item_would_have_been() -> None:
    def numbers() -> Iterator[int]:
        yield 1
        raise ValueError("no more")

    ahead = build_ahead(numbers())
    assert next(ahead) == 1
    with pytest.raises(ValueError, match="no more"):
        next(ahead)

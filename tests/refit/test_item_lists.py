import numpy as np
import pytest

from refit.item_lists import UserItems


def listed(lists) -> list[tuple[int, int]]:
    return sorted(zip(lists.query.tolist(), lists.item.tolist(), strict=True))


def test_the_items_of_each_user():
    bought = UserItems(np.array([2, 0, 2], np.int32), np.array([7, 1, 3], np.int32), n_users=4)
    assert len(bought) == 3
    assert listed(bought.of(np.array([2, -1, 1, 0, 2]))) == [(0, 3), (0, 7), (3, 1), (4, 3), (4, 7)]
    assert listed(UserItems(np.array([]), np.array([]), 0).of(np.array([-1]))) == []
    assert [bought.of_user(user).item.tolist() for user in (2, 1, -1)] == [[7, 3], [], []]


def test_only_what_happened_strictly_before_counts():
    bought = UserItems(np.array([0, 0, 1]), np.array([5, 6, 7]), 2, np.array([20, 10, 10]))
    users, before = np.array([0, 0, 0, 0, 1, -1]), np.array([10, 11, 20, 99, 11, 99])
    assert listed(bought.of(users, before)) == [(1, 6), (2, 6), (3, 5), (3, 6), (4, 7)]


@pytest.mark.parametrize("seed", range(5))
def test_it_agrees_with_a_loop(seed):
    rng = np.random.default_rng(seed)
    user, item, time = (rng.integers(n, size=200) for n in (9, 40, 30))
    users, before = rng.integers(-1, 9, size=50), rng.integers(-1, 32, size=50)
    expected = [
        (query, int(item[i]))
        for query, (who, until) in enumerate(zip(users, before, strict=True))
        for i in range(200)
        if user[i] == who and time[i] < until
    ]
    assert listed(UserItems(user, item, 9, time).of(users, before)) == sorted(expected)

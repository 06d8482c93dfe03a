import numpy as np
import pytest

from refit.exposure import head_share, repetition


def test_the_head_takes_its_share_of_the_places():
    shown = np.concatenate([[30.0, 10.0], np.ones(60)])
    assert head_share(shown, 200) == pytest.approx(0.4)
    assert head_share(np.concatenate([shown, np.zeros(138)]), 200) == pytest.approx(0.4)
    assert head_share(np.array([3.0, 1.0]), 2) == 0.75, "at least one item"
    assert np.isnan(head_share(np.zeros(3), 3))
    assert np.isnan(head_share(np.array([]), 0))


def test_repetition_counts_the_later_lists_of_a_person():
    lists = [("a", [1, 2]), ("b", [1]), ("a", [1, 2]), ("a", [3, 2])]
    # Three of the four places of a's later lists are repeated.
    assert repetition(lists) == 0.75
    assert np.isnan(repetition(lists[:2]))

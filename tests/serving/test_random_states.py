"""Answers in random states with running feeds are those that bundle and lines lead to.

``make test-live`` goes through 2,000 states; here are a few.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.serving import tiny
from tests.serving.random_states import RandomMarket

STATES = 25


@pytest.fixture(scope="module")
def live_bundles(root: Path, model: Path):
    """Two bundles of one hour ago: what is newer has a now."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny, "AS_OF", datetime.now(UTC) - timedelta(hours=3))
        first = tiny.make_bundle(root / "live", model)
        return first, tiny.make_bundle(root / "live", model, seed=1)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_replay_answers_as_the_lines_say(tmp_path, bundle, other_bundle, model_server, seed):
    market = RandomMarket(tmp_path, (bundle, other_bundle), model_server, seed, is_replay=True)
    assert market.run(STATES) >= 5 * STATES


@pytest.mark.parametrize("seed", [3, 4])
def test_a_live_server_answers_as_the_lines_say(tmp_path, live_bundles, model_server, seed):
    market = RandomMarket(tmp_path, live_bundles, model_server, seed, is_replay=False)
    assert market.run(STATES) >= 5 * STATES

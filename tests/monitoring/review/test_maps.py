import numpy as np
import pyarrow as pa
import pytest

from monitoring.frame import Frame
from monitoring.review.maps import collect_maps, draw_map, mark_new_cluster


@pytest.fixture
def random():
    return np.random.default_rng(1)


def market(random, n, d, centres):
    return centres[random.integers(0, len(centres), n)] + 0.3 * random.normal(size=(n, d))


@pytest.mark.parametrize("d", [8, 32])
@pytest.mark.parametrize("n", [500, 2000])
def test_a_new_cluster_is_marked_and_nothing_where_there_is_none(random, d, n):
    centres = random.normal(size=(8, d))
    reference, calm = market(random, 2000, d, centres), market(random, n, d, centres)
    assert not mark_new_cluster(reference, calm).any()
    new = random.normal(size=d) + 0.3 * random.normal(size=(n // 20, d))
    marked = mark_new_cluster(reference, np.concatenate([calm, new]))
    assert marked[:n].sum() <= 2
    assert marked[n:].mean() >= 0.7


def test_single_odd_vectors_are_no_cluster(random):
    centres = random.normal(size=(8, 16))
    odd = 9 * random.normal(size=(20, 16))
    current = np.concatenate([market(random, 400, 16, centres), odd])
    assert not mark_new_cluster(market(random, 2000, 16, centres), current).any()


def test_too_few_vectors_mark_nothing(random):
    few = random.normal(size=(4, 8))
    many = random.normal(size=(90, 8))
    assert not mark_new_cluster(few, many).any()
    assert not mark_new_cluster(many, few).any()
    assert mark_new_cluster(many, np.empty((0, 8))).shape == (0,)


def test_the_map_shows_the_rows_of_the_cluster_nearest_to_its_middle(random):
    centres = random.normal(size=(4, 16))
    new = random.normal(size=16) + 0.3 * random.normal(size=(40, 16))
    current = np.concatenate([market(random, 400, 16, centres), new])
    rows = [{"item_id": str(i), "title": "<b>"} for i in range(440)]
    drawn = draw_map("listings", market(random, 900, 16, centres), current, rows)
    assert drawn.marked >= 28
    assert 0 < len(drawn.rows) <= 12
    assert all(int(row["item_id"]) >= 400 for row in drawn.rows)
    assert drawn.picture.startswith("<svg")
    assert "new cluster" in drawn.picture
    assert "form a cluster where the reference has none" in drawn.caption


def test_without_a_new_cluster_the_map_says_so(random):
    centres = random.normal(size=(4, 1))
    drawn = draw_map("queries", market(random, 300, 1, centres), market(random, 300, 1, centres))
    assert (drawn.marked, drawn.rows) == (0, ())
    assert drawn.caption.startswith("No new cluster")


class Known:
    """Of a reference, its frames."""

    def __init__(self, **frames):
        self.frames = frames


def frame(vectors, **columns):
    cells = pa.array([None, *(list(map(float, v)) for v in vectors)], pa.list_(pa.float32()))
    return Frame(pa.table({"embedding": cells, **columns}), np.zeros(len(vectors) + 1))


def test_maps_are_made_of_what_both_sides_have(random):
    centres = random.normal(size=(4, 8))
    new = random.normal(size=8) + 0.2 * random.normal(size=(30, 8))
    current = np.concatenate([market(random, 200, 8, centres), new])
    columns = {
        "item_id": [f"i{n}" for n in range(231)],
        "price": [*(n / 3 for n in range(230)), None],
    }
    reference = Known(listings=frame(market(random, 600, 8, centres)))
    (found,) = collect_maps(reference, {"listings": frame(current, **columns)})
    assert found.title == "listings"
    assert found.marked >= 20
    assert {"item_id", "price"} >= set(found.rows[0]) >= {"item_id"}
    assert all(int(row["item_id"][1:]) > 200 for row in found.rows)  # the null vector comes first
    assert list(collect_maps(reference, {})) == []
    assert list(collect_maps(Known(), {"listings": frame(current, **columns)})) == []

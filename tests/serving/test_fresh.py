"""Views of growing arrays against a plain list, while listings come, change and are sold."""

import numpy as np
import pytest

from serving import fresh as module
from serving.catalogue import Catalogue
from serving.fresh import FreshListings, Listing
from tests.serving import tiny

BRANDS = ("acne", "cos", "new brand", None)


@pytest.fixture(scope="module")
def catalogue(bundle):
    return Catalogue(bundle)


def make_listing(catalogue, rng, item):
    number = catalogue.number_of(item)
    if number is None:
        number = catalogue.n_numbers + int(item.removeprefix("new-"))
    vector, content = rng.normal(size=tiny.D), rng.normal(size=tiny.C)
    attributes = {
        "brand": BRANDS[rng.integers(4)],
        "price": None if rng.random() < 0.2 else float(rng.integers(20)),
        "seller_id": f"user-{rng.integers(3)}",
    }
    return Listing(item, number, attributes, vector.astype("f4"), content.astype("f4"))


def check(view, listings, gone):
    """A view against the listings that were there, row by row; ``gone`` is by row."""
    assert len(view) == len(listings)
    assert view.n_live == len(listings) - sum(gone)
    flags = view.not_live_at(np.array([0]))
    assert (flags.tolist() if flags is not None else [False] * len(gone)) == gone
    query = np.ones(tiny.D, np.float32)
    np.testing.assert_allclose(
        view.score(query), [one.vector.sum() for one in listings], 1e-4, 1e-5
    )
    for brand in BRANDS[:3]:
        expected = [one.attributes["brand"] == brand for one in listings]
        assert view.column("brand").matches([brand]).tolist() == expected
    expected = [one.attributes["price"] in (3.0, 4.0) for one in listings]
    assert view.column("price").matches([3.0, 4.0]).tolist() == expected
    own = view.sellers.find(["user-1"]).position.tolist()
    assert own == [i for i, one in enumerate(listings) if one.attributes["seller_id"] == "user-1"]
    assert [view.listings[row].item_id for row in range(len(view))] == [o.item_id for o in listings]


def test_a_view_stays_as_it_was_but_for_sales(catalogue, monkeypatch):
    monkeypatch.setattr(module, "MOST_GONE", 20)
    rng = np.random.default_rng(0)
    store, rows, gone, views = FreshListings(catalogue), [], [], []
    compacted = 0
    for _ in range(300):
        items = rng.permutation(
            [*(f"new-{n}" for n in range(60)), "item-3", "item-202", "long-gone"]
        )
        kept = store.compact()
        if kept is not store:
            compacted += 1
            store, views = kept, []
            rows = [one for one, is_gone in zip(rows, gone, strict=True) if not is_gone]
            gone = [False] * len(rows)
        added = [make_listing(catalogue, rng, item) for item in items[: rng.integers(4)]]
        for one in added:
            gone = [g or rows[i].item_id == one.item_id for i, g in enumerate(gone)]
        rows, gone = [*rows, *added], [*gone, *[False] * len(added)]
        store.add(added)
        for item in items[-2:]:
            store.remove(item)
            gone = [g or rows[i].item_id == item for i, g in enumerate(gone)]
        view = store.view()
        views.append((view, len(rows)))
        check(view, rows, gone)
        assert store.n_live == view.n_live
        for view, n in views[-5:]:
            latest = {one.number: row for row, one in enumerate(rows[:n])}
            asked = np.array([*range(5), 202, 205, *range(206, 260)])
            assert view.positions(asked).tolist() == [latest.get(i, -1) for i in asked.tolist()]
            np.testing.assert_array_equal(
                view.vectors, [o.vector for o in rows[:n]] or view.vectors
            )
    assert compacted > 2


def test_the_time_of_listing_is_told_or_that_of_the_bundle(catalogue):
    store, zeros = FreshListings(catalogue), np.zeros(tiny.D, np.float32)
    told = [{"listed_at": tiny.LATER}, {"listed_at": "2026-03-01T02:00:00"}, {}, {"listed_at": "x"}]
    store.add(
        [Listing(f"n{i}", 1000 + i, one, zeros, zeros[: tiny.C]) for i, one in enumerate(told)]
    )
    hours = (store.view().listed_at / 1e6 - tiny.AS_OF.timestamp()) / 3600
    assert hours.tolist() == [1, 2, 0, 0]

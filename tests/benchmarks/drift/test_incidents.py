"""Every kind of incident can be lived through, at every size, and says what is true."""

import pytest

from refit.alert import Action
from refit.incident import Cause
from simulation.feed_faults import FAULTS
from tests.benchmarks.drift.incidents import KINDS, SIZES, draw_incidents, live_incidents

SMALL = {
    "preset": "living",
    "days": 12,
    "n_shoppers": 250,
    "listings_per_day": 60.0,
    "visits_per_day": 200.0,
    "requests_per_day": 40,
}


def test_kinds_and_sizes_are_balanced_and_follow_from_the_seed():
    n = 2 * len(KINDS) * len(SIZES)
    drawn = draw_incidents(n, seed=3)
    assert drawn == draw_incidents(n, seed=3) != draw_incidents(n, seed=4)
    assert {(i.kind, i.size) for i in drawn} == {(k, s) for k in KINDS for s in SIZES}
    assert {i.cause for i in drawn} == set(Cause) - {Cause.UNKNOWN}
    assert {i.action for i in drawn} == set(Action) - {Action.NOTHING}
    for incident in drawn:
        upstream = incident.cause is Cause.UPSTREAM_FAULT
        assert (incident.fault in FAULTS) == bool(incident.feed) == upstream
        assert bool(incident.change) + bool(incident.feed_fault) + bool(incident.operation[0]) == 1


@pytest.mark.parametrize("kind", ["swapped columns", "new category", "worse model"])
def test_an_incident_begins_after_the_calm_days(kind, tmp_path):
    incidents = draw_incidents(1, kinds=[kind], sizes=["large"])
    prepared = []
    for incident, market in live_incidents(incidents, tmp_path, prepared.append, SMALL):
        days = market.quality().to_pandas()
        assert len(days) == incident.calm_days + incident.days
        begun = market.market.day - incident.days
        if kind == "swapped columns":
            assert market.faults[0].since == market.now - (
                market.now - days.date[len(days) - incident.days]
            )
        elif kind == "new category":
            items = market.exported()["items"].to_pandas()
            new = items[items.category_1 == "outdoor"]
            assert (new.listed_at >= days.date[len(days) - incident.days]).all()
            assert len(new) > 20
            assert market.market.settings.changes[0].day == begun
        else:
            versions = list(days.embedding_version)
            assert len(set(versions[: incident.calm_days])) == 1
            assert versions[incident.calm_days - 1] != versions[incident.calm_days]
    assert len(prepared) == 1
    assert not list(tmp_path.iterdir())

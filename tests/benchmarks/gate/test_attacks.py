"""The attacks themselves, without a model: what they set is read, what they change is changed."""

import re

import pytest

from refit.errors import UsageError
from simulation.history import write_history
from tests.benchmarks.gate.attacks import ATTACKS, DATA_ATTACKS, GATE_ATTACKS
from tests.benchmarks.gate.market import SIMULATED, TABLES, open_market, read_settings
from tests.benchmarks.gate.registry_attacks import ATTACKS as REGISTRY_ATTACKS

SMALL = {"days": 3, "n_shoppers": 60, "listings_per_day": 30.0, "visits_per_day": 60.0}
REFUSED_IN_SETTINGS = {
    "the event's own price as context",
    "a tolerance that is infinite",
    "a bound on what nobody measured",
}


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    folder = tmp_path_factory.mktemp("market")
    write_history(SIMULATED | SMALL, folder)
    return folder


def test_every_attack_has_its_own_name_and_the_reason_it_is_refused_for():
    assert len(ATTACKS) == len(DATA_ATTACKS) + len(GATE_ATTACKS)
    assert len(ATTACKS) + len(REGISTRY_ATTACKS) >= 24
    for attack in ATTACKS.values():
        assert attack.names or attack.expected == "no gain", attack.name


@pytest.mark.parametrize("name", ATTACKS)
def test_the_settings_of_an_attack_are_read_unless_they_are_the_attack(name):
    changes = {"ingestion": {"path": "data"}} | ATTACKS[name].settings
    if name in REFUSED_IN_SETTINGS:
        with pytest.raises(UsageError, match=re.escape(ATTACKS[name].names)):
            read_settings(changes)
    else:
        read_settings(changes)


@pytest.mark.parametrize("name", [attack.name for attack in DATA_ATTACKS if attack.sql])
def test_an_attack_on_the_tables_changes_them(name, market):
    con = open_market(market)
    con.execute(ATTACKS[name].sql.replace("range(1950000)", "range(1000)"))
    changed = [
        table
        for table in TABLES
        if con.sql(f"FROM '{market / table}.parquet'").fetchall()
        != con.sql(f"FROM {table}").fetchall()
    ]
    assert changed

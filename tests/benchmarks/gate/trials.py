"""The attacks on the data and on the gate, tried two at a time."""

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

from tests.benchmarks.gate.attacks import ATTACKS, DATA_ATTACKS, GATE_ATTACKS, Attack
from tests.benchmarks.gate.market import (
    Judgement,
    copy_parts,
    judge,
    judge_again,
    open_market,
    save_market,
)

PROCESSES = 2


def judge_attacks(
    root: Path, market: Path, parts: Path, only: str = ""
) -> Iterator[tuple[Attack, Judgement]]:
    """Each attack and what became of it, in order.

    Args:
        root: Folder for the attacks' own folders.
        market: The tables of the honest shop.
        parts: The outputs of the honest shop's steps.
        only: Only attacks whose name contains this.
    """
    # Two trainings side by side are faster than one with both cores.
    os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ["TF_NUM_INTEROP_THREADS"] = "1"
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, context) as pool:
        running: list[tuple[Attack, Future[Judgement]]] = []
        for number, attack in enumerate(a for a in DATA_ATTACKS if only in a.name):
            own = root / f"data-{number}"
            running.append((attack, pool.submit(_attack_data, attack.name, market, own)))
        for number, attack in enumerate(a for a in GATE_ATTACKS if only in a.name):
            own = root / f"gate-{number}"
            running.append((attack, pool.submit(_attack_gate, attack.name, parts, own)))
        for attack, future in running:
            yield attack, future.result()


def _attack_data(name: str, market: Path, own: Path) -> Judgement:
    attack = ATTACKS[name]
    con = open_market(market)
    if attack.sql:
        con.execute(attack.sql)
    save_market(con, own / "market")
    con.close()
    return judge(own / "market", attack.settings, own / "steps")


def _attack_gate(name: str, parts: Path, own: Path) -> Judgement:
    attack = ATTACKS[name]
    copy_parts(parts, own / "parts")
    if attack.change:
        attack.change(own / "parts")
    return judge_again(own / "parts", attack.settings, own)

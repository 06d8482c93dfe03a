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
from tests.benchmarks.gate.workers import name_main

PROCESSES = 2
MAY_GAIN = 0.03
"""An attack that is not refused may reach this much more than the honest model."""


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
    with ProcessPoolExecutor(PROCESSES, context, name_main) as pool:
        running: list[tuple[Attack, Future[Judgement]]] = []
        for number, attack in enumerate(a for a in DATA_ATTACKS if only in a.name):
            own = root / f"data-{number}"
            running.append((attack, pool.submit(_attack_data, attack.name, market, own)))
        for number, attack in enumerate(a for a in GATE_ATTACKS if only in a.name):
            own = root / f"gate-{number}"
            running.append((attack, pool.submit(_attack_gate, attack.name, parts, own)))
        for attack, future in running:
            yield attack, future.result()


def withstood(attack: Attack, found: Judgement, honest: float) -> bool:
    """Whether an attack was refused for its own reason, or gains nothing where it may pass.

    Args:
        attack: What was tried.
        found: What became of it.
        honest: The honest model's metric.
    """
    named = not found.passed and any(attack.names in reason for reason in found.reasons)
    if attack.expected == "refused":
        return named
    if found.metric is None or attack.compared not in ("", *found.compared):
        return False
    harmless = found.metric <= honest + MAY_GAIN
    if attack.compared:
        return harmless and found.passed
    return harmless or (bool(attack.names) and named)


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

"""When an attack counts as withstood."""

import pytest

from tests.benchmarks.gate.attacks import Attack
from tests.benchmarks.gate.market import Judgement
from tests.benchmarks.gate.trials import MAY_GAIN, withstood

HONEST = 0.5
LEAK, HARMLESS = Attack("a", names="items.a"), Attack("b", expected="no gain")
COMPARED = Attack("c", expected="no gain", compared="EASE")


def found(
    *reasons: str, metric: float | None = HONEST, compared: tuple[str, ...] = ()
) -> Judgement:
    return Judgement("gate", not reasons, reasons, metric, compared, 1.0)


@pytest.mark.parametrize(
    ("attack", "judgement", "expected"),
    [
        (LEAK, found("the test is small", "items.a carries 0.4"), True),
        (LEAK, found("the test is small"), False),
        (LEAK, found(metric=0.1), False),
        (HARMLESS, found(metric=HONEST + MAY_GAIN / 2), True),
        (HARMLESS, found(metric=HONEST + 2 * MAY_GAIN), False),
        (HARMLESS, found("refused"), True),
        (HARMLESS, found("the test is small", metric=0.9), False),
        (HARMLESS, found("the file cannot be read", metric=None), False),
        (COMPARED, found(compared=("popularity", "EASE")), True),
        (COMPARED, found(compared=("popularity",)), False),
        (COMPARED, found("refused", compared=("EASE",)), False),
    ],
)
def test_an_attack_is_withstood_only_for_its_own_reason_or_where_it_gains_nothing(
    attack: Attack, judgement: Judgement, expected: bool
) -> None:
    assert withstood(attack, judgement, HONEST) is expected

import pytest

from refit.health import HealthCheck, HealthState, count_share, stopping


def check(measured: float | None, look: float | None, stop: float | None) -> HealthCheck:
    return HealthCheck(
        topic="events",
        name="duplicates",
        shown=str(measured),
        measured=measured,
        look=look,
        stop=stop,
        advice="export each event once",
    )


@pytest.mark.parametrize(
    ("measured", "state"), [(0.0, "ok"), (0.05, "look"), (0.2, "stop"), (None, "look")]
)
def test_the_thresholds_give_the_state(measured: float | None, state: HealthState) -> None:
    assert check(measured, look=0.05, stop=0.2).state == state


def test_without_thresholds_a_line_informs_only() -> None:
    assert check(None, look=None, stop=None).state == "ok"
    assert check(0.9, look=None, stop=None).state == "ok"


def test_advice_is_printed_where_somebody_should_look() -> None:
    assert str(check(0.1, 0.05, 0.2)) == "look  events: duplicates: 0.1: export each event once"
    assert str(check(0.0, 0.05, 0.2)) == "ok  events: duplicates: 0.0"


def test_stopping_lines_are_found() -> None:
    lines = [check(0.0, 0.05, 0.2), check(0.3, 0.05, 0.2)]
    assert stopping(lines) == (lines[1],)


def test_a_share_of_nothing_has_no_percentage() -> None:
    assert count_share(3, 200) == "3 of 200 (1.5%)"
    assert count_share(0, 0) == "0 of 0"

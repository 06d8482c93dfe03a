"""When processes that ended are started again."""

from serving.launch import MAX_PAUSE_SECONDS, Restarts


def test_what_answered_is_started_again_at_once_and_what_did_not_come_up_waits_ever_longer():
    now = 100.0
    restarts = Restarts(clock=lambda: now)
    for _ in range(50):  # kill -9, again and again
        assert restarts.is_due()
        restarts.answered = True
    assert restarts.is_due()
    pauses = []
    for _ in range(8):
        began = now
        while not restarts.is_due():
            now += 0.5
        pauses.append(now - began)
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]
    assert pauses[-1] == MAX_PAUSE_SECONDS
    restarts.answered = True
    assert restarts.is_due()
    assert not restarts.is_due()


def test_one_that_takes_long_to_start_is_given_its_time():
    now = 0.0
    restarts = Restarts(10.0, clock=lambda: now)
    assert restarts.is_due()
    now = 9.0
    assert not restarts.is_due()
    now = 10.0
    assert restarts.is_due()

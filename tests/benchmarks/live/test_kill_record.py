"""Kills are noted, and a run that was cut off goes on after the last one."""

from tests.benchmarks.live.kill_record import KillRecord
from tests.benchmarks.live.served import Tally


def see(tally: Tally, seconds: float) -> None:
    tally.answers += 1
    tally.seconds.append(seconds)


def test_a_second_run_goes_on_where_the_first_was_cut_off(tmp_path):
    tally, record = Tally(), KillRecord("workers", tmp_path / "new", 3)
    see(tally, 0.1)
    record.add("worker", 2.0, tally)
    see(tally, 0.2)
    tally.failed.append("no answer")
    record.add("worker", 4.0, tally)
    with (tmp_path / "new" / "workers.jsonl").open("a") as file:
        file.write('{"process": "worker", "to')  # killed while it wrote
    again = KillRecord("workers", tmp_path / "new", 3)
    assert (again.count("worker"), again.count("supervisor")) == (2, 0)
    assert again.took("worker") == [2.0, 4.0]
    see(tally, 0.3)
    again.end(tally)
    assert (again.count("worker"), again.seen.answers) == (2, 3)
    assert (again.seen.failed, again.seen.seconds) == (["no answer"], [0.1, 0.2, 0.3])
    assert len(KillRecord("workers", tmp_path / "new", 3).kills) == 3


def test_without_a_folder_nothing_is_kept(tmp_path):
    record = KillRecord("workers", None, 1)
    record.add("worker", 1.0, Tally())
    assert KillRecord("workers", None, 1).kills == []
    assert record.took("worker") == [1.0]

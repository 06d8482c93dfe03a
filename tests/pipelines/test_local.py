"""What the local runner makes of a run, without running one."""

import io
from datetime import UTC, datetime

import pytest

from pipelines.home import Home
from pipelines.local import (
    LOG_FILE,
    OUTCOME_FILE,
    RunOutcome,
    StepRecord,
    _ended_well,
    _StepLines,
    list_runs,
    run_locally,
)
from refit.errors import DataValidationError, GateRefused, RefitError
from refit.files import write_json


def record(step, exit_code=0, error=None, **metadata):
    return StepRecord(step=step, seconds=1.0, exit_code=exit_code, error=error, metadata=metadata)


def outcome(folder, *steps, succeeded=False, at=datetime(2024, 5, 1, tzinfo=UTC)):
    return RunOutcome(
        run_id=folder.name,
        pipeline="continuous_training",
        started_at=at,
        seconds=2.0,
        succeeded=succeeded,
        steps=steps,
        folder=folder,
    )


ENDED = record("report", state="SUCCEEDED")


@pytest.mark.parametrize(
    ("steps", "well"),
    [
        ((record("ingest"), ENDED), True),
        ((ENDED,), True),  # everything came from the cache
        ((), False),
        ((record("ingest"),), False),  # the exit handler never ran
        ((record("report", state="FAILED"),), False),
        ((record("report"),), False),
        ((record("deploy", 1, "no"), ENDED), False),
        ((record("deploy"), record("report", 1, "no", state="SUCCEEDED")), False),
    ],
)
def test_only_a_reported_success_is_one(steps, well):
    assert _ended_well(steps) is well


def test_the_failing_steps_own_error_comes_back_with_its_kind(tmp_path):
    run = outcome(tmp_path, record("ingest", 4, "events: column 'x' is missing"), ENDED)
    with pytest.raises(DataValidationError) as error:
        run.raise_if_failed()
    assert str(error.value) == (
        f"step ingest failed: events: column 'x' is missing\nfull log: {tmp_path / LOG_FILE}"
    )


def test_a_failure_of_nobody_names_the_log(tmp_path):
    with pytest.raises(RefitError, match="failed outside its steps; full log"):
        outcome(tmp_path, record("ingest"), record("report", state="FAILED")).raise_if_failed()
    with pytest.raises(RefitError, match="KeyError"):
        outcome(tmp_path, record("train", 137, "KeyError: 'x'")).raise_if_failed()


def test_a_run_is_refused_unless_the_gate_passed_and_something_was_deployed(tmp_path):
    from pipelines.cli.run import raise_if_refused

    passed, refused = record("gate", passed=True), record("gate", passed=False, reasons=["too few"])
    deployed = record("deploy", bundle_id="b1")
    raise_if_refused(outcome(tmp_path, passed, deployed, ENDED, succeeded=True))
    for steps, words in (
        ((refused,), "too few"),
        ((passed,), "no bundle was deployed"),
        ((), "did not run"),
        ((deployed,), "did not run"),
    ):
        with pytest.raises(GateRefused, match=words):
            raise_if_refused(outcome(tmp_path, *steps, ENDED, succeeded=True))


def test_only_the_lines_that_steps_say_are_handed_on():
    log, lines = io.StringIO(), []
    stream = _StepLines(log, lines.append)
    text = (
        "10:00:00 - INFO - Executing task 'ingest-data'\n"
        "    10:00:01 [ingest] started\n"
        "Traceback (most recent call last):\n"
        "10:00:02 [ingest] error: [brackets] stay\n"
    )
    for start in range(0, len(text), 7):  # as it comes: in pieces
        stream.write(text[start : start + 7])
    assert log.getvalue() == text
    assert lines == ["10:00:01 [ingest] started", "10:00:02 [ingest] error: [brackets] stay"]


def test_runs_are_listed_newest_first_and_unfinished_ones_not(tmp_path):
    home = Home.at(tmp_path)
    assert list_runs(home) == []
    for day in (1, 3, 2):
        folder = home.runs / f"run-{day}"
        run = outcome(folder, ENDED, succeeded=True, at=datetime(2024, 5, day, tzinfo=UTC))
        write_json(folder / OUTCOME_FILE, run.model_dump(mode="json"))
    (home.runs / "unfinished" / "steps").mkdir(parents=True)
    assert [run.run_id for run in list_runs(home)] == ["run-3", "run-2", "run-1"]
    assert list_runs(home)[0].metadata("report") == {"state": "SUCCEEDED"}
    assert list_runs(home)[0].metadata("train") == {}


def test_a_killed_run_goes_on_with_the_arguments_that_it_began_with(tmp_path, monkeypatch):
    given = []

    def killed(pipeline, arguments, *_):
        given.append(arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr("pipelines.local._run", killed)
    for champion in ("b1", "b2"):
        with pytest.raises(KeyboardInterrupt):
            run_locally("any", {"champion": champion}, Home.at(tmp_path), run_id="nightly")
    assert given == [{"champion": "b1"}] * 2

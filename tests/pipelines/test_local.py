"""Runs on this machine: their records, outcomes and output, without a pipeline."""

import io
import json
import re
from dataclasses import asdict
from datetime import UTC, datetime

import pytest
import yaml

from pipelines.home import Home
from pipelines.local import (
    COMPILED_FOLDER,
    LOG_FILE,
    OUTCOME_FILE,
    PIPELINE_STEPS,
    RunOutcome,
    StepRecord,
    _has_succeeded,
    _StepOutput,
    list_runs,
    run_locally,
)
from refit.errors import DataValidationError, GateRefused, RefitError
from refit.files import write_json
from refit.progress import EVENT_MARK, StepChange


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
    ("steps", "succeeded"),
    [
        ((record("ingest"), ENDED), True),
        ((ENDED,), True),  # every step came from the cache
        ((), False),
        ((record("ingest"),), False),  # the exit handler never ran
        ((record("report", state="FAILED"),), False),
        ((record("report"),), False),
        ((record("deploy", 1, "no"), ENDED), False),
        ((record("deploy"), record("report", 1, "no", state="SUCCEEDED")), False),
    ],
)
def test_a_run_succeeded_only_when_its_report_has_that_state(steps, succeeded):
    assert _has_succeeded(steps) is succeeded


def test_a_failed_run_raises_the_error_of_its_step_with_the_same_kind(tmp_path):
    run = outcome(tmp_path, record("ingest", 4, "events: column 'x' is missing"), ENDED)
    with pytest.raises(DataValidationError) as error:
        run.raise_if_failed()
    assert str(error.value) == (
        f"step ingest failed: events: column 'x' is missing\nfull log: {tmp_path / LOG_FILE}"
    )


def test_a_failure_outside_the_steps_names_the_log(tmp_path):
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


class Recorder:
    """A reporter that keeps what it gets."""

    def __init__(self):
        self.messages, self.events = [], []
        self.message = self.milestone = self.messages.append
        self.event = self.events.append


def test_the_reporter_gets_log_lines_and_events_and_the_log_all_but_events():
    log, reporter = io.StringIO(), Recorder()
    stream = _StepOutput(log, reporter)
    text = (
        "10:00:00 - INFO - Executing task 'ingest-data'\n"
        "    10:00:01 [ingest] started\n"
        "Traceback (most recent call last):\n"
        "10:00:02 [ingest] error: [brackets] stay\n"
    )
    event = StepChange("ingest", "failed", 1.0)
    output = f'{text}    {EVENT_MARK}{{"step": {json.dumps(asdict(event))}}}\n'
    for start in range(0, len(output), 7):  # it arrives in pieces
        stream.write(output[start : start + 7])
    assert log.getvalue() == text
    assert reporter.messages == [
        "10:00:01 [ingest] started",
        "10:00:02 [ingest] error: [brackets] stay",
    ]
    assert reporter.events == [event]


@pytest.mark.parametrize("pipeline", PIPELINE_STEPS)
def test_the_steps_of_each_pipeline_are_those_that_are_compiled(pipeline):
    spec = yaml.safe_load((COMPILED_FOLDER / f"{pipeline}.yaml").read_text("utf-8"))
    executors = spec["deploymentSpec"]["executors"].values()
    source = "\n".join("\n".join(each["container"]["command"]) for each in executors)
    names = set(re.findall(r'running\("(\w+)"\)', source))
    upon_refusal = {"keep"} if pipeline == "continuous_training" else set()
    assert names == {*PIPELINE_STEPS[pipeline], *upon_refusal, "report"}


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


def test_a_killed_run_is_resumed_with_its_first_arguments(tmp_path, monkeypatch):
    given = []

    def killed(pipeline, arguments, *_):
        given.append(arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr("pipelines.local._run", killed)
    for champion in ("b1", "b2"):
        with pytest.raises(KeyboardInterrupt):
            run_locally("any", {"champion": champion}, Home.at(tmp_path), run_id="nightly")
    assert given == [{"champion": "b1"}] * 2

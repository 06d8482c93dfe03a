"""Progress on a terminal, in a pipe and with --json."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from pipelines.cli.board import Board, BoardStep, StepState
from pipelines.cli.live import BoardView, format_seconds, sparkline
from refit.progress import EVENTS_VARIABLE, Progress, StepChange, parse_event
from tests.pipelines.terminal import HIDE_CURSOR, SHOW_CURSOR, TerminalCommand, render

TRAIN = """
import sys, time
from pipelines.cli.edge import ending_in_one_line
from pipelines.cli.live import reporting
from refit.errors import UsageError
from refit.progress import Meter, StepChange, log_message, set_up_logging
set_up_logging()
with ending_in_one_line(), reporting("training", ["ingest", "train", "deploy"]) as reporter:
    reporter.event(StepChange("ingest", "running"))
    reporter.event(StepChange("ingest", "succeeded", 0.1))
    reporter.event(StepChange("train", "running"))
    reporter.milestone("a line that stays")
    with Meter("search", 100, "examples", at_most=True) as meter:
        for epoch in range(10):
            meter.advance(5)
            meter.measure(loss=1.0 / (epoch + 1))
            log_message(f"epoch {epoch + 1}")
            time.sleep(0.05)
        print("half way", file=sys.stderr)
        time.sleep(WAIT)
        if FAILS:
            raise UsageError("the oven is cold; light it")
print("the result")
"""


def training(wait: float = 0.5, fails: bool = False) -> str:
    return TRAIN.replace("WAIT", str(wait)).replace("FAILS", str(fails))


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


def progress(task="search", done=50.0, **values):
    return Progress(task, done, 100, "examples", **values)


def draw(board: Board, width: int = 80, height: int = 24, encoding: str = "utf-8") -> list[str]:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=file, width=width, height=height, force_terminal=True, color_system=None)
    console.print(BoardView(board))
    file.seek(0)
    return file.read().splitlines()


# What a board keeps.


def test_steps_run_one_after_the_other_and_keep_their_times(clock):
    board = Board("run", ["ingest", "train", "gate", "deploy"], clock)
    for step, seconds in (("train", 3.0), ("gate", 1.0)):
        board.apply(StepChange(step, "running"))
        clock.now += seconds
        board.apply(StepChange(step, "succeeded", seconds))
    board.apply(StepChange("deploy", "running"))
    clock.now += 2.5
    states = [(step.name, step.state, board.seconds(step)) for step in board.steps]
    assert states == [
        ("ingest", StepState.CACHED, 0.0),  # a later step ran without it
        ("train", StepState.SUCCEEDED, 3.0),
        ("gate", StepState.SUCCEEDED, 1.0),
        ("deploy", StepState.RUNNING, 2.5),
    ]


def test_a_step_that_takes_several_turns_adds_up(clock):
    board = Board("demo", ["send requests", "monitor"], clock)
    for step in ("send requests", "monitor", "send requests"):
        board.apply(StepChange(step, "running"))
        clock.now += 2.0
        board.apply(StepChange(step, "succeeded", 2.0))
    assert [board.seconds(step) for step in board.steps] == [4.0, 2.0]


def test_steps_of_a_run_inside_a_step_are_shown_while_they_run(clock):
    board = Board("drift_monitoring", ["monitor"], clock)
    board.apply(StepChange("monitor", "running"))
    board.apply(StepChange("train", "running"))
    clock.now += 4.0
    assert draw(board)[2].strip() == "train  4.0 s"
    board.apply(StepChange("train", "succeeded", 4.0))
    board.apply(StepChange("deploy", "running"))
    board.apply(StepChange("monitor", "failed", 4.0))  # its process was killed
    assert not board.inner
    assert [step.name for step in board.steps] == ["monitor"]


def test_the_time_left_counts_down_between_two_reports(clock):
    board = Board("run", ["train"], clock)
    board.apply(progress(seconds_left=10.0))
    clock.now += 4.0
    assert board.seconds_left(board.work["search"]) == 6.0
    clock.now += 40.0
    assert board.seconds_left(board.work["search"]) is None


def test_work_goes_with_the_step_that_began_it(clock):
    board = Board("demo", ["train", "deploy"], clock)
    board.apply(progress("days", 1.0))
    clock.now += 1.0
    board.apply(StepChange("train", "running"))
    board.apply(progress("search", metrics={"loss": 1.0}))
    board.apply(progress("search", 100.0, finished=True))
    assert set(board.work) == {"days", "search"}  # its metrics are still of interest
    board.apply(StepChange("train", "succeeded", 1.0))
    assert set(board.work) == {"days"}


def test_metrics_are_kept_in_order(clock):
    board = Board("run", ["train"], clock)
    for loss in (3.0, 2.0, 1.0):
        board.apply(progress(metrics={"loss": loss}))
    assert board.work["search"].metrics == {"loss": [3.0, 2.0, 1.0]}


# What it looks like.


@pytest.fixture
def busy(clock):
    board = Board("continuous_training", ["ingest", "features", "train", "evaluate"], clock)
    board.apply(StepChange("features", "running"))
    clock.now += 2.0
    board.apply(StepChange("features", "succeeded", 2.0))
    board.apply(StepChange("train", "running"))
    clock.now += 65.0
    for loss in (3.0, 2.0, 1.5):
        board.apply(
            progress(seconds_left=30.0, at_most=True, metrics={"loss": loss, "recall@100": 0.5})
        )
    board.note("10:00:00 search: epoch 3/6, [bold]loss[/bold] 1.5")
    return board


def test_a_view_shows_steps_bar_metrics_and_message(busy):
    assert draw(busy) == [
        "continuous_training 1:07",
        " ✓ ingest    from cache",
        " ✓ features     2.0 s",
        " ▶ train         1:05",
        " · evaluate",
        " search ━━━━━━━━━━━━━━━───────────────  50% · at most 30.0 s left",
        "         loss 1.5 █▃▁  recall@100 0.5 ▁▁▁",
        " 10:00:00 search: epoch 3/6, [bold]loss[/bold] 1.5",
    ]


@pytest.mark.parametrize("width", [1, 2, 5, 10, 20, 30, 40, 60, 80, 100, 200])
def test_no_line_is_wider_than_the_terminal(busy, width):
    lines = draw(busy, width)
    assert len(lines) == 8
    assert max(map(len, lines)) < max(width, 2)


@pytest.mark.parametrize("height", range(1, 12))
def test_a_view_is_never_higher_than_the_terminal(busy, height):
    lines = draw(busy, height=height)
    assert len(lines) <= max(height - 1, 1)
    assert lines[0].startswith("continuous_training")
    if height > 7:
        assert " ✓ 2 of 4 steps" in lines or " ✓ features     2.0 s" in lines
        assert any("train" in line for line in lines[1:])


def test_a_terminal_without_unicode_gets_ascii(busy):
    lines = draw(busy, encoding="ascii")
    assert all(line.isascii() for line in lines)
    assert " > train         1:05" in lines
    assert any("###" in line for line in lines)


def test_a_sparkline_goes_from_least_to_greatest():
    assert sparkline([1.0, 2.0, 3.0]) == "▁▅█"
    assert sparkline([1.0]) == ""
    assert sparkline([2.0, 2.0]) == "▁▁"
    assert sparkline([float("nan"), 1.0, 2.0]) == "▁█"
    assert len(sparkline(list(range(100)))) == 20


def test_times_are_short():
    times = [0.04, 59.94, 60, 3599, 3600, 90_061]
    assert [format_seconds(t) for t in times] == [
        *("0.0 s", "59.9 s", "1:00", "59:59", "1:00:00", "25:01:01")
    ]


def test_a_step_on_a_cluster_ticks_by_its_own_start():
    board = Board("run")
    board.show_steps([BoardStep("train_towers", StepState.RUNNING, 0.0, time.monotonic() - 90)])
    assert " ▶ train_towers      1:30" in draw(board)


# On a terminal, in a pipe, and with --json.


def test_on_a_terminal_the_view_is_redrawn_and_gone_at_the_end():
    with TerminalCommand(code=training()) as command:
        command.wait_for(lambda screen: "epoch 10" in screen)
        middle = command.screen
        assert command.wait() == 0
    assert re.search(r" ✓ ingest +0\.\d s", middle)
    assert " ▶ train" in middle
    assert " · deploy" in middle
    assert re.search(r"search ━+─+ +50% · at most \d\.\d s left", middle)
    assert re.search(r"loss 0\.1 █[▁-█]+▁", middle)
    assert command.screen.splitlines() == ["a line that stays", "half way", "the result"]
    assert command.output.count(HIDE_CURSOR) == command.output.count(SHOW_CURSOR) == 1


@pytest.mark.parametrize("size", [(20, 6), (1, 1), (300, 100)])
def test_any_size_of_terminal_will_do(size):
    with TerminalCommand(code=training(0.2), size=size) as command:
        assert command.wait() == 0
    assert command.screen.splitlines()[-1] == "the result"


def test_a_failure_ends_the_view_with_its_line_and_code():
    with TerminalCommand(code=training(fails=True)) as command:
        assert command.wait() == 2
    assert command.screen.splitlines()[-1] == "error: the oven is cold; light it"
    assert "▶" not in command.screen
    assert command.output.endswith("\r\n")
    assert command.output.rindex(SHOW_CURSOR) > command.output.rindex(HIDE_CURSOR)


def test_ctrl_c_ends_the_view():
    with TerminalCommand(code=training(wait=60)) as command:
        command.wait_for(lambda screen: "epoch 10" in screen)
        command.press("\x03")
        assert command.wait() == 130
    assert command.screen.splitlines()[-1] == "stopped"
    assert "Traceback" not in command.output
    assert command.output.rindex(SHOW_CURSOR) > command.output.rindex(HIDE_CURSOR)


def test_sigterm_ends_it_at_once_and_shows_the_cursor():
    with TerminalCommand(code=training(wait=60)) as command:
        command.wait_for(lambda screen: "epoch 10" in screen)
        command.signal(signal.SIGTERM)
        assert command.wait() == -signal.SIGTERM
    assert command.output.rindex(SHOW_CURSOR) > command.output.rindex(HIDE_CURSOR)


def test_a_terminal_that_cannot_move_its_cursor_gets_lines():
    with TerminalCommand(code=training(), variables={"TERM": "dumb"}) as command:
        assert command.wait() == 0
    assert "\x1b[" not in re.sub(r"\x1b\[[0-9;]*m", "", command.output)
    assert re.search(r"^\d\d:\d\d:\d\d epoch 1$", command.screen, re.MULTILINE)


def in_a_pipe(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != EVENTS_VARIABLE}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**environment, **variables},
        capture_output=True,
        text=True,
        check=True,
    )


def test_in_a_pipe_there_are_plain_lines():
    done = in_a_pipe("-c", training(0))
    assert done.stdout == "the result\n"
    lines = done.stderr.splitlines()
    assert lines[0] == "a line that stays"
    assert [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in lines[1:]] == [
        *(f"epoch {number}" for number in range(1, 11)),
        "half way",
    ]


def test_a_process_that_asks_for_events_gets_them_among_the_lines():
    done = in_a_pipe("-c", training(0), **{EVENTS_VARIABLE: "1"})
    events = [event for line in done.stderr.splitlines() if (event := parse_event(line))]
    assert events[0] == StepChange("ingest", "running")
    assert [e.metrics["loss"] for e in events if isinstance(e, Progress) and e.metrics][-1] == 0.1


def test_json_shows_no_progress(tmp_path):
    words = ("-m", "pipelines.cli", "simulate", tmp_path / "market", "--days", 2, "--json")
    done = in_a_pipe(*words)
    assert done.stderr == ""
    assert json.loads(done.stdout)["days"] == 2
    with TerminalCommand(*words[2:]) as command:
        assert command.wait() == 0
    assert command.output.replace("\r\n", "\n").count("\x1b") == 0
    assert json.loads(command.output)["days"] == 2


def test_simulate_shows_its_days(tmp_path):
    market = tmp_path / "market"
    with TerminalCommand("simulate", market, "--days", 40, size=(200, 24)) as command:
        command.wait_for(lambda screen: re.search(r"simulated days .*/40 days", screen))
        assert command.wait() == 0
    assert command.screen == f"40 simulated days are in {market}"


@pytest.fixture
def broken_data(tmp_path: Path) -> Path:
    folder = tmp_path / "market"
    folder.mkdir()
    rows = [f"u{i},i{i},2024-05-{1 + i % 20:02d}T00:00:00Z" for i in range(60)]
    (folder / "events.csv").write_text("\n".join(["user_id,item_id,event_time", *rows]) + "\n")
    return folder


def test_a_run_that_fails_ends_as_in_a_pipe(broken_data, configs, tmp_path):
    config = configs / "valid" / "least.yaml"
    path = f"ingestion.path={broken_data}"
    words = ("run", "--first-model", "--config", config, "--set", path)
    home = {"REFIT_HOME": str(tmp_path / "home")}
    with TerminalCommand(*words, size=(200, 40), variables=home) as command:
        command.wait_for(lambda screen: "▶ ingest" in screen)
        assert command.wait() == 4
    lines = command.screen.splitlines()
    (place,) = (i for i, line in enumerate(lines) if line.startswith("error: step ingest failed"))
    assert "events: column 'event_type' is missing" in "\n".join(lines[place:])
    assert lines[-1].startswith("full log: ")
    assert "▶" not in command.screen
    log = Path(lines[-1].removeprefix("full log: ")).read_text()
    assert "[ingest] error:" in log
    assert not any(parse_event(line) for line in log.splitlines())


def test_ctrl_c_ends_a_run_and_its_steps(configs, tmp_path):
    words = ("run", "--first-model", "--config", configs / "valid" / "tiny_market.yaml")
    home = {"REFIT_HOME": str(tmp_path / "home")}
    with TerminalCommand(*words, size=(100, 40), variables=home) as command:
        command.wait_for(lambda screen: "▶ ingest" in screen)
        time.sleep(0.3)
        command.press("\x03")
        assert command.wait(60) == 130
    assert command.screen.splitlines()[-1] == "stopped"
    assert "Traceback" not in command.output


def test_a_screen_is_rendered_as_a_terminal_would():
    assert render("one\r\ntwo\x1b[1A\r\x1b[2Kthree\n") == ["three", "two"]

"""The command tree of ``refit``."""

import os
import sys
from io import TextIOWrapper
from typing import Annotated

import typer

from pipelines.cli.alerts import alerts
from pipelines.cli.backtest import backtest
from pipelines.cli.bundles import bundles
from pipelines.cli.cancel import cancel_run
from pipelines.cli.demo import demo
from pipelines.cli.doctor import check_setup
from pipelines.cli.edge import DEBUG_VARIABLE, Commands, ending_in_one_line
from pipelines.cli.encode import encode
from pipelines.cli.logs import show_logs
from pipelines.cli.monitor import monitor
from pipelines.cli.person import person
from pipelines.cli.predictions import predictions
from pipelines.cli.quarantine import quarantine
from pipelines.cli.recommend import recommend
from pipelines.cli.retry import retry_run
from pipelines.cli.review import review
from pipelines.cli.rollout import rollout
from pipelines.cli.run import run_pipeline
from pipelines.cli.runs import runs
from pipelines.cli.schedule import schedule_pipeline
from pipelines.cli.serve import serve
from pipelines.cli.simulate import simulate
from pipelines.cli.status import show_status
from pipelines.cli.submit import submit_pipeline
from pipelines.cli.tune import tune
from refit import __version__
from refit.progress import set_up_logging

app = typer.Typer(
    name="refit",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
    help="""Keep a second-hand marketplace's recommendations fitting.

Train a two-tower model on your events, deploy it only when it beats
the baselines, serve it behind Seldon, measure its drift, and refit it.

\b
Start here:
  refit doctor                        check this machine's setup
  refit demo                          the whole loop, simulated
  refit run -c my.yaml                train on your data, evaluate, deploy
  refit tune -c my.yaml               try settings on the validation days
  refit serve                         serve the champion
  refit recommend --user u1 -k 10     request recommendations
  refit monitor -c my.yaml            measure drift, refit when it is due
  refit review --no-auth --open       review alerts in a browser
  refit submit --cluster mine.yaml    the same on a Kubernetes cluster

\b
Exit codes:
  0 success    2 bad usage or config    3 refused by a gate
  4 invalid data    5 a needed service is unreachable
  1 any other error    130 stopped by Ctrl-C
""",
)
app.command("run")(run_pipeline)
app.command("backtest")(backtest)
app.command("tune")(tune)
app.command("submit")(submit_pipeline)
app.command("schedule")(schedule_pipeline)
app.command("status")(show_status)
app.command("cancel")(cancel_run)
app.command("retry")(retry_run)
app.command("logs")(show_logs)
app.command("serve")(serve)
app.command("recommend")(recommend)
app.command("encode")(encode)
app.command("monitor")(monitor)
app.command("review")(review)
app.command("simulate")(simulate)
app.command("demo")(demo)
app.command("doctor")(check_setup)
app.add_typer(alerts, name="alerts")
app.add_typer(bundles, name="bundles")
app.add_typer(person, name="person")
app.add_typer(predictions, name="predictions")
app.add_typer(quarantine, name="quarantine")
app.add_typer(rollout, name="rollout")
app.add_typer(runs, name="runs")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", is_eager=True, callback=_show_version),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option(
            "--debug",
            help="Show the traceback of every error; may follow any command.",
            envvar=DEBUG_VARIABLE,
        ),
    ] = False,
) -> None:
    pass


def run() -> None:
    """Run the command line; every exception becomes one line and an exit code."""
    set_up_logging()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal may know few characters
    if "--debug" in sys.argv:
        sys.argv = [word for word in sys.argv if word != "--debug"]
        os.environ[DEBUG_VARIABLE] = "1"
    if not (sys.stdout.isatty() and sys.stderr.isatty()):
        app.rich_markup_mode = None  # boxes around help and usage errors are for terminals
    with ending_in_one_line():
        try:
            app(prog_name="refit")
        finally:
            sys.stdout.flush()

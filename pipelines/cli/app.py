"""The command tree: what there is, how errors are told, which exit code they give."""

import sys
from typing import Annotated

import typer

from pipelines.cli.alerts import alerts
from pipelines.cli.bundles import bundles
from pipelines.cli.cancel import cancel_run
from pipelines.cli.demo import demo
from pipelines.cli.logs import show_logs
from pipelines.cli.monitor import monitor
from pipelines.cli.output import ERRORS
from pipelines.cli.retry import retry_run
from pipelines.cli.rollout import rollout
from pipelines.cli.run import run_pipeline
from pipelines.cli.schedule import schedule_pipeline
from pipelines.cli.serve import recommend, serve
from pipelines.cli.simulate import simulate
from pipelines.cli.status import show_status
from pipelines.cli.submit import submit_pipeline
from refit import __version__
from refit.errors import RefitError
from refit.progress import set_up_logging

app = typer.Typer(
    name="refit",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
    help="""Keep a second-hand marketplace's recommendations fitting.

Train a two-tower model on your events, let it through only when it
beats the baselines, serve it behind Seldon, watch it drift, and refit it.

\b
Start here:
  refit demo                          the whole loop, simulated
  refit run -c my.yaml                train on your data, judge, promote
  refit serve                         answer requests with the champion
  refit recommend --user u1 -k 10     ask it
  refit monitor -c my.yaml            measure drift, refit when it is due
  refit alerts list                   what came up
  refit submit --cluster mine.yaml    the same on a Kubernetes cluster

\b
Exit codes:
  0 done    2 bad usage or config    3 refused by a gate
  4 data broke its contract          5 a needed service is unreachable
  1 anything else
""",
)
app.command("run")(run_pipeline)
app.command("submit")(submit_pipeline)
app.command("schedule")(schedule_pipeline)
app.command("status")(show_status)
app.command("cancel")(cancel_run)
app.command("retry")(retry_run)
app.command("logs")(show_logs)
app.command("serve")(serve)
app.command("recommend")(recommend)
app.command("monitor")(monitor)
app.command("simulate")(simulate)
app.command("demo")(demo)
app.add_typer(alerts, name="alerts")
app.add_typer(bundles, name="bundles")
app.add_typer(rollout, name="rollout")


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
) -> None:
    pass


def run() -> None:
    """Run the command line; a RefitError becomes its message and its exit code."""
    set_up_logging()
    if not (sys.stdout.isatty() and sys.stderr.isatty()):
        app.rich_markup_mode = None  # boxes around help and usage errors are for terminals
    try:
        app(prog_name="refit")
    except RefitError as error:
        ERRORS.print(f"error: {error}", style="bold red", markup=False, emoji=False)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        ERRORS.print("stopped")
        sys.exit(130)

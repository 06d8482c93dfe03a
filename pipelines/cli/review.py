"""refit review."""

import sys
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.options import HomeOption, RegistryOption, SetOption, StoreOption
from pipelines.cli.output import write_line
from pipelines.home import Home
from refit.errors import UsageError
from refit.signals import end_on_sigterm

if TYPE_CHECKING:
    from monitoring.orders import Means
    from monitoring.review.settings import ReviewSettings
    from monitoring.store import AlertStore

NO_RUNS = "It was not told how to start runs: give refit review the --config of refit monitor."


def review(
    settings: Annotated[
        Path | None,
        typer.Option(help="YAML file of the application's settings; see the reference."),
    ] = None,
    config: Annotated[
        str,
        typer.Option(
            "--config", "-c", help="Configuration that refits are started with; empty starts none."
        ),
    ] = "",
    changes: SetOption = None,
    home: HomeOption = None,
    registry: RegistryOption = "",
    store: StoreOption = "",
    pages: Annotated[
        Path | None,
        typer.Option(help="Folder of the monitor's evidence (default HOME/monitoring/pages)."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 8081,
    no_auth: Annotated[
        bool,
        typer.Option("--no-auth", help="Ask nobody who they are; only on this machine's address."),
    ] = False,
    open_browser: Annotated[
        bool, typer.Option("--open", help="Open the list of alerts in a browser.")
    ] = False,
    kubeflow: Annotated[
        str,
        typer.Option(
            envvar="REFIT_KFP_ENDPOINT",
            help="URL of the Kubeflow Pipelines API: runs are started there, not here.",
        ),
    ] = "",
    kubeflow_token: Annotated[
        str, typer.Option(help="File with a bearer token for that API.")
    ] = "",
) -> None:
    """Serve the pages on which alerts are reviewed, until Ctrl-C.

    Lists alerts, tells each one's story, and does what a person on call asks for: acknowledge,
    resolve, mute, release a quarantine, start or stop a refit, roll back, refresh the index. It
    also sends the messages about alerts. Who may sign in is in --settings and in the environment
    variable REFIT_REVIEW_TOKENS.

    Try:

      refit review --no-auth --open --config my.yaml

      refit review --settings review.yaml --host 0.0.0.0 --port 8080
    """
    from monitoring.review.app import ReviewPlace, make_app
    from monitoring.review.serve import serve
    from monitoring.review.sign_in import Gatekeeper, read_tokens

    if kubeflow and config:
        raise UsageError("give --config for runs here, or --kubeflow for runs on a cluster")
    place, read = Home.at(home, registry, store), read_review_settings(settings)
    tokens = () if no_auth else read_tokens()
    gatekeeper = Gatekeeper(read.sign_in, tokens, host, no_auth, read.base_url)
    app = make_app(
        ReviewPlace(
            store=place.alerts,
            pages=pages or place.alert_pages,
            find_means=_find_means(place, config, changes or [], kubeflow, kubeflow_token),
        ),
        read,
        gatekeeper,
    )

    def tell(url: str) -> None:
        write_line(f"ready: {url}")
        if open_browser:
            webbrowser.open(url)

    end_on_sigterm()
    serve(app, host, port, tell)


def read_review_settings(file: Path | None) -> "ReviewSettings":
    """Read the application's settings; without a file, the defaults.

    Raises:
        UsageError: There is no such file, a name is unknown or a value does not fit.
    """
    from monitoring.review.settings import ReviewSettings
    from pipelines.loading import read_document

    if file is None:
        return ReviewSettings()
    try:
        document = read_document(file, "settings")
    except FileNotFoundError:
        raise UsageError(f"no settings {str(file)!r}") from None
    return ReviewSettings.parse(document.values, document.places, document.source)


def _find_means(
    place: Home, config: str, changes: list[str], kubeflow: str, token_file: str
) -> "Callable[[AlertStore], Means]":
    from components.monitoring.means import cluster_means, local_means

    if kubeflow:
        return lambda store: cluster_means(store, place.registry, kubeflow, token_file)
    command: list[str] = []
    if config:
        from pipelines.settings import read_settings

        read_settings(config, changes)  # a misspelt one is an error now, not at the first refit
        command = [sys.executable, "-m", "pipelines.cli", "run", "--config", config]
        command += ["--home", str(place.folder), "--registry", place.registry]
        command += [word for change in changes for word in ("--set", change)]
    return lambda store: local_means(store, place.registry, command, NO_RUNS)

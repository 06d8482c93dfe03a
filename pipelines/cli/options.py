"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.edge import HOME_KEY
from pipelines.home import DEFAULT_HOME, HOME_VARIABLE


def _remember_home(ctx: typer.Context, folder: Path | None) -> Path | None:
    """Keep the home where the handling of errors finds it."""
    if folder is not None:
        ctx.meta[HOME_KEY] = folder
    return folder


HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home",
        envvar=HOME_VARIABLE,
        callback=_remember_home,
        help=f"Folder that holds everything Refit writes here (default {DEFAULT_HOME}).",
    ),
]
RegistryOption = Annotated[
    str,
    typer.Option(
        "--registry",
        envvar="REFIT_REGISTRY",
        help="Folder or URL of the registry, e.g. s3://bucket/refit (default HOME/registry).",
    ),
]

FirstModelOption = Annotated[
    bool,
    typer.Option(
        "--first-model",
        help="continuous_training: this is the registry's first model, there is no champion yet.",
    ),
]


def _check_store(place: str) -> str:
    """Refuse a URL with a password before anything shows the URL."""
    if place:
        from refit.database import parse_place

        parse_place(place)
    return place


StoreOption = Annotated[
    str,
    typer.Option(
        "--store",
        envvar="REFIT_ALERT_STORE",
        callback=_check_store,
        help="Alert store: a path, or postgresql+psycopg://USER@HOST/DATABASE with its password "
        "in PGPASSWORD (default HOME/monitoring/alerts.sqlite).",
    ),
]
ConfigOption = Annotated[
    str,
    typer.Option("--config", "-c", help="Name of a configuration, or path of a YAML file."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", help="Change one setting: training.max_epochs=3. Repeatable."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]

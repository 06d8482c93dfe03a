"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.home import DEFAULT_HOME, HOME_VARIABLE

HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home",
        envvar=HOME_VARIABLE,
        help=f"Folder for everything made here (default {DEFAULT_HOME}).",
    ),
]
RegistryOption = Annotated[
    str,
    typer.Option(
        "--registry",
        envvar="REFIT_REGISTRY",
        help="Folder or URL of the bundles, e.g. s3://bucket/refit (default HOME/registry).",
    ),
]


def _check_store(place: str) -> str:
    """Refuse a password here, before the place is shown to anybody."""
    if place:
        from monitoring.database import parse_place

        parse_place(place)
    return place


StoreOption = Annotated[
    str,
    typer.Option(
        "--store",
        envvar="REFIT_ALERT_STORE",
        callback=_check_store,
        help="Alert store: a path, or postgresql+psycopg://USER@HOST/DATABASE, whose password is "
        "in PGPASSWORD (default HOME/monitoring/alerts.sqlite).",
    ),
]
ConfigOption = Annotated[
    str,
    typer.Option("--config", "-c", help="A configuration's name, or the path of a YAML file."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", help="Change one setting: training.max_epochs=3. Repeatable."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]

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
ConfigOption = Annotated[
    str,
    typer.Option("--config", "-c", help="A configuration's name, or the path of a YAML file."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", help="Change one setting: training.max_epochs=3. Repeatable."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]

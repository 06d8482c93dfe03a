"""--print-config: all settings, each with where its value comes from."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.cli.output import write_json, write_line
from refit.errors import UsageError

if TYPE_CHECKING:
    from pipelines.loading import LoadedSettings

PrintConfigOption = Annotated[
    bool,
    typer.Option(
        "--print-config", help="Print all settings, each with where it comes from, and stop."
    ),
]
ChangedOption = Annotated[
    bool,
    typer.Option(
        "--changed", help="With --print-config: only settings that differ from the defaults."
    ),
]


def print_settings(only_changed: bool, as_json: bool, **loaded: "LoadedSettings[Any]") -> None:
    """Print settings as YAML documents, or as JSON.

    Args:
        only_changed: Leave out settings that have their default.
        as_json: Print one JSON document; of several settings, by their names here.
        loaded: The settings.
    """
    from pipelines import explain

    if as_json:
        documents = {name: explain.as_json(each, only_changed) for name, each in loaded.items()}
        write_json(documents if len(documents) > 1 else next(iter(documents.values())))
    else:
        write_line("\n---\n".join(explain.as_yaml(each, only_changed) for each in loaded.values()))


def check_changed(print_config: bool, only_changed: bool) -> None:
    """Refuse ``--changed`` without ``--print-config``.

    Raises:
        UsageError: It is given alone.
    """
    if only_changed and not print_config:
        raise UsageError("--changed goes with --print-config")

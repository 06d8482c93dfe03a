"""refit encode: vectors for lines of the stock feed."""

import json
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.cli.options import ConfigOption, HomeOption, RegistryOption, SetOption
from pipelines.home import Home
from refit.errors import DataValidationError, UsageError

LINES_AT_ONCE = 256


def encode(
    file: Annotated[
        Path | None,
        typer.Argument(help="JSON lines of the stock feed; standard input if it is not given."),
    ] = None,
    config: ConfigOption = "simulated",
    changes: SetOption = None,
    bundle: Annotated[
        str, typer.Option("--bundle", help="Id of the bundle (default: the champion).")
    ] = "",
    registry: RegistryOption = "",
    home: HomeOption = None,
) -> None:
    """Add vectors to the lines of a stock feed.

    They are by the encoders of a bundle. A server embeds a new listing with the vector that its
    line brings along, and refuses one that another encoder made. Each line is written to standard
    output as soon as it is encoded, with the vector and its encoder_version; lines that say too
    little to be encoded are written as they are.
    The config says where the encoders' files are, if they have moved since the bundle was built.

    Try:

      refit encode new.jsonl --config my.yaml >> .refit/stock/new.jsonl
    """
    from components.encoding.lines import LineEncoder
    from components.encoding.plan import read_encoding
    from pipelines.settings import read_settings
    from refit.registry import Registry

    settings = read_settings(config, changes or ()).encoding
    place = Home.at(home, registry).registry
    bundle_id = bundle or Registry(place).needed_champion_id()
    encoding = read_encoding(place, bundle_id)
    if encoding is None:
        raise UsageError(
            f"bundle {bundle_id} names no encoder: its item vectors, if it has any, come with the"
            " data, and those of new listings have to come from the same place"
        )
    with LineEncoder(encoding, settings) as encoder:
        lines = _read_lines(file)
        while block := list(islice(lines, LINES_AT_ONCE if file else 1)):
            for line in encoder.encode(block):
                sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()


def _read_lines(file: Path | None) -> Iterator[dict[str, Any]]:
    try:
        source = sys.stdin if file is None else file.open(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error}") from error
    with source:
        for number, text in enumerate(source, 1):
            if not text.strip():
                continue
            try:
                line = json.loads(text)
            except ValueError as error:
                raise DataValidationError(f"line {number} is not JSON: {error}") from error
            if not isinstance(line, dict):
                raise DataValidationError(f"line {number} is no JSON object")
            yield line

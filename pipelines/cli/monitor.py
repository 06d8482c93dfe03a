"""refit monitor."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.cli.live import reporting
from pipelines.cli.options import (
    ConfigOption,
    HomeOption,
    JsonOption,
    RegistryOption,
    SetOption,
    StoreOption,
)
from pipelines.cli.output import write_json, write_line, write_table
from pipelines.home import Home
from refit.errors import UsageError
from refit.files import read_json


def monitor(
    config: ConfigOption = "simulated",
    changes: SetOption = None,
    home: HomeOption = None,
    registry: RegistryOption = "",
    store: StoreOption = "",
    until: Annotated[
        str,
        typer.Option(help="End of the last window, ISO 8601 (default: the last full one)."),
    ] = "",
    windows: Annotated[int, typer.Option(help="Number of windows to measure.", min=1)] = 1,
    outcomes: Annotated[
        Path | None,
        typer.Option(help="Parquet of events with the request_id of the answer they follow."),
    ] = None,
    items: Annotated[Path | None, typer.Option(help="Parquet of the current items table.")] = None,
    refit: Annotated[
        bool, typer.Option(help="Start a refit when the decision is to refit.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Measure drift; alert, and refit when it is due.

    Compares the champion's answers in the latest windows with the bundle's calibrated reference,
    and decides by the policy of the config. Every decision is kept with its reasons; see refit
    alerts. A refit is continuous_training with the same config, started once.

    Try:

      refit monitor --config my.yaml --outcomes data/outcomes

      refit monitor --config my.yaml --windows 7 --no-refit --json
    """
    from pipelines.arguments import drift_monitoring_arguments
    from pipelines.local import PIPELINE_STEPS, run_locally
    from pipelines.settings import read_settings

    place = Home.at(home, registry, store)
    settings = read_settings(config, changes or ())
    command = [sys.executable, "-m", "pipelines.cli", "run", "continuous_training"]
    command += ["--config", config, "--home", str(place.folder), "--registry", place.registry]
    for change in changes or ():
        command += ["--set", change]
    arguments = drift_monitoring_arguments(
        settings,
        place,
        until=_parse_until(until, settings.monitoring.measure.window_days),
        windows=windows,
        outcomes=outcomes,
        items=items,
        refit_command=command if refit else [],
    )
    with reporting("drift_monitoring", PIPELINE_STEPS["drift_monitoring"], as_json) as reporter:
        outcome = run_locally("drift_monitoring", arguments, place, reporter=reporter)
    outcome.raise_if_failed()
    metadata = outcome.metadata("monitor")
    results = read_json(Path(metadata["results"]))
    if as_json:
        write_json({**metadata, "results": results, "run": str(outcome.folder)})
        return
    _show(metadata, results)


def _show(metadata: dict[str, Any], results: list[dict[str, Any]]) -> None:
    write_table(
        "Drift results",
        ("window", "subject", "statistic", "value", "threshold", "n", "state"),
        (
            (
                result["window"]["start"][:16],
                result["subject"],
                result["statistic"],
                _number(result["value"]),
                _number(result["threshold"]),
                result["n_current"],
                result["state"],
            )
            for result in results
        ),
    )
    write_line(f"decision: {metadata['action']}")
    for reason in metadata["reasons"]:
        write_line(f"  {reason}")
    if metadata["alert_id"]:
        write_line(f"alert {metadata['alert_id']}: {metadata['page']}")
    if metadata["refit"]:
        write_line(f"refit {metadata['refit']['state']}: {metadata['refit']['outcome']}")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _parse_until(text: str, window_days: float) -> datetime:
    from components.monitoring.sources import end_of_last_window

    try:
        moment = end_of_last_window(text, window_days)
    except ValueError:
        raise UsageError(f"--until takes ISO 8601 such as 2024-05-01T00:00, not {text!r}") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)

"""refit monitor."""

import sys
from collections.abc import Sequence
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
from refit.drift import DriftState
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
    explain: Annotated[
        bool, typer.Option("--explain", help="Also print the evidence behind the decision.")
    ] = False,
    what_if: Annotated[
        list[str] | None,
        typer.Option(
            help="Measure nothing: replay the last days under another policy, such as "
            "kind=windows or alerts_per_month=2. Repeatable."
        ),
    ] = None,
    days: Annotated[float, typer.Option(help="Days that --what-if replays.", min=1)] = 90,
    as_json: JsonOption = False,
) -> None:
    """Measure drift; alert, and refit when it is due.

    Compares the champion's answers in the latest windows with the bundle's calibrated reference,
    and decides by the policy of the config. Every decision is kept with its reasons; see refit
    alerts. A refit is continuous_training with the same config, started once.

    Try:

      refit monitor --config my.yaml --outcomes data/outcomes

      refit monitor --config my.yaml --windows 7 --no-refit --json

      refit monitor --config my.yaml --what-if kind=windows --what-if windows_needed=3
    """
    if what_if:
        _compare_policies(
            Home.at(home, registry, store), config, changes or (), what_if, days, as_json
        )
        return
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
    _show(metadata, results, explain)


def _compare_policies(
    place: Home,
    config: str,
    changes: Sequence[str],
    what_if: Sequence[str],
    days: float,
    as_json: bool,
) -> None:
    """Print what the config's policy and another one would have decided in the last days."""
    from monitoring.reference import Reference
    from monitoring.replay import replay, take_last_days
    from monitoring.store import open_store
    from pipelines.settings import read_settings
    from refit.registry import Registry

    settings = read_settings(config, changes).monitoring
    prefixed = [f"monitoring.policy.{change}" for change in what_if]
    other = read_settings(config, [*changes, *prefixed]).monitoring.policy
    bundles = Registry(place.registry)
    reference = Reference.read(bundles.get(bundles.needed_champion_id()).reference)
    opened = open_store(place.alerts)
    results = opened.results(reference.manifest.embedding_version, 10_000) if opened else []
    past = take_last_days(results, days)
    if not past:
        raise UsageError("there is nothing to replay: refit monitor has measured no window yet")
    faults = [entry.name for entry in reference.manifest.metrics if entry.is_fault]
    replays = {
        name: replay(policy, settings.measure, past, faults, settings.quality.lag)
        for name, policy in (("now", settings.policy), (" ".join(what_if), other))
    }
    if as_json:
        write_json({name: found.model_dump(mode="json") for name, found in replays.items()})
        return
    write_table(
        f"The last {len(next(iter(replays.values())).days)} windows under two policies",
        ("policy", "alerts", "refits", "purchases lost while waiting", "cost in purchases"),
        (
            (name, found.alerts, found.refits, f"{found.waited:.1f}", f"{found.cost:.1f}")
            for name, found in replays.items()
        ),
    )
    for one, two in zip(*(found.days for found in replays.values()), strict=True):
        if one.action is not two.action:
            write_line(f"{one.end:%Y-%m-%d %H:%M}  {one.action} ({one.reason})")
            write_line(f"{'':16}  {two.action} ({two.reason})")


def _show(metadata: dict[str, Any], results: list[dict[str, Any]], explain: bool) -> None:
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
            if result["state"] != DriftState.NOT_CHECKED
        ),
    )
    for why in dict.fromkeys(r["why"] for r in results if r["state"] == DriftState.NOT_CHECKED):
        write_line(f"not checked: {why}")
    write_line(f"decision: {metadata['action']}")
    for reason in metadata["reasons"]:
        write_line(f"  {reason}")
    if explain:
        write_table(
            "Evidence of the newest window, of what an alert needs",
            ("result", "evidence", "probability without drift"),
            (
                (name, f"{share:.3g}", _number(probability))
                for name, share, probability in metadata["evidence"]
            ),
            when_empty="no evidence: the policy counts windows",
        )
        for sentence in metadata["story"]:
            write_line(f"  {sentence}")
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

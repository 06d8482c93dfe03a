"""refit backtest."""

from typing import Annotated, Any

import typer

from pipelines.cli.live import reporting
from pipelines.cli.options import ConfigOption, HomeOption, JsonOption, RegistryOption, SetOption
from pipelines.cli.output import write_json, write_line, write_table
from pipelines.home import Home
from pipelines.local import PIPELINE_STEPS, run_locally
from refit.errors import GateRefused
from refit.files import read_json


def backtest(
    config: ConfigOption = "simulated",
    changes: SetOption = None,
    cuts: Annotated[
        int | None, typer.Option(help="Number of test windows; as --set backtest.cuts=N.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Models at each cut; as --set backtest.seeds=N.")
    ] = None,
    home: HomeOption = None,
    registry: RegistryOption = "",
    cache: Annotated[
        bool, typer.Option(help="Reuse a step's earlier outputs when its inputs are the same.")
    ] = True,
    run_id: Annotated[
        str, typer.Option(help="Name of the run; a finished run of this name is not run again.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Fit and evaluate the same settings over the last windows.

    One window may be luck. A backtest goes back from the end of the data, a test window at a time,
    and each time ingests, trains, indexes and evaluates with the config's settings; nothing is
    deployed. The backtest section of the config says in how many windows the model must be better,
    and how much worse it may be in any. Refused, the exit code is 3. Every judgement is kept in the
    ledger, see refit runs ledger.

    Try:

      refit backtest --config my.yaml --cuts 4

      refit backtest --config my.yaml --cuts 2 --seeds 3 --json
    """
    from pipelines.arguments import backtest_arguments
    from pipelines.settings import load_config

    given = {"backtest.cuts": cuts, "backtest.seeds": seeds}
    more = [f"{name}={value}" for name, value in given.items() if value is not None]
    settings, place = (
        load_config(config, [*(changes or ()), *more]).settings,
        Home.at(home, registry),
    )
    with reporting("backtest", PIPELINE_STEPS["backtest"], as_json) as reporter:
        outcome = run_locally(
            "backtest",
            backtest_arguments(settings, place),
            place,
            use_cache=cache,
            reporter=reporter,
            run_id=run_id,
        )
    outcome.raise_if_failed()
    judged = outcome.metadata("judge")
    found = read_json(place.folder / judged["backtest"] / "backtest.json")
    if as_json:
        write_json({**found, "run_id": outcome.run_id, "passed": judged["passed"]})
    else:
        _show(found["cuts"])
        write_line(f"report: {judged['backtest']}/report.html")
    if not judged["passed"]:
        raise GateRefused("the backtest refused:\n  " + "\n  ".join(judged["reasons"]))


def _show(cuts: list[dict[str, Any]]) -> None:
    write_table(
        "Backtest",
        ("cut", "queries", "value", "over the best baseline", "over the champion", "gate"),
        [
            (
                cut["cut"],
                cut["n_queries"],
                _rate(cut["value"]) + (f" ± {_rate(cut['spread'])}" if cut["spread"] else ""),
                _gain(cut["best_baseline"]),
                _gain(cut["champion"]) if cut["champion"] else cut["champion_state"],
                f"{cut['passed']} of {cut['fits']} passed",
            )
            for cut in cuts
        ],
    )


def _gain(gain: dict[str, Any]) -> str:
    if gain["value"] is None:
        return "not measured"
    return f"{gain['value']:+.4f} ({_rate(gain['low'])} to {_rate(gain['high'])}), {gain['over']}"


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"

"""refit doctor."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.cluster import ClusterOption, EndpointOption
from pipelines.cli.live import reporting
from pipelines.cli.options import HomeOption, JsonOption, RegistryOption, StoreOption
from pipelines.cli.output import write_json, write_result
from pipelines.home import Home
from pipelines.reporter import Reporter
from refit.progress import StepChange

if TYPE_CHECKING:
    from pipelines.doctor.checks import Check, CheckResult

CLUSTER_PREFIX = "cluster: "


def check_setup(
    home: HomeOption = None,
    registry: RegistryOption = "",
    store: StoreOption = "",
    python: Annotated[Path, typer.Option(help="Python of the serving environment.")] = Path(
        ".venv-serving/bin/python"
    ),
    cluster: ClusterOption = None,
    endpoint: EndpointOption = "",
    as_json: JsonOption = False,
) -> None:
    """Check the setup: each line is ok, or what to do.

    Checks both Python environments (versions as locked, imports, Keras 2), the ports of refit
    serve, the disk, the home folder, the registry and the alert store. With --cluster it also
    checks what that cluster offers and what you may do there. Nothing is changed.

    Exit codes: 0 all is ok, 2 something must be set up, 5 a service cannot be reached or refuses.
    What could not be checked is not ok.

    Try:

      refit doctor

      refit doctor --cluster my-cluster.yaml --json
    """
    from pipelines.cluster.settings import read_cluster
    from pipelines.doctor.checks import exit_code_of
    from pipelines.doctor.cluster import ClusterDoctor
    from pipelines.doctor.environments import environment_checks
    from pipelines.doctor.machine import machine_checks

    checks = environment_checks(python) | machine_checks(Home.at(home, registry, store))
    if cluster:
        on_cluster = ClusterDoctor(read_cluster(cluster), endpoint).checks()
        checks |= {CLUSTER_PREFIX + subject: check for subject, check in on_cluster.items()}
    with reporting("doctor", checks, as_json) as reporter, ThreadPoolExecutor() as threads:
        found = threads.map(partial(_run, reporter), checks.items())
        results = [result for group in found for result in group]
    if as_json:
        write_json([result.model_dump(mode="json") for result in results])
    else:
        for result in results:
            write_result(result.ok, result.subject, result.detail)
    if code := exit_code_of(results):
        raise typer.Exit(code)


def _run(reporter: Reporter, named: "tuple[str, Check]") -> "list[CheckResult]":
    """Run a check that is named by its subject, and report it as a step."""
    from pipelines.doctor.checks import run_check

    name, check = named
    subject = name.removeprefix(CLUSTER_PREFIX)
    prefix = CLUSTER_PREFIX if subject != name else ""
    reporter.event(StepChange(name, "running"))
    results = list(run_check(subject, check))
    succeeded = all(result.ok for result in results)
    reporter.event(StepChange(name, "succeeded" if succeeded else "failed"))
    return [result.model_copy(update={"subject": prefix + result.subject}) for result in results]

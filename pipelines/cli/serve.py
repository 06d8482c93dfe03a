"""refit serve."""

import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pipelines.cli.live import reporting
from pipelines.cli.options import HomeOption, RegistryOption
from pipelines.cli.output import write_line, write_progress
from pipelines.home import Home
from refit.errors import UsageError

if TYPE_CHECKING:
    from serving.settings import RecommenderSettings


def serve(
    home: HomeOption = None,
    registry: RegistryOption = "",
    http_port: Annotated[int, typer.Option(help="REST port; 0 takes a free one.")] = 9000,
    grpc_port: Annotated[int, typer.Option(help="gRPC port; 0 takes a free one.")] = 5000,
    metrics_port: Annotated[int, typer.Option(help="Prometheus port; 0 takes a free one.")] = 6000,
    model_server_port: Annotated[
        int, typer.Option(help="Port of the PredictionService; 0 takes a free one.")
    ] = 8500,
    door: Annotated[
        Literal["seldon", "plain"],
        typer.Option(help="Seldon's server, or Refit's own without Seldon."),
    ] = "seldon",
    workers: Annotated[int, typer.Option(help="Worker processes (Seldon: of REST).")] = 1,
    python: Annotated[Path, typer.Option(help="Python of the serving environment.")] = Path(
        ".venv-serving/bin/python"
    ),
    poll_seconds: Annotated[
        float, typer.Option(help="Seconds between two looks for a new champion.")
    ] = 1.0,
    allow_replay: Annotated[
        bool, typer.Option(help="Answer as of the time that a request gives; for simulations.")
    ] = False,
    recommender: Annotated[
        Path | None,
        typer.Option(help="YAML file with more settings of the recommender, such as `slate`."),
    ] = None,
) -> None:
    """Serve the champion on this machine, until Ctrl-C.

    Starts the recommender and a PredictionService in place of tensorflow/serving, waits until both
    answer, and stops both at the end. It loads a newly promoted bundle by itself. If the
    PredictionService ends, it is started again, and popularity answers meanwhile.

    Try:

      refit serve

      refit serve --door plain

      refit serve --http-port 0 --registry s3://bucket/refit

      refit serve --recommender slate.yaml
    """
    from serving.launch import launch
    from serving.settings import ServeSettings

    place = Home.at(home, registry)
    given = {
        "registry": place.registry,
        "log_folder": place.predictions,
        "feeds": {"stock": str(place.stock), "activity": str(place.activity)},
        "poll_seconds": poll_seconds,
        "allow_replay": allow_replay,
    }
    settings = ServeSettings(
        recommender=_read_recommender(recommender, given),
        door=door,
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        model_server_port=model_server_port,
        python=python,
        run_folder=place.serving,
        workers=workers,
    )
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with reporting("start the servers"):
        server = launch(settings)
    with server:
        write_line(f"ready: {server.url}")
        try:
            while not stop.wait(0.5):
                server.tend()
        except KeyboardInterrupt:
            write_progress("stopping")


def _read_recommender(path: Path | None, given: Mapping[str, Any]) -> "RecommenderSettings":
    from pipelines.loading import read_document
    from serving.settings import RecommenderSettings

    if path is None:
        return RecommenderSettings.parse(given)
    try:
        document = read_document(path, "recommender file")
    except FileNotFoundError:
        raise UsageError(f"there is no recommender file {str(path)!r}") from None
    values = {**given, **document.values}
    if isinstance(feeds := document.values.get("feeds"), Mapping):
        values["feeds"] = {**given["feeds"], **feeds}
    return RecommenderSettings.parse(values, document.places, document.source)

"""The one process that writes to a Weaviate cluster: ``python -m serving.engines --settings JSON``.

Run exactly one. Exit codes are those of ``refit``.

Metrics, at ``/metrics`` of ``health_port``: ``refit_index_writer_timestamp_seconds`` (of the latest
round without a failure), ``refit_index_writer_failures``, ``refit_index_writer_refused``
(collections that miss their recall), ``refit_index_writer_filled`` (share of a new collection),
``refit_index_writer_waiting`` (items whose change is not written yet), ``refit_index_writer_items``
(by ``change``), ``refit_index_writer_recall``.
"""

import argparse
import signal
import sys
import threading
import time
from contextlib import closing

from refit.errors import RefitError, ServiceUnreachable
from refit.progress import log_message, set_up_logging
from serving.doors.metrics import Exporter
from serving.engines.settings import IndexWriterSettings
from serving.engines.writer import IndexWriter


def write(settings: IndexWriterSettings, stop: threading.Event) -> None:
    """Write until ``stop`` is set; what does not answer is asked again.

    Raises:
        RefitError: A setting is wrong.
    """
    with closing(IndexWriter(settings)) as writer:
        exporter = Exporter(writer.counters)
        last, is_busy = "", False
        while not stop.wait(0 if is_busy else settings.poll_seconds):
            try:
                is_busy = writer.step()
                last = ""
                writer.counters.set("refit_index_writer_timestamp_seconds", time.time())
            except ServiceUnreachable as error:
                is_busy = False
                writer.counters.add("refit_index_writer_failures")
                if str(error) != last:
                    last = str(error)
                    log_message(last)
            exporter.export()


def main(arguments: list[str] | None = None) -> int:
    """Write; returns the exit code."""
    from prometheus_client import start_http_server

    parser = argparse.ArgumentParser(
        prog="serving.engines", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--settings", required=True, help="IndexWriterSettings as JSON")
    options = parser.parse_args(arguments)
    set_up_logging()
    stop = threading.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: stop.set())
    try:
        settings = IndexWriterSettings.parse_json(options.settings)
        if settings.health_port:
            start_http_server(settings.health_port)
        write(settings, stop)
    except RefitError as error:
        log_message(f"error: {error}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Serve the review pages and the monitor's metrics; it never writes anything.

Run it with::

    python -m monitoring.review.server --pages PAGES --store alerts.sqlite --port 8080

``/`` serves the pages, ``/metrics`` the alert store as metrics, ``/healthz`` "ok".
"""

import argparse
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from monitoring.metrics import StoreCollector
from refit.database import PLACES, parse_place
from refit.errors import UsageError
from refit.progress import log_message, set_up_logging
from refit.signals import end_on_sigterm


def make_server(pages: Path, store: str | Path, host: str, port: int) -> ThreadingHTTPServer:
    """A server that is ready for ``serve_forever``.

    Args:
        pages: Folder of the review pages; it may not exist yet.
        store: Where the alert store is, as ``SqlStore`` takes it; it may not exist yet.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.

    Raises:
        UsageError: The place of the store cannot be read.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(StoreCollector(store))
    handler = partial(_Handler, registry, directory=str(pages))
    return ThreadingHTTPServer((host, port), handler)


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, registry: CollectorRegistry, *args: Any, **kwargs: Any) -> None:
        self._registry = registry
        super().__init__(*args, **kwargs)

    def do_GET(self) -> None:
        if self.path == "/healthz":
            self._answer(b"ok\n", "text/plain")
        elif self.path == "/metrics":
            self._answer(generate_latest(self._registry), CONTENT_TYPE_LATEST)
        else:
            super().do_GET()

    def list_directory(self, path: Any) -> None:
        """Answer 404: a folder without an index page is not listed."""
        self.send_error(HTTPStatus.NOT_FOUND, "No review page yet: the monitor has not run")

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        """Log no requests; most would be probes and scrapes."""

    def log_message(self, form: str, *values: Any) -> None:
        log_message(f"review page: {form % values}")

    def _answer(self, body: bytes, kind: str) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _read_place(text: str) -> str:
    try:
        parse_place(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pages", type=Path, required=True)
    parser.add_argument("--store", type=_read_place, required=True, help=f"alert store: {PLACES}")
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=8080)
    options = parser.parse_args()
    set_up_logging()
    end_on_sigterm()
    with make_server(options.pages, options.store, options.host, options.port) as server:
        log_message(f"review pages: http://{options.host}:{server.server_port}/")
        server.serve_forever()


if __name__ == "__main__":
    main()

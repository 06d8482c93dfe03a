"""A stand-in for a Kubernetes API server: the few answers that the doctor asks for.

Its answers have the form of Kubernetes 1.34's.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


@dataclass
class KubernetesStandIn:
    """What the server knows.

    Attributes:
        objects: Paths that exist.
        forbidden: Paths that this user may not read.
        refused: Verb and resource, such as ``patch seldondeployments``, that are not allowed.
        reviews: Attributes of the access reviews so far.
        accepted: ``Accept`` headers of the requests for objects.
    """

    objects: set[str] = field(default_factory=set)
    forbidden: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    reviews: list[dict[str, str]] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)


@contextmanager
def serving(known: KubernetesStandIn, kubeconfig: Path) -> Iterator[str]:
    """Answer on a port of this machine, and write a kubeconfig for it; yields the URL."""
    handler = type("Handler", (_Handler,), {"known": known})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    write_kubeconfig(kubeconfig, url)
    try:
        yield url
    finally:
        server.shutdown()
        server.server_close()


def write_kubeconfig(path: Path, url: str) -> None:
    """Write a kubeconfig for the server at a URL."""
    values = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": url}}],
        "users": [{"name": "test", "user": {"token": "test-token"}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    }
    path.write_text(yaml.safe_dump(values))


class _Handler(BaseHTTPRequestHandler):
    known: KubernetesStandIn

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.headers.get("authorization") != "Bearer test-token":
            return self._status(401, "Unauthorized")
        self.known.accepted.append(self.headers.get("accept", ""))
        if self.path == "/version":
            return self._json({"major": "1", "minor": "34", "gitVersion": "v1.34.4"})
        if self.path in self.known.forbidden:
            return self._status(403, "Forbidden")
        if self.path in self.known.objects:
            return self._json({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"})
        return self._status(404, "NotFound")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != REVIEWS:
            return self._status(404, "NotFound")
        attributes = body["spec"]["resourceAttributes"]
        self.known.reviews.append(attributes)
        allowed = f"{attributes['verb']} {attributes['resource']}" not in self.known.refused
        return self._json(body | {"status": {"allowed": allowed}}, 201)

    def _status(self, code: int, reason: str) -> None:
        message = f"{self.path}: {reason}"
        values = {"status": "Failure", "message": message, "reason": reason, "code": code}
        self._json({"kind": "Status", "apiVersion": "v1", **values}, code)

    def _json(self, value: Any, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

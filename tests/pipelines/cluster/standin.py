"""A stand-in for the Kubeflow Pipelines API: its v2beta1 routes over a dict, no pipeline runs.

It speaks the JSON of kfp_server_api's own models. The real backend is met in tests/cluster.
"""

import json
import re
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kfp_server_api as kfp

ROUTES = {
    "experiments": ("experiment_id", kfp.V2beta1Experiment, "experiments"),
    "pipelines": ("pipeline_id", kfp.V2beta1Pipeline, "pipelines"),
    "versions": ("pipeline_version_id", kfp.V2beta1PipelineVersion, "pipeline_versions"),
    "runs": ("run_id", kfp.V2beta1Run, "runs"),
    "recurringruns": ("recurring_run_id", kfp.V2beta1RecurringRun, "recurringRuns"),
}
PAGE = 2
"""Pages are this short, so that whoever lists must go on."""


class StandIn:
    """What the API would know.

    Attributes:
        kept: Entries by route and id, in the API's own JSON names.
        logs: What pods said, by pod.
        token: The bearer token that is asked for; empty asks for none.
        knows_names: Whether a pipeline may have a ``name``, as backends since 2024 allow.
        before_create: Called before a run is kept.
        away: How many of the next requests get no answer but 503.
        release: What the older health check reports as its tag.
    """

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, dict[str, Any]]] = {route: {} for route in ROUTES}
        self.logs: dict[str, str] = {}
        self.uploads: list[bytes] = []
        self.token = ""
        self.knows_names = True
        self.before_create = lambda run: None
        self.away = 0
        self.release = "2.17.0"
        self.url = ""
        self._client = kfp.ApiClient()

    def add(self, route: str, **values: Any) -> str:
        """Keep an entry, given in the models' Python names; returns its id."""
        id_field, model, _ = ROUTES[route]
        name = values.setdefault(id_field, str(uuid.uuid4()))
        values.setdefault(
            "created_at", datetime.now(UTC) + timedelta(seconds=len(self.kept[route]))
        )
        self.kept[route][name] = self._client.sanitize_for_serialization(model(**values))
        return name

    def add_run(self, name: str, state: str, *steps: tuple[Any, ...], **values: Any) -> str:
        """Keep a run with steps ``(name, state, pod)``."""
        start = datetime(2026, 5, 1, tzinfo=UTC)
        details = [
            kfp.V2beta1PipelineTaskDetail(
                display_name=step,
                state=step_state,
                start_time=start + timedelta(minutes=place),
                end_time=start + timedelta(minutes=place, seconds=30),
                child_tasks=[kfp.PipelineTaskDetailChildTask(pod_name=pod)] if pod else None,
            )
            for place, (step, step_state, pod) in enumerate(steps)
        ]
        return self.add(
            "runs",
            display_name=name,
            state=state,
            run_details=kfp.V2beta1RunDetails(task_details=details),
            **values,
        )

    def named(self, route: str) -> list[str]:
        """Display names of what is kept."""
        return [entry["display_name"] for entry in self.kept[route].values()]


@contextmanager
def serving(standin: StandIn) -> Iterator[StandIn]:
    """Answer on a port of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"known": standin}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    standin.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield standin
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    known: StandIn

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        path, query = self._asked()
        if not path.startswith("/apis/"):
            page = b"<!doctype html><title>something else</title>"
            return self._answer(200 if path.startswith("/page") else 404, page)
        if path == "/apis/v2beta1/healthz":
            return self._json({"multi_user": False})
        if path == "/apis/v1beta1/healthz":
            return self._json({"tag_name": self.known.release, "commit_sha": "unknown"})
        if log := re.fullmatch(r"/apis/v1alpha1/runs/(.*)/nodes/(.*)/log", path):
            text = self.known.logs.get(log[2])
            error = '{"error_message":"Failed to read logs"}'
            return self._answer(200, (error if text is None else text).encode())
        route, name = self._route(path)
        if name:
            return self._json(self.known.kept[route].get(name) or {})
        found = list(self.known.kept[route].values())
        for predicate in json.loads(query.get("filter", "{}")).get("predicates", ()):
            assert predicate["operation"] == "EQUALS"
            found = [e for e in found if e.get(predicate["key"]) == predicate["stringValue"]]
        if "experiment_id" in query:
            found = [e for e in found if e.get("experiment_id") == query["experiment_id"]]
        if query.get("sort_by", "").endswith("desc"):
            found.reverse()
        start = int(query.get("page_token") or 0)
        page: dict[str, Any] = {ROUTES[route][2]: found[start : start + PAGE]}
        if len(found) > start + PAGE:
            page["next_page_token"] = str(start + PAGE)
        return self._json(page)

    def do_POST(self) -> None:
        path, query = self._asked()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if path.endswith("/pipelines/upload_version"):
            self.known.uploads.append(body)
            return self._keep(
                "versions", {"display_name": query["name"], "pipeline_id": query["pipelineid"]}
            )
        if run := re.fullmatch(r"/apis/v2beta1/runs/(.*):terminate", path):
            self.known.kept["runs"][run[1]]["state"] = "CANCELED"
            return self._json({})
        if run := re.fullmatch(r"/apis/v2beta1/runs/(.*):retry", path):
            self.known.kept["runs"][run[1]]["state"] = "RUNNING"
            return self._json({})
        if schedule := re.fullmatch(r"/apis/v2beta1/recurringruns/(.*):disable", path):
            self.known.kept["recurringruns"][schedule[1]]["status"] = "DISABLED"
            return self._json({})
        route, _ = self._route(path)
        values = json.loads(body)
        if route == "pipelines" and "name" in values and not self.known.knows_names:
            return self._json({"code": 3, "message": 'unknown field "name"'}, 400)
        if route == "runs":
            self.known.before_create(values)
        return self._keep(route, values)

    def do_DELETE(self) -> None:
        route, name = self._route(self._asked()[0])
        del self.known.kept[route][name]
        self._json({})

    def _keep(self, route: str, values: dict[str, Any]) -> None:
        name = self.known.add(route)
        self.known.kept[route][name] |= values
        self._json(self.known.kept[route][name])

    def _asked(self) -> tuple[str, dict[str, str]]:
        parts = urlsplit(self.path)
        return parts.path, {name: values[0] for name, values in parse_qs(parts.query).items()}

    def _route(self, path: str) -> tuple[str, str]:
        if re.fullmatch(r"/apis/v2beta1/pipelines/[^/]+/versions", path):
            return "versions", ""
        found = re.fullmatch(r"/apis/v2beta1/(\w+)(?:/([^/]+))?", path)
        return (found[1], found[2] or "") if found else ("", "")

    def parse_request(self) -> bool:
        """Turn away who may not come in, before any route is looked at."""
        if not super().parse_request():
            return False
        if self.known.away:
            self.known.away -= 1
            self._json({"code": 14, "message": "not now"}, 503)
            return False
        if self.known.token and self.headers.get("authorization") != f"Bearer {self.known.token}":
            self._json({"code": 16, "message": "who are you?"}, 401)
            return False
        return True

    def _json(self, value: Any, status: int = 200) -> None:
        self._answer(status, json.dumps(value).encode())

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

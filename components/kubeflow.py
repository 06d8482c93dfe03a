"""A client of the Kubeflow Pipelines API: runs, pipeline versions, schedules, logs."""

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from refit.errors import RefitError, ServiceUnreachable, UsageError
from refit.settings import Settings

STEP_TOKEN_VARIABLE = "KF_PIPELINES_SA_TOKEN_PATH"
"""Environment variable with the path of a pod's token file, set in Kubeflow's multi-user mode."""
FINISHED = ("SUCCEEDED", "SKIPPED", "FAILED", "CANCELED")
MAX_LATE_POLLS = 5
"""Polls of a finished run until its tasks are finished too."""
TIMEOUT_SECONDS = (10.0, 60.0)
PAGE_SIZE = 100


class Task(Settings):
    """One task of a run as reported by the API; not every task is a pipeline step.

    Attributes:
        name: The task's name in the pipeline, such as ``train-towers``.
        state: Such as ``RUNNING`` or ``SUCCEEDED``.
        started_at, finished_at: None if not yet.
        error: Error message; "" if there is none.
        pods: Names of the pods of the task and its child tasks, as far as the API reports them.
    """

    name: str
    state: str
    started_at: datetime | None = None
    finished_at: datetime | None = None
    error: str = ""
    pods: tuple[str, ...] = ()


class PipelineRun(Settings):
    """One run of a pipeline on a cluster.

    Attributes:
        run_id, name: Id, and name, which need not be unique.
        state: Such as ``RUNNING`` or ``SUCCEEDED``.
        created_at, finished_at: ``finished_at`` is None if the run is not over.
        experiment_id, version_id, schedule_id: Ids of related objects; "" if there is none.
        service_account: The service account of the run's pods.
        error: Error message; "" if there is none.
        tasks: The run's tasks; empty in lists of runs.
    """

    run_id: str
    name: str
    state: str
    created_at: datetime
    finished_at: datetime | None = None
    experiment_id: str = ""
    service_account: str = ""
    version_id: str = ""
    schedule_id: str = ""
    error: str = ""
    tasks: tuple[Task, ...] = ()

    @property
    def is_over(self) -> bool:
        """Whether the run is in a final state."""
        return self.state in FINISHED

    @property
    def is_complete(self) -> bool:
        """Whether run and tasks are over; the API may report the end of tasks later."""
        return self.is_over and all(task.state != "RUNNING" for task in self.tasks)

    def has_done(self, name: str) -> bool:
        """Whether a task succeeded; in a run that succeeded, every started task has."""
        done = ("SUCCEEDED", "RUNNING") if self.state == "SUCCEEDED" else ("SUCCEEDED",)
        return any(task.name == name and task.state in done for task in self.tasks)


class RunRequest(Settings):
    """A run to be created.

    Attributes:
        endpoint: URL of the API for the process that creates the run.
        experiment_id, pipeline_id, version_id: Ids of the API.
        service_account: Service account of the run's pods; empty for the installation's default.
        arguments: The pipeline's parameters.
        token_file: File with a bearer token; empty for the token that Kubeflow gives to a pod.
    """

    endpoint: str = ""
    experiment_id: str
    pipeline_id: str
    version_id: str
    service_account: str = ""
    arguments: dict[str, Any] = {}
    token_file: str = ""


class Schedule(Settings):
    """A recurring run of the API.

    Attributes:
        schedule_id, name: Id and name.
        cron: Cron expression with seconds, in UTC.
        enabled: Whether it starts runs.
        created_at: Time of its creation.
        experiment_id, version_id: Ids of the API.
    """

    schedule_id: str
    name: str
    cron: str
    enabled: bool
    created_at: datetime | None = None
    experiment_id: str = ""
    version_id: str = ""


class Kubeflow:
    """A client of the Kubeflow Pipelines API (v2beta1).

    Args:
        configuration: A ``kfp_server_api.Configuration``: host, token, TLS.
        address: Describes the endpoint in error messages.
    """

    def __init__(self, configuration: Any, address: str) -> None:
        import kfp_server_api

        configuration.retries = False  # not every call is idempotent
        self.address = address
        self._client = kfp_server_api.ApiClient(configuration)
        self._models = kfp_server_api

    @classmethod
    def at(cls, endpoint: str, token: str = "", ca_file: str = "", verify: bool = True) -> Self:
        """Create a client for a URL.

        Args:
            endpoint: Such as ``http://ml-pipeline.kubeflow:8888``.
            token: Bearer token; empty for none.
            ca_file: PEM file of trusted certificates; empty for the system's.
            verify: Whether to verify the server's certificate.
        """
        import kfp_server_api

        configuration = kfp_server_api.Configuration(host=endpoint.rstrip("/"))
        if token:
            configuration.api_key = {"authorization": token}
            configuration.api_key_prefix = {"authorization": "Bearer"}
        configuration.ssl_ca_cert = ca_file or None
        configuration.verify_ssl = verify
        return cls(configuration, endpoint)

    @classmethod
    def for_step(cls, request: RunRequest) -> Self:
        """Create a client inside a pipeline step."""
        token_file = request.token_file or os.environ.get(STEP_TOKEN_VARIABLE, "")
        token = Path(token_file).read_text("utf-8").strip() if token_file else ""
        return cls.at(request.endpoint, token)

    def check(self) -> None:
        """Check that the API responds and accepts the token.

        Raises:
            ServiceUnreachable: It does not; the message says what to do.
        """
        method = "healthz_service_get_healthz"
        response = self._call("HealthzServiceApi", method, _preload_content=False)
        with self._translated_errors():
            json.loads(response.data)  # an HTML page would count as an empty response

    def release(self) -> str:
        """Release of the backend, such as ``2.17.0``; "" if the backend does not report it.

        Raises:
            ServiceUnreachable: The API does not respond.
        """
        with self._translated_errors():
            # Only the v1beta1 health check reports it, which the generated client lacks.
            response = self._client.call_api(
                "/apis/v1beta1/healthz",
                "GET",
                header_params={"Accept": "application/json"},
                response_type="object",
                auth_settings=["Bearer"],
                _return_http_data_only=True,
                _request_timeout=TIMEOUT_SECONDS,
            )
        release = str(dict(response or {}).get("tag_name", ""))
        return "" if release in ("unknown", "dev") else release

    def find_experiment(self, name: str, namespace: str = "") -> str:
        """Return the id of an experiment; create the experiment if it does not exist.

        Args:
            name: The experiment's name.
            namespace: Namespace in a multi-user installation; empty in a single-user one.
        """
        scope = {"namespace": namespace} if namespace else {}
        found = self._list("experiment", filter=_named(name), **scope)
        if found:
            return str(found[0].experiment_id)
        body = self._models.V2beta1Experiment(display_name=name, namespace=namespace or None)
        created = self._call("ExperimentServiceApi", "experiment_service_create_experiment", body)
        return str(created.experiment_id)

    def find_version(
        self, pipeline: str, version: str, package: Path, namespace: str = ""
    ) -> tuple[str, str]:
        """Return the ids of a pipeline and its version; upload the version if it does not exist.

        Args:
            pipeline: The pipeline's name.
            version: The version's name; an existing version of this name is not uploaded again.
            package: The compiled pipeline, YAML.
            namespace: Namespace in a multi-user installation; empty in a single-user one.
        """
        pipeline_id = self._pipeline_id(pipeline, namespace)
        query = {"filter": _named(version), "pipeline_id": pipeline_id}
        if not (found := self._list("pipeline_version", **query)):
            try:
                self._call(
                    "PipelineUploadServiceApi",
                    "upload_pipeline_version",
                    str(package),
                    name=version,
                    pipelineid=pipeline_id,
                )
            except ServiceUnreachable:
                raise
            except RefitError:
                # Another process may have uploaded the same version.
                if not (found := self._list("pipeline_version", **query)):
                    raise
            found = found or self._list("pipeline_version", **query)
        return pipeline_id, str(found[0].pipeline_version_id)

    def _pipeline_id(self, name: str, namespace: str) -> str:
        scope = {"namespace": namespace} if namespace else {}
        found = self._list("pipeline", filter=_named(name), **scope)
        if found:
            return str(found[0].pipeline_id)
        method = "pipeline_service_create_pipeline"
        names = {"display_name": name, "namespace": namespace or None}
        try:
            body = self._models.V2beta1Pipeline(name=name, **names)
            created = self._call("PipelineServiceApi", method, body)
        except UsageError:  # backend 2.0 has only the display name
            body = self._models.V2beta1Pipeline(**names)
            created = self._call("PipelineServiceApi", method, body)
        return str(created.pipeline_id)

    def create_run(self, name: str, request: RunRequest) -> PipelineRun:
        """Start a run."""
        models = self._models
        body = models.V2beta1Run(
            display_name=name,
            experiment_id=request.experiment_id,
            service_account=request.service_account or None,
            pipeline_version_reference=_version(models, request),
            runtime_config=models.V2beta1RuntimeConfig(parameters=request.arguments),
        )
        return _to_run(self._call("RunServiceApi", "run_service_create_run", body))

    def start_once(self, name: str, request: RunRequest) -> tuple[PipelineRun, bool]:
        """Start a run unless one with this name exists.

        The API does not enforce unique names. If several processes start a run of the same name at
        the same time, the oldest run is kept; the other processes delete the runs they created.

        Returns:
            The run of this name, and whether this call started it.
        """
        if existing := self.find_runs(name, request.experiment_id):
            return existing[0], False
        created = self.create_run(name, request)
        oldest = self.find_runs(name, request.experiment_id)[0]
        if oldest.run_id == created.run_id:
            return created, True
        self.cancel(created.run_id)
        self._call("RunServiceApi", "run_service_delete_run", created.run_id)
        return oldest, False

    def find_runs(self, name: str, experiment_id: str) -> list[PipelineRun]:
        """The runs with this name, oldest first; the order is the same for all clients."""
        found = self._list("run", filter=_named(name), experiment_id=experiment_id)
        return sorted(map(_to_run, found), key=lambda run: (run.created_at, run.run_id))

    def list_runs(self, experiment_id: str, count: int) -> list[PipelineRun]:
        """The newest runs of an experiment, newest first, without their tasks."""
        page = self._page(
            "run", experiment_id=experiment_id, page_size=count, sort_by="created_at desc"
        )
        return [_to_run(run) for run in page.runs or ()]

    def get_run(self, run_id: str) -> PipelineRun:
        """One run with its tasks."""
        return _to_run(self._call("RunServiceApi", "run_service_get_run", run_id))

    def cancel(self, run_id: str) -> None:
        """Stop a run and terminate its pods."""
        self._call("RunServiceApi", "run_service_terminate_run", run_id)

    def retry(self, run_id: str) -> None:
        """Retry the failed steps of a run; steps that succeeded are not repeated."""
        self._call("RunServiceApi", "run_service_retry_run", run_id)

    def read_log(self, run_id: str, pod: str) -> str | None:
        """Read the log of a run's pod; None if the API does not provide it."""
        import urllib3

        # Logs are not part of the generated client: the API streams them on a separate route.
        path = f"/apis/v1alpha1/runs/{run_id}/nodes/{pod}/log"
        headers: dict[str, str] = {}
        self._client.update_params_for_auth(headers, [], ["Bearer"])
        try:
            response = self._client.rest_client.pool_manager.request(
                "GET",
                self._client.configuration.host + path,
                headers=headers,
                timeout=urllib3.Timeout(*TIMEOUT_SECONDS),
            )
        except urllib3.exceptions.HTTPError:
            return None
        text = response.data.decode("utf-8", "replace")
        # The route responds with 200 before it reads the log; an error follows as JSON.
        failed = response.status != 200 or '{"error_message":' in text[:40] or not text.strip()
        return None if failed else text

    def create_schedule(self, name: str, cron: str, request: RunRequest) -> Schedule:
        """Create a recurring run: one run at a time, missed runs are not caught up."""
        models = self._models
        body = models.V2beta1RecurringRun(
            display_name=name,
            experiment_id=request.experiment_id,
            service_account=request.service_account or None,
            pipeline_version_reference=_version(models, request),
            runtime_config=models.V2beta1RuntimeConfig(parameters=request.arguments),
            trigger=models.V2beta1Trigger(cron_schedule=models.V2beta1CronSchedule(cron=cron)),
            mode=models.RecurringRunMode.ENABLE,
            max_concurrency="1",
            no_catchup=True,
        )
        method = "recurring_run_service_create_recurring_run"
        return _to_schedule(self._call("RecurringRunServiceApi", method, body))

    def list_schedules(self, experiment_id: str) -> list[Schedule]:
        """The schedules of an experiment."""
        return [
            _to_schedule(found)
            for found in self._list("recurring_run", experiment_id=experiment_id)
        ]

    def retire_schedule(self, schedule: Schedule) -> bool:
        """Disable a schedule, and delete it if none of its runs is active.

        Deleting a schedule in Kubeflow Pipelines also deletes the pods of its runs.

        Returns:
            Whether it was deleted; otherwise it starts no more runs, and must be retired again.
        """
        service = "RecurringRunServiceApi"
        method = "recurring_run_service_{}_recurring_run"
        self._call(service, method.format("disable"), schedule.schedule_id)
        newest = self.list_runs(schedule.experiment_id, PAGE_SIZE)
        if any(run.schedule_id == schedule.schedule_id and not run.is_over for run in newest):
            return False
        self._call(service, method.format("delete"), schedule.schedule_id)
        return True

    def _list(self, kind: str, **query: Any) -> list[Any]:
        """All objects of a kind that match the query, from all pages."""
        found: list[Any] = []
        token = ""
        while True:
            page = self._page(kind, page_token=token, page_size=PAGE_SIZE, **query)
            found += getattr(page, f"{kind}s") or ()
            token = page.next_page_token or ""
            if not token:
                return found

    def _page(self, kind: str, **query: Any) -> Any:
        service = "pipeline" if kind == "pipeline_version" else kind
        api = "".join(part.title() for part in service.split("_")) + "ServiceApi"
        method = f"{service}_service_list_{kind}s"
        # For versions, the pipeline's id is part of the path instead of the query.
        path = [query.pop("pipeline_id")] if "pipeline_id" in query else []
        return self._call(api, method, *path, **query)

    def _call(self, api: str, method: str, *arguments: Any, **options: Any) -> Any:
        with self._translated_errors():
            call = getattr(getattr(self._models, api)(self._client), method)
            return call(*arguments, **options, _request_timeout=TIMEOUT_SECONDS)

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        """Translate errors of the generated client into our errors, with advice."""
        import urllib3

        try:
            yield
        except urllib3.exceptions.HTTPError as error:
            raise ServiceUnreachable(
                f"Kubeflow Pipelines does not respond at {self.address} ({_brief(error)}): "
                "check --endpoint, REFIT_KFP_ENDPOINT or the cluster file"
            ) from None
        except self._models.ApiException as error:
            raise self._translate(error) from None
        except (ValueError, AttributeError) as error:
            # The generated client raises these for responses that are not the API's JSON.
            raise ServiceUnreachable(
                f"the server at {self.address} is not the Kubeflow Pipelines API ({_brief(error)})"
            ) from None

    def _translate(self, error: Any) -> RefitError:
        message = _message(error)
        if error.status in (401, 403):
            return ServiceUnreachable(
                f"{self.address} denies access ({error.status}): {message}\n"
                "provide a valid token: token_file or token_variable in the cluster file"
            )
        if error.status == 404 and "code" not in _body(error):
            return ServiceUnreachable(
                f"there is no Kubeflow Pipelines API at {self.address} (404): "
                "the endpoint is the URL before /apis"
            )
        if not error.status or error.status in (502, 503, 504):
            return ServiceUnreachable(
                f"{self.address} does not respond ({error.status}): {message}"
            )
        if error.status in (400, 404):
            return UsageError(f"Kubeflow Pipelines rejected the request: {message}")
        return RefitError(f"Kubeflow Pipelines failed ({error.status}): {message}")


def poll_run(
    api: Kubeflow, run_id: str, every: float, patience: float = 0.0
) -> Iterator[PipelineRun]:
    """Poll a run until run and tasks are over, and yield it after each poll.

    Args:
        api: The API.
        run_id: The run's id.
        every: Seconds between two polls.
        patience: Seconds for which the API may be unreachable, for example while it restarts.

    Raises:
        ServiceUnreachable: The API was unreachable for longer.
    """
    last_response, late_polls = time.monotonic(), MAX_LATE_POLLS
    while True:
        try:
            run = api.get_run(run_id)
        except ServiceUnreachable:
            if time.monotonic() - last_response > patience:
                raise
        else:
            last_response = time.monotonic()
            yield run
            late_polls -= run.is_over
            if run.is_complete or not late_polls:
                return
        time.sleep(every)


def wait_for(api: Kubeflow, run_id: str, seconds: float, every: float) -> PipelineRun:
    """Poll a run until it is complete or the time is up, and return its last state."""
    until = time.monotonic() + seconds
    for last in poll_run(api, run_id, every):
        run = last
        if time.monotonic() >= until:
            break
    return run


def _named(name: str) -> str:
    predicate = {"key": "display_name", "operation": "EQUALS", "stringValue": name}
    return json.dumps({"predicates": [predicate]})


def _version(models: Any, request: RunRequest) -> Any:
    return models.V2beta1PipelineVersionReference(
        pipeline_id=request.pipeline_id, pipeline_version_id=request.version_id
    )


def _to_run(found: Any) -> PipelineRun:
    reference = found.pipeline_version_reference
    tasks = found.run_details.task_details if found.run_details else None
    return PipelineRun(
        run_id=found.run_id,
        name=found.display_name,
        state=_state(found),
        created_at=found.created_at,
        finished_at=_time(found.finished_at),
        experiment_id=found.experiment_id or "",
        service_account=found.service_account or "",
        version_id=(reference.pipeline_version_id or "") if reference else "",
        schedule_id=found.recurring_run_id or "",
        error=_error(found),
        tasks=tuple(_to_task(task) for task in tasks or ()),
    )


def _to_task(found: Any) -> Task:
    pods = [child.pod_name for child in found.child_tasks or ()]
    return Task(
        name=found.display_name or "",
        # A task that never started because its run ended has an end time but no state.
        state=_state(found) if found.state or not _time(found.end_time) else "SKIPPED",
        started_at=_time(found.start_time),
        finished_at=_time(found.end_time),
        error=_error(found),
        pods=tuple(pod for pod in (*pods, found.pod_name) if pod),
    )


def _to_schedule(found: Any) -> Schedule:
    trigger = found.trigger.cron_schedule if found.trigger else None
    reference = found.pipeline_version_reference
    return Schedule(
        schedule_id=found.recurring_run_id,
        name=found.display_name,
        cron=(trigger.cron or "") if trigger else "",
        enabled=found.status in (None, "ENABLED"),
        created_at=_time(found.created_at),
        experiment_id=found.experiment_id or "",
        version_id=(reference.pipeline_version_id or "") if reference else "",
    )


def _state(found: Any) -> str:
    return (found.state or "PENDING").removeprefix("RUNTIME_STATE_")


def _time(value: datetime | None) -> datetime | None:
    """A time; the API reports 1970 or earlier for an event that has not happened yet."""
    return value if value and value.year > 1970 else None


def _error(found: Any) -> str:
    return (found.error.message or "") if found.error else ""


def _brief(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    return str(reason).rpartition("> ")[2] or type(error).__name__


def _body(error: Any) -> Mapping[str, Any]:
    try:
        body = json.loads(error.body or "")
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _message(error: Any) -> str:
    body = _body(error)
    message = next(
        (body[name] for name in ("message", "error", "error_message") if body.get(name)), ""
    )
    return str(message or error.reason or error.body)[:500]

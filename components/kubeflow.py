"""The Kubeflow Pipelines API, as far as Refit needs it: runs, versions, schedules, logs."""

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
"""Where Kubeflow's multi-user mode tells a pod its token file."""
FINISHED = ("SUCCEEDED", "SKIPPED", "FAILED", "CANCELED")
LATE_LOOKS = 5
"""At a run that is over, for the ends of its tasks."""
TIMEOUT_SECONDS = (10.0, 60.0)
PAGE_SIZE = 100


class Task(Settings):
    """One node of a run as the API tells it; not every node is a step.

    Attributes:
        name: What it is called in the pipeline, such as ``train-towers``.
        pods: Names of the pods that it and its parts ran in, as far as they are told.
    """

    name: str
    state: str
    started_at: datetime | None = None
    finished_at: datetime | None = None
    error: str = ""
    pods: tuple[str, ...] = ()


class PipelineRun(Settings):
    """One run of a pipeline on a cluster."""

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
        """Whether nothing of it runs any more."""
        return self.state in FINISHED

    @property
    def is_settled(self) -> bool:
        """Whether it is over and so are its tasks, whose ends may be told after the run's own."""
        return self.is_over and all(task.state != "RUNNING" for task in self.tasks)

    def has_done(self, name: str) -> bool:
        """Whether a task did its work; in a run that succeeded, each that began has."""
        done = ("SUCCEEDED", "RUNNING") if self.state == "SUCCEEDED" else ("SUCCEEDED",)
        return any(task.name == name and task.state in done for task in self.tasks)


class RunRequest(Settings):
    """A run to be created: which pipeline version, as whom, with which parameters.

    Attributes:
        endpoint: The API as seen from where the run is created.
        experiment_id, pipeline_id, version_id: As the API names them.
        service_account: Of all the run's pods; empty takes the installation's own.
        arguments: The pipeline's parameters.
        token_file: File with a bearer token; empty takes what Kubeflow gives a pod, if it does.
    """

    endpoint: str = ""
    experiment_id: str
    pipeline_id: str
    version_id: str
    service_account: str = ""
    arguments: dict[str, Any] = {}
    token_file: str = ""


class Schedule(Settings):
    """A recurring run."""

    schedule_id: str
    name: str
    cron: str
    enabled: bool
    created_at: datetime | None = None
    experiment_id: str = ""
    version_id: str = ""


class Kubeflow:
    """A Kubeflow Pipelines API (v2beta1).

    Args:
        configuration: Of kfp_server_api: host, token, TLS.
        where: How to name the endpoint to people.
    """

    def __init__(self, configuration: Any, where: str) -> None:
        import kfp_server_api

        configuration.retries = False  # what may be repeated is decided here, call by call
        self.where = where
        self._client = kfp_server_api.ApiClient(configuration)
        self._models = kfp_server_api

    @classmethod
    def at(cls, endpoint: str, token: str = "", ca_file: str = "", verify: bool = True) -> Self:
        """The API at a URL.

        Args:
            endpoint: Such as ``http://ml-pipeline.kubeflow:8888``.
            token: Bearer token; empty for none.
            ca_file: Certificates to trust, PEM; empty trusts what the system trusts.
            verify: Check the server's certificate.
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
        """The API as a step of a run reaches it."""
        token_file = request.token_file or os.environ.get(STEP_TOKEN_VARIABLE, "")
        token = Path(token_file).read_text("utf-8").strip() if token_file else ""
        return cls.at(request.endpoint, token)

    def check(self) -> None:
        """See whether the API answers and lets us in.

        Raises:
            ServiceUnreachable: It does not; the message says what to do.
        """
        call = "healthz_service_get_healthz"
        answer = self._ask("HealthzServiceApi", call, _preload_content=False)
        with self._explained():
            json.loads(answer.data)  # a page that is no JSON would pass for an empty answer

    def release(self) -> str:
        """Release of the backend, such as ``2.17.0``; "" where it does not report one.

        Raises:
            ServiceUnreachable: The API does not answer.
        """
        with self._explained():
            # Only the older health check reports it, which the typed client does not have.
            answer = self._client.call_api(
                "/apis/v1beta1/healthz",
                "GET",
                header_params={"Accept": "application/json"},
                response_type="object",
                auth_settings=["Bearer"],
                _return_http_data_only=True,
                _request_timeout=TIMEOUT_SECONDS,
            )
        release = str(dict(answer or {}).get("tag_name", ""))
        return "" if release in ("unknown", "dev") else release

    def find_experiment(self, name: str, namespace: str = "") -> str:
        """Id of an experiment, made when there is none of this name.

        Args:
            name: The experiment's name.
            namespace: Of a multi-user installation; empty for a single-user one.
        """
        wanted = {"namespace": namespace} if namespace else {}
        found = self._list("experiment", filter=_named(name), **wanted)
        if found:
            return str(found[0].experiment_id)
        body = self._models.V2beta1Experiment(display_name=name, namespace=namespace or None)
        made = self._ask("ExperimentServiceApi", "experiment_service_create_experiment", body)
        return str(made.experiment_id)

    def find_version(
        self, pipeline: str, version: str, package: Path, namespace: str = ""
    ) -> tuple[str, str]:
        """Ids of a pipeline and of its version, uploaded when there is none of this name.

        Args:
            pipeline: The pipeline's name.
            version: The version's name; it is taken to be what it was when it was uploaded.
            package: The compiled pipeline, YAML.
            namespace: Of a multi-user installation; empty for a single-user one.
        """
        pipeline_id = self._pipeline_id(pipeline, namespace)
        wanted = {"filter": _named(version), "pipeline_id": pipeline_id}
        if not (found := self._list("pipeline_version", **wanted)):
            try:
                self._ask(
                    "PipelineUploadServiceApi",
                    "upload_pipeline_version",
                    str(package),
                    name=version,
                    pipelineid=pipeline_id,
                )
            except ServiceUnreachable:
                raise
            except RefitError:
                # Somebody else may have been first with the same version.
                if not (found := self._list("pipeline_version", **wanted)):
                    raise
            found = found or self._list("pipeline_version", **wanted)
        return pipeline_id, str(found[0].pipeline_version_id)

    def _pipeline_id(self, name: str, namespace: str) -> str:
        wanted = {"namespace": namespace} if namespace else {}
        found = self._list("pipeline", filter=_named(name), **wanted)
        if found:
            return str(found[0].pipeline_id)
        call = "pipeline_service_create_pipeline"
        names = {"display_name": name, "namespace": namespace or None}
        try:
            body = self._models.V2beta1Pipeline(name=name, **names)
            made = self._ask("PipelineServiceApi", call, body)
        except UsageError:  # backends of 2023 know the display name only
            made = self._ask("PipelineServiceApi", call, self._models.V2beta1Pipeline(**names))
        return str(made.pipeline_id)

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
        return _to_run(self._ask("RunServiceApi", "run_service_create_run", body))

    def start_once(self, name: str, request: RunRequest) -> tuple[PipelineRun, bool]:
        """The run of this name, started unless it is there already; and whether it was started.

        The API knows no unique names. So whoever created one looks again: of several runs of a
        name the first stays, every other one is removed by the one who made it.
        """
        if there := self.find_runs(name, request.experiment_id):
            return there[0], False
        mine = self.create_run(name, request)
        first = self.find_runs(name, request.experiment_id)[0]
        if first.run_id == mine.run_id:
            return mine, True
        self.cancel(mine.run_id)
        self._ask("RunServiceApi", "run_service_delete_run", mine.run_id)
        return first, False

    def find_runs(self, name: str, experiment_id: str) -> list[PipelineRun]:
        """The runs of a name, in the order in which everybody sees them: the first made first."""
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
        return _to_run(self._ask("RunServiceApi", "run_service_get_run", run_id))

    def cancel(self, run_id: str) -> None:
        """Stop a run; its pods are ended."""
        self._ask("RunServiceApi", "run_service_terminate_run", run_id)

    def retry(self, run_id: str) -> None:
        """Take a run that failed up again where it failed; what succeeded stays as it is."""
        self._ask("RunServiceApi", "run_service_retry_run", run_id)

    def read_log(self, run_id: str, pod: str) -> str | None:
        """What a pod of a run said; None where the API does not serve it."""
        import urllib3

        # Not part of the typed API: logs are streamed by a plain route of their own.
        path = f"/apis/v1alpha1/runs/{run_id}/nodes/{pod}/log"
        headers: dict[str, str] = {}
        self._client.update_params_for_auth(headers, [], ["Bearer"])
        try:
            answer = self._client.rest_client.pool_manager.request(
                "GET",
                self._client.configuration.host + path,
                headers=headers,
                timeout=urllib3.Timeout(*TIMEOUT_SECONDS),
            )
        except urllib3.exceptions.HTTPError:
            return None
        text = answer.data.decode("utf-8", "replace")
        # The route answers 200 before it looks; a failure then follows as JSON.
        failed = answer.status != 200 or '{"error_message":' in text[:40] or not text.strip()
        return None if failed else text

    def create_schedule(self, name: str, cron: str, request: RunRequest) -> Schedule:
        """Have a pipeline run again and again: one run at a time, missed ones are not made up."""
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
        call = "recurring_run_service_create_recurring_run"
        return _to_schedule(self._ask("RecurringRunServiceApi", call, body))

    def list_schedules(self, experiment_id: str) -> list[Schedule]:
        """The schedules of an experiment."""
        return [
            _to_schedule(found)
            for found in self._list("recurring_run", experiment_id=experiment_id)
        ]

    def retire_schedule(self, schedule: Schedule) -> bool:
        """Stop a schedule, and remove it once no run of it is going on.

        Whoever removes a schedule from Kubeflow Pipelines removes its runs' pods with it.

        Returns:
            Whether it is gone; else it starts nothing more, and is to be retired again later.
        """
        service = "RecurringRunServiceApi"
        call = "recurring_run_service_{}_recurring_run"
        self._ask(service, call.format("disable"), schedule.schedule_id)
        newest = self.list_runs(schedule.experiment_id, PAGE_SIZE)
        if any(run.schedule_id == schedule.schedule_id and not run.is_over for run in newest):
            return False
        self._ask(service, call.format("delete"), schedule.schedule_id)
        return True

    def _list(self, kind: str, **wanted: Any) -> list[Any]:
        """Everything of a kind that fits, page by page."""
        found: list[Any] = []
        token = ""
        while True:
            page = self._page(kind, page_token=token, page_size=PAGE_SIZE, **wanted)
            found += getattr(page, f"{kind}s") or ()
            token = page.next_page_token or ""
            if not token:
                return found

    def _page(self, kind: str, **wanted: Any) -> Any:
        service = "pipeline" if kind == "pipeline_version" else kind
        api = "".join(part.title() for part in service.split("_")) + "ServiceApi"
        call = f"{service}_service_list_{kind}s"
        # The versions' pipeline is part of the path, not of the query.
        place = [wanted.pop("pipeline_id")] if "pipeline_id" in wanted else []
        return self._ask(api, call, *place, **wanted)

    def _ask(self, api: str, call: str, *arguments: Any, **named: Any) -> Any:
        with self._explained():
            method = getattr(getattr(self._models, api)(self._client), call)
            return method(*arguments, **named, _request_timeout=TIMEOUT_SECONDS)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Say what an error of the API's client means, and what to do about it."""
        import urllib3

        try:
            yield
        except urllib3.exceptions.HTTPError as error:
            raise ServiceUnreachable(
                f"Kubeflow Pipelines does not answer at {self.where} ({_brief(error)}): "
                "check --endpoint, REFIT_KFP_ENDPOINT or the cluster file"
            ) from None
        except self._models.ApiException as error:
            raise self._meaning(error) from None
        except (ValueError, AttributeError) as error:
            # The generated client stumbles over what is not the API's JSON.
            raise ServiceUnreachable(
                f"what answers at {self.where} is not the Kubeflow Pipelines API ({_brief(error)})"
            ) from None

    def _meaning(self, error: Any) -> RefitError:
        said = _message(error)
        if error.status in (401, 403):
            return ServiceUnreachable(
                f"{self.where} does not let us in ({error.status}): {said}\n"
                "give a valid token: token_file or token_variable of the cluster file"
            )
        if error.status == 404 and "code" not in _body(error):
            return ServiceUnreachable(
                f"there is no Kubeflow Pipelines API at {self.where} (404): "
                "the endpoint is the URL before /apis"
            )
        if not error.status or error.status in (502, 503, 504):
            return ServiceUnreachable(f"{self.where} does not answer ({error.status}): {said}")
        if error.status in (400, 404):
            return UsageError(f"Kubeflow Pipelines refused: {said}")
        return RefitError(f"Kubeflow Pipelines failed ({error.status}): {said}")


def follow(
    api: Kubeflow, run_id: str, every: float, patience: float = 0.0
) -> Iterator[PipelineRun]:
    """Looks at a run, one after the other, until it is settled.

    Args:
        api: Tells of the run.
        run_id: Which.
        every: Seconds between two looks.
        patience: Seconds for which the API may be away, as during its restart.

    Raises:
        ServiceUnreachable: It was away for longer.
    """
    last_answer, late_looks = time.monotonic(), LATE_LOOKS
    while True:
        try:
            run = api.get_run(run_id)
        except ServiceUnreachable:
            if time.monotonic() - last_answer > patience:
                raise
        else:
            last_answer = time.monotonic()
            yield run
            late_looks -= run.is_over
            if run.is_settled or not late_looks:
                return
        time.sleep(every)


def wait_for(api: Kubeflow, run_id: str, seconds: float, every: float) -> PipelineRun:
    """Look at a run until it is settled or time is up; the last look is returned."""
    until = time.monotonic() + seconds
    for last in follow(api, run_id, every):
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
        finished_at=_moment(found.finished_at),
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
        # A task that the end of its run left undone has an end and no state.
        state=_state(found) if found.state or not _moment(found.end_time) else "SKIPPED",
        started_at=_moment(found.start_time),
        finished_at=_moment(found.end_time),
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
        created_at=_moment(found.created_at),
        experiment_id=found.experiment_id or "",
        version_id=(reference.pipeline_version_id or "") if reference else "",
    )


def _state(found: Any) -> str:
    return (found.state or "PENDING").removeprefix("RUNTIME_STATE_")


def _moment(value: datetime | None) -> datetime | None:
    """A moment; the API says 1970, or before, for what has not happened yet."""
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
    told = next(
        (body[name] for name in ("message", "error", "error_message") if body.get(name)), ""
    )
    return str(told or error.reason or error.body)[:500]

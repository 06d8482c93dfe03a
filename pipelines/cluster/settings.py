"""What Refit must know about a cluster: where it is, and how its steps run there."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from components.deployment.settings import RolloutSettings
from components.images import MAIN_GPU_IMAGE, MAIN_IMAGE
from pipelines.cluster.cron import check_cron
from pipelines.loading import LoadedSettings, load_settings, read_document
from pipelines.scale import ScaledSettings
from refit.errors import UsageError
from refit.settings import Settings

EXAMPLE = Path(__file__).parent / "configs" / "example.yaml"

IDEMPOTENT_STEPS = (
    "find_start",
    "plan_encoding",
    "plan_backtest",
    "ingest_data",
    "encode_listings",
    "build_feature_tables",
    "build_champion_tables",
    "train_towers",
    "tune_towers",
    "choose_settings",
    "index_listings",
    "reindex_listings",
    "evaluate_model",
    "summarize_fit",
    "judge_backtest",
    "gate",
    "calibrate_drift",
    "keep_refused_bundle",
)
"""Steps that may run twice: they read, and write whole artifacts of their own."""
OTHER_STEPS = ("deploy_bundle", "deploy_refreshed_index", "watch_drift", "report_run")
"""Steps that the cluster never repeats: they promote a bundle, start a refit or notify users."""
STEPS = IDEMPOTENT_STEPS + OTHER_STEPS
GPU_STEPS = ("encode_listings", "train_towers", "tune_towers")
"""Steps that have a ``device`` in a run's settings. What the others compute, a server computes too,
on a CPU."""

_QUANTITY = re.compile(r"(\d+(\.\d+)?(m|[kMGTPE]i?)?)?", re.ASCII)


def _check_steps(names: Iterable[str]) -> Iterable[str]:
    if unknown := set(names) - set(STEPS):
        raise ValueError(f"no step {', '.join(sorted(unknown))}; steps: {', '.join(STEPS)}")
    return names


def _check_gpu_steps(names: Iterable[str]) -> Iterable[str]:
    if others := set(_check_steps(names)) - set(GPU_STEPS):
        raise ValueError(
            f"{', '.join(sorted(others))} would leave a GPU idle; steps that run on one: "
            f"{', '.join(GPU_STEPS)}"
        )
    return names


def _check_quantity(text: str) -> str:
    if not _QUANTITY.fullmatch(text):
        raise ValueError('must be a quantity of Kubernetes such as "4", 500m or 8Gi')
    return text


def _check_schedule(text: str) -> str:
    try:
        return check_cron(text) if text else ""
    except UsageError as error:
        raise ValueError(str(error)) from None


StepNames = Annotated[tuple[str, ...], AfterValidator(_check_steps)]
Quantity = Annotated[str, AfterValidator(_check_quantity)]
"""An amount of CPU or memory as Kubernetes writes it; empty leaves it to the cluster."""
Cron = Annotated[str, AfterValidator(_check_schedule)]
"""Six fields, seconds first; empty has no schedule."""


class Resources(Settings):
    """What a step's pod requests, and its limits.

    Attributes:
        cpu: CPUs that the pod requests, such as ``500m`` or ``"4"``.
        memory: Memory that the pod requests, such as ``8Gi``.
        cpu_limit: The most CPUs that the pod may use.
        memory_limit: The most memory that the pod may use; beyond it the pod is killed.
    """

    cpu: Quantity = ""
    memory: Quantity = ""
    cpu_limit: Quantity = ""
    memory_limit: Quantity = ""


class Gpu(Settings):
    """GPUs of the steps that run models.

    A run is refused when it is submitted if ``training.device`` or the ``device`` of an encoder is
    ``gpu`` and its step gets none here, or if a step gets one that these settings leave idle.

    Attributes:
        resource: The resource's name, as the device plugin registers it.
        count: 1 gives each of these steps a GPU; 0 gives none. No step uses more than one.
        steps: The steps: ``train_towers`` and ``tune_towers`` for ``training.device``,
            ``encode_listings`` for the ``device`` of encoders.
        image: Image of these steps, with the libraries of CUDA. It has to be given together with
            the ``image`` of the others.
    """

    resource: str = "nvidia.com/gpu"
    count: int = Field(default=0, ge=0, le=1)
    steps: Annotated[tuple[str, ...], AfterValidator(_check_gpu_steps)] = (
        "train_towers",
        "tune_towers",
    )
    image: str = MAIN_GPU_IMAGE


class Toleration(Settings):
    """A taint of nodes that steps tolerate, as in a pod's spec.

    Attributes:
        key: The taint's key.
        operator: ``Equal`` compares the value, ``Exists`` takes any.
        value: The taint's value.
        effect: The taint's effect; null tolerates all.
    """

    key: str
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str = ""
    effect: Literal["NoExecute", "NoSchedule", "PreferNoSchedule"] | None = None


class Volume(Settings):
    """A persistent volume claim and where it is mounted.

    Attributes:
        claim: The claim's name.
        path: Where it is mounted.
        steps: The steps that mount it; empty means all.
    """

    claim: str
    path: str = Field(pattern="^/")
    steps: StepNames = ()


class KeyedSource(Settings):
    """A secret or a config map whose keys become environment variables of the same names.

    Attributes:
        name: The object's name.
        keys: The keys that become variables.
        steps: The steps that get them; empty means all.
    """

    name: str
    keys: tuple[str, ...] = Field(min_length=1)
    steps: StepNames = ()


class Service(Settings):
    """The API's Service, for reaching it through a kubeconfig.

    Attributes:
        namespace: Its namespace.
        name: Its name.
        port: Its port.
    """

    namespace: str = "kubeflow"
    name: str = "ml-pipeline"
    port: int = Field(default=8888, ge=1, le=65535)


class Retries(Settings):
    """How often the cluster repeats an idempotent step that failed or was evicted.

    Attributes:
        times: Number of repetitions; 0 repeats nothing.
        wait_seconds: Wait before the first repetition; each further one waits twice as long.
    """

    times: int = Field(default=2, ge=0, le=10)
    wait_seconds: int = Field(default=30, ge=0)


class Schedules(Settings):
    """When ``refit schedule`` runs a pipeline, unless ``--cron`` gives another time.

    Attributes:
        continuous_training: Six fields, seconds first, in UTC unless the cluster's Kubeflow
            Pipelines has another time zone. Empty: no schedule.
        index_refresh: As above.
        drift_monitoring: As above.
    """

    continuous_training: Cron = "0 0 4 * * 0"
    index_refresh: Cron = "0 0 3 * * *"
    drift_monitoring: Cron = "0 30 0 * * *"


class ClusterSettings(ScaledSettings):
    """One cluster, as ``--cluster FILE`` describes it; ``configs/example.yaml`` shows all of it.

    Attributes:
        scale: The size of the marketplace: ``small``, ``standard`` or ``large``. Resources, the
            rollout's numbers and schedules that are not given follow from it; see
            ``pipelines/scales.yaml``.
        description: What this cluster is, in a line.
        endpoint: URL of the Kubeflow Pipelines API as seen from here. Empty: through the
            kubeconfig.
        kube_context: Context of the kubeconfig; empty means the current one.
        service: The API's Service, for the way through the kubeconfig.
        step_endpoint: URL of the same API as steps reach it, from inside the cluster.
        token_file: File that holds a bearer token for the API; empty reads ``token_variable``.
        token_variable: Environment variable that holds the token; unset sends none.
        step_token_file: File in which a monitoring step finds its token. Empty: Kubeflow's own.
        ca_file: Certificates that the endpoint's certificate is checked with, PEM.
        verify_tls: False checks no certificate; only for a test cluster.
        backend: Release of the Kubeflow Pipelines backend. Pipelines for ``2.16`` and ``2.17`` are
            the same. ``2.0`` has no exit handler that knows how a run ended, no retries, no
            tolerations, no config maps as environment, and leaves image pull policy and secrets to
            the cluster.
        namespace: Namespace of the recommender.
        runs_in: Namespace of the runs' pods: that of a single-user installation, else the user's.
        multi_user: Whether the API keeps users' namespaces apart.
        experiment: The experiment that runs belong to; it is created when it is missing.
        service_accounts: Service account by pipeline; all steps of a run share it. A pipeline that
            is not named uses the installation's own.
        image: Image of the steps, except of those that get a GPU.
        image_pull_policy: When the image is pulled; null leaves it to the cluster.
        image_pull_secrets: Names of secrets for pulling the image.
        environment: Further variables of every step; nothing secret.
        config_maps: Variables from config maps of the cluster.
        secrets: Variables from secrets of the cluster.
        volumes: Persistent volume claims of steps.
        node_selector: Labels of the nodes that steps run on.
        tolerations: Taints of nodes that steps tolerate.
        resources: Resources by step; ``default`` is for the others.
        gpu: GPUs of the steps that run models.
        retries: Repetitions of idempotent steps.
        schedules: When scheduled pipelines run.
        target: How a bundle that passed its gate goes live here: ``seldon`` proposes it for a
            rollout, which ``refit rollout reconcile`` carries out; ``local`` makes it champion.
        rollout: How a rollout proceeds.
        registry: URL of the bundle registry.
        predictions: URL or path of the prediction log.
        outcomes: URL or path of the events that monitoring reads; empty means none.
        items: URL or path of the current items table that monitoring reads; empty means none.
        monitoring: Folder of the review pages, on a claim of ``volumes``.
        alert_store: URL of a PostgreSQL database, without its password: ``secrets`` pass that to
            the monitoring step as PGPASSWORD. Empty: a SQLite file in ``monitoring``.
        vectors: Folder or URL of the vectors that runs have made of texts and pictures; empty makes
            all of them in every run.
        checkpoints: Folder that an interrupted training resumes from, on a claim; empty keeps none.
    """

    table: ClassVar[str] = "cluster"

    description: str = ""
    endpoint: str = ""
    kube_context: str = ""
    service: Service = Service()
    step_endpoint: str = "http://ml-pipeline.kubeflow:8888"
    token_file: str = ""
    token_variable: str = "REFIT_KFP_TOKEN"
    step_token_file: str = ""
    ca_file: str = ""
    verify_tls: bool = True
    backend: Literal["2.17", "2.16", "2.0"] = "2.17"
    namespace: str = "refit"
    runs_in: str = "kubeflow"
    multi_user: bool = False
    experiment: str = "refit"
    service_accounts: dict[str, str] = {}
    image: str = MAIN_IMAGE
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    image_pull_secrets: tuple[str, ...] = ()
    environment: dict[str, str] = {}
    config_maps: tuple[KeyedSource, ...] = ()
    secrets: tuple[KeyedSource, ...] = ()
    volumes: tuple[Volume, ...] = ()
    node_selector: dict[str, str] = {}
    tolerations: tuple[Toleration, ...] = ()
    resources: dict[str, Resources] = {}
    gpu: Gpu = Gpu()
    retries: Retries = Retries()
    schedules: Schedules = Schedules()
    target: Literal["local", "seldon"] = "seldon"
    rollout: RolloutSettings = RolloutSettings()
    registry: str
    predictions: str = ""
    outcomes: str = ""
    items: str = ""
    monitoring: str = "/var/refit/monitoring"
    alert_store: str = ""
    vectors: str = ""
    checkpoints: str = ""

    @model_validator(mode="after")
    def _check(self) -> "ClusterSettings":
        _check_steps(set(self.resources) - {"default"})
        if self.backend == "2.0" and (unsupported := self._unsupported_by_2_0()):
            raise ValueError(
                f"backend 2.0 does not support {', '.join(unsupported)}; leave them out"
            )
        for name, path in (("checkpoints", self.checkpoints), ("monitoring", self.monitoring)):
            if path and name in self.model_fields_set and not self._is_on_a_claim(path):
                raise ValueError(
                    f"{name}: {path} is on no claim of volumes and would be lost with the pod"
                )
        if self.gpu.count and "image" in self.model_fields_set - self.gpu.model_fields_set:
            raise ValueError(
                f"gpu.image: name the image of the steps with a GPU beside image, {self.image}; "
                "make images ARGS=main-gpu builds it"
            )
        self._check_alert_store()
        return self

    def _check_alert_store(self) -> None:
        if not self.alert_store:
            return
        from refit.database import POSTGRESQL, parse_place

        try:
            driver = parse_place(self.alert_store).drivername
        except UsageError as error:
            raise ValueError(f"alert_store: {error}") from None
        if driver not in POSTGRESQL:
            raise ValueError("alert_store: for a SQLite file give its folder with monitoring")

    def _unsupported_by_2_0(self) -> list[str]:
        names = ("image_pull_policy", "image_pull_secrets", "config_maps", "tolerations")
        given = [name for name in names if getattr(self, name)]
        if "retries" in self.model_fields_set and self.retries.times > 0:
            given.append("retries.times")
        return given

    def _is_on_a_claim(self, path: str) -> bool:
        return any(Path(path).is_relative_to(volume.path) for volume in self.volumes)

    @property
    def api_namespace(self) -> str:
        """The namespace that a multi-user API keeps runs in; empty for a single-user one."""
        return self.runs_in if self.multi_user else ""

    def gives_gpu(self, step: str) -> bool:
        """Whether a step's pod gets a GPU."""
        return bool(self.gpu.count) and step in self.gpu.steps

    def image_of(self, step: str) -> str:
        """The image of a step's pod."""
        return self.gpu.image if self.gives_gpu(step) else self.image

    def resources_of(self, step: str) -> Resources:
        """The resources of a step's pod."""
        return self.resources.get(step) or self.resources.get("default") or Resources()


def read_cluster(file: Path | None) -> ClusterSettings:
    """Read a cluster file.

    Raises:
        UsageError: No file was given, it cannot be read, a name is unknown or a value does not
            fit.
    """
    return load_cluster(file).settings


def load_cluster(file: Path | None) -> LoadedSettings[ClusterSettings]:
    """As ``read_cluster``, with where each value comes from."""
    if file is None:
        raise UsageError(f"name the cluster's file: --cluster my-cluster.yaml; copy {EXAMPLE}")
    try:
        document = read_document(file, "cluster file")
    except FileNotFoundError:
        raise UsageError(f"no cluster file {str(file)!r}; copy {EXAMPLE}") from None
    return load_settings(ClusterSettings, document)

"""What Refit must know about a cluster: where it is, and how its steps are to run there."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import AfterValidator, Field, model_validator

from components.deployment.settings import RolloutSettings
from components.images import MAIN_IMAGE
from refit.errors import UsageError
from refit.settings import Settings

EXAMPLE = Path(__file__).parent / "configs" / "example.yaml"

IDEMPOTENT_STEPS = (
    "find_start",
    "ingest_data",
    "build_feature_tables",
    "train_towers",
    "index_listings",
    "reindex_listings",
    "evaluate_model",
    "gate",
    "calibrate_drift",
)
"""Steps that may be done again: they read, and write artifacts of their own in one piece."""
OTHER_STEPS = ("deploy_bundle", "deploy_refreshed_index", "watch_drift", "report_run")
"""Never repeated by the cluster: they promote, start a refit or tell people."""
STEPS = IDEMPOTENT_STEPS + OTHER_STEPS


def _check_steps(names: Iterable[str]) -> Iterable[str]:
    if unknown := set(names) - set(STEPS):
        raise ValueError(f"no step {', '.join(sorted(unknown))}; steps: {', '.join(STEPS)}")
    return names


StepNames = Annotated[tuple[str, ...], AfterValidator(_check_steps)]


class Resources(Settings):
    """What a step's pod asks for and may use, as Kubernetes writes it; empty leaves it open."""

    cpu: str = ""
    memory: str = ""
    cpu_limit: str = ""
    memory_limit: str = ""


class Gpu(Settings):
    """What the training step gets; no other step has one.

    Attributes:
        resource: As the device plugin calls it.
        count: How many; 0 trains on CPUs.
    """

    resource: str = "nvidia.com/gpu"
    count: int = Field(default=0, ge=0)


class Toleration(Settings):
    """A taint that steps may run on."""

    key: str
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str = ""
    effect: Literal["NoExecute", "NoSchedule", "PreferNoSchedule"] | None = None


class Volume(Settings):
    """A persistent claim, and where steps find it.

    Attributes:
        claim: The claim's name.
        path: Where it is mounted.
        steps: Which steps get it; empty means all.
    """

    claim: str
    path: str = Field(pattern="^/")
    steps: StepNames = ()


class KeyedSource(Settings):
    """A secret or a config map whose keys become environment variables of the same names.

    Attributes:
        name: The object's name.
        keys: Which of its keys.
        steps: Which steps get them; empty means all.
    """

    name: str
    keys: tuple[str, ...] = Field(min_length=1)
    steps: StepNames = ()


class Service(Settings):
    """Where the API's Service is, for reaching it through a kubeconfig."""

    namespace: str = "kubeflow"
    name: str = "ml-pipeline"
    port: int = 8888


class Retries(Settings):
    """How often the cluster repeats an idempotent step that failed or was evicted.

    Attributes:
        times: 0 repeats nothing.
        wait_seconds: Before the first repetition; doubled for each further one.
    """

    times: int = Field(default=2, ge=0, le=10)
    wait_seconds: int = Field(default=30, ge=0)


class ClusterSettings(Settings):
    """One cluster, as ``--cluster FILE`` describes it; ``configs/example.yaml`` teaches it.

    Attributes:
        description: What this cluster is, in a line.
        endpoint: URL of the Kubeflow Pipelines API from here; empty goes through the kubeconfig.
        kube_context: Context of the kubeconfig; empty means the current one.
        service: The API's Service, for the way through the kubeconfig.
        step_endpoint: URL of the same API as steps reach it, from inside.
        token_file, token_variable: Where a bearer token for the API is; neither sends none.
        step_token_file: Where a monitoring step finds its token; empty takes Kubeflow's own.
        ca_file: Certificates that the endpoint's is checked with, PEM.
        verify_tls: False checks no certificate, for a test cluster only.
        backend: Release family of the Kubeflow Pipelines backend. ``2.0`` has no exit handler
            that knows how a run ended, no retries, no tolerations, no config maps as environment,
            and leaves image pull policy and secrets to the cluster.
        namespace: Where the recommender is.
        runs_in: Namespace of the runs' pods: a single-user installation's own, else the user's.
        multi_user: Whether the API keeps users' namespaces apart.
        experiment: What the runs are filed under; made when it is missing.
        service_accounts: As whom each pipeline's steps run; a run has one. Those not named run
            as the installation's own.
        image, image_pull_policy, image_pull_secrets: What steps run in.
        environment: Further variables of every step; nothing secret.
        config_maps, secrets: Variables from objects of the cluster, by reference.
        volumes: Persistent claims of steps.
        node_selector, tolerations: Which nodes steps run on.
        resources: By step; ``default`` is for the others.
        gpu: For the training step.
        retries: Of idempotent steps.
        target: How a bundle that passed its gate goes live here: ``seldon`` proposes it for a
            rollout, which ``refit rollout reconcile`` carries out; ``local`` makes it champion.
        rollout: How a rollout goes.
        registry: URL of the bundle registry.
        predictions: URL or path of the prediction log.
        outcomes, items: URL or path of the monitor's events and items; empty means none.
        monitoring: Folder of the review pages, on a claim of ``volumes``.
        alert_store: URL of a PostgreSQL database, without its password, which ``secrets`` give to
            the monitor as PGPASSWORD. Empty is a SQLite file in ``monitoring``.
        checkpoints: Folder that a killed training goes on from, on a claim; empty keeps none.
    """

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
    backend: Literal["2.17", "2.0"] = "2.17"
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
    target: Literal["local", "seldon"] = "seldon"
    rollout: RolloutSettings = RolloutSettings()
    registry: str
    predictions: str = ""
    outcomes: str = ""
    items: str = ""
    monitoring: str = "/var/refit/monitoring"
    alert_store: str = ""
    checkpoints: str = ""

    @model_validator(mode="after")
    def _check(self) -> "ClusterSettings":
        _check_steps(set(self.resources) - {"default"})
        if self.backend == "2.0" and (beyond := self._beyond_2_0()):
            raise ValueError(f"backend 2.0 cannot obey {', '.join(beyond)}; leave them out")
        for name, path in (("checkpoints", self.checkpoints), ("monitoring", self.monitoring)):
            if path and name in self.model_fields_set and not self._is_on_a_claim(path):
                raise ValueError(f"{name}: {path} is on no claim of volumes, it would be lost")
        self._check_alert_store()
        return self

    def _check_alert_store(self) -> None:
        if not self.alert_store:
            return
        from monitoring.database import POSTGRESQL, parse_place

        try:
            driver = parse_place(self.alert_store).drivername
        except UsageError as error:
            raise ValueError(f"alert_store: {error}") from None
        if driver not in POSTGRESQL:
            raise ValueError("alert_store: say where a SQLite file is with monitoring")

    def _beyond_2_0(self) -> list[str]:
        names = ("image_pull_policy", "image_pull_secrets", "config_maps", "tolerations")
        asked = [name for name in names if getattr(self, name)]
        return asked + ["retries.times"] * ("retries" in self.model_fields_set and self._repeats)

    @property
    def _repeats(self) -> bool:
        return self.retries.times > 0

    def _is_on_a_claim(self, path: str) -> bool:
        return any(Path(path).is_relative_to(volume.path) for volume in self.volumes)

    @property
    def api_namespace(self) -> str:
        """What a multi-user API files things under; empty for a single-user one."""
        return self.runs_in if self.multi_user else ""

    def resources_of(self, step: str) -> Resources:
        """What a step's pod gets."""
        return self.resources.get(step) or self.resources.get("default") or Resources()


def read_cluster(file: Path | None) -> ClusterSettings:
    """Read a cluster file.

    Raises:
        UsageError: No file was given, it cannot be read or holds what is not understood.
    """
    if file is None:
        raise UsageError(f"name the cluster's file: --cluster my-cluster.yaml, made like {EXAMPLE}")
    try:
        values = yaml.safe_load(file.read_text("utf-8"))
    except OSError as error:
        raise UsageError(
            f"cluster file {str(file)!r} cannot be read: {error.strerror}; {EXAMPLE} is one to copy"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} is not YAML: {error}") from None
    if not isinstance(values, dict):
        raise UsageError(f"{file} must hold settings by name")
    return ClusterSettings.parse(values)

"""Checks of a cluster: what can be reached, what is there, and what this user may do."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from components.deployment.cluster import kubeconfig_path
from pipelines.cluster.settings import ClusterSettings
from pipelines.doctor.checks import Check, CheckResult, from_error, not_ok, ok, run_check
from pipelines.doctor.machine import check_alert_store, check_registry
from refit.errors import ServiceUnreachable, UsageError
from refit.remote import is_url

if TYPE_CHECKING:
    from components.kubeflow import Kubeflow

SECONDS = 10
FROM_HERE = (
    "steps may reach it all the same: from here, the credentials and AWS_ENDPOINT_URL are those of "
    "this environment, and a service of the cluster needs a port-forward"
)
SELDON_GROUP, SELDON_VERSION = "machinelearning.seldon.io", "v1"
GATEWAY_GROUP = "gateway.networking.k8s.io"
PIPELINES_GROUP = "pipelines.kubeflow.org"
"""What a multi-user Kubeflow Pipelines checks its users' permissions by."""
METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
"""Asks the API for an object's metadata alone: the doctor reads no secret."""


@dataclass(frozen=True)
class Permission:
    """What a user must be allowed to do.

    Attributes:
        command: What needs it, for the advice.
        verbs: Such as ``get``.
        group, resource, subresource: Of the object.
        namespace: Where.
        name: Of one object; empty means any.
    """

    command: str
    verbs: tuple[str, ...]
    group: str
    resource: str
    namespace: str
    subresource: str = ""
    name: str = ""

    @property
    def what(self) -> str:
        """As ``kubectl auth can-i`` names it."""
        resource = f"{self.resource}.{self.group}" if self.group else self.resource
        return f"{resource}/{self.subresource}" if self.subresource else resource


def needed_permissions(settings: ClusterSettings, endpoint: str = "") -> list[Permission]:
    """What this user must be allowed to do in Kubernetes for the commands on this cluster.

    ``submit`` and ``schedule`` need nothing where Kubeflow Pipelines is a single-user installation
    with a URL.
    """
    needed = [
        Permission("logs", ("list",), "", "pods", settings.runs_in),
        Permission("logs", ("get",), "", "pods", settings.runs_in, "log"),
    ]
    if not (endpoint or settings.endpoint):
        service = settings.service
        name = f"http:{service.name}:{service.port}"
        needed.append(
            Permission(
                "submit and schedule",
                ("get", "create", "delete"),
                "",
                "services",
                service.namespace,
                "proxy",
                name,
            )
        )
    if settings.multi_user:
        needed += [
            Permission(
                "submit", ("create", "get", "list"), PIPELINES_GROUP, "runs", settings.runs_in
            ),
            Permission(
                "schedule", ("create", "delete", "list"), PIPELINES_GROUP, "jobs", settings.runs_in
            ),
        ]
    if settings.target == "seldon":
        place = settings.namespace
        needed += [
            Permission("rollout", ("get", "patch"), SELDON_GROUP, "seldondeployments", place),
            Permission("rollout", ("list",), "", "pods", place),
            Permission("rollout", ("get",), "", "pods", place, "proxy"),
        ]
        if settings.rollout.split == "gateway":
            needed += [
                Permission("rollout", ("get", "patch"), GATEWAY_GROUP, routes, place)
                for routes in ("httproutes", "grpcroutes")
            ]
    return needed


@dataclass
class ClusterDoctor:
    """The checks of one cluster.

    Args:
        settings: The cluster.
        endpoint: URL of its Kubeflow Pipelines API that takes precedence over the settings'.
    """

    settings: ClusterSettings
    endpoint: str = ""

    def checks(self) -> dict[str, Check]:
        """The checks by subject, in the order in which they depend on each other."""
        settings = self.settings
        found: dict[str, Check] = {
            "Kubeflow Pipelines": self.check_pipelines,
            "Kubernetes": self.check_kubernetes,
            "namespaces": self.check_namespaces,
            "permissions": self.check_permissions,
            "objects": self.check_objects,
        }
        if settings.target == "seldon":
            found["SeldonDeployment"] = self.check_seldon
        stores: dict[str, tuple[str, Callable[[str], Iterator[CheckResult]]]] = {
            "registry": (settings.registry, check_registry),
            "predictions": (settings.predictions, partial(check_readable, "predictions")),
            "outcomes": (settings.outcomes, partial(check_readable, "outcomes")),
            "items": (settings.items, partial(check_readable, "items")),
            "alert store": (settings.alert_store, check_alert_store),
        }
        for name, (url, check_store) in stores.items():
            if url:
                found[name] = partial(self._check_store, name, url, check_store)
        return found

    def check_pipelines(self) -> Iterator[CheckResult]:
        """Check that the API of Kubeflow Pipelines answers, and is of the release expected."""
        from pipelines.cluster.connect import connect

        api = connect(self.settings, self.endpoint)
        yield ok("Kubeflow Pipelines: health", f"{api.address} answers")
        yield self._check_release(api)

    def _check_release(self, api: "Kubeflow") -> CheckResult:
        subject, backend = "Kubeflow Pipelines: release", self.settings.backend
        release = api.release()
        if not release:
            return not_ok(
                subject,
                "the API does not report its release; compare the image tag of its Deployment "
                f"with backend {backend} of the cluster file",
            )
        if _minor(release) != _minor(backend):
            return not_ok(
                subject, f"it is {release}, the cluster file has backend {backend}; correct one"
            )
        return ok(subject, f"{release}, as the cluster file's backend {backend}")

    @cached_property
    def _kubernetes(self) -> Any:
        """A client of the Kubernetes API.

        Raises:
            UsageError: The kubeconfig cannot be used.
        """
        import urllib3
        from kubernetes import client, config

        configuration = client.Configuration()
        try:
            config.load_kube_config(
                kubeconfig_path(),
                context=self.settings.kube_context or None,
                client_configuration=configuration,
            )
        except (config.ConfigException, OSError) as error:
            raise UsageError(
                f"the kubeconfig cannot be used ({error}); set KUBECONFIG, and kube_context of "
                "the cluster file"
            ) from None
        configuration.retries = False
        # A kubeconfig that turns certificates off does so on purpose.
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        return client.ApiClient(configuration)

    @contextmanager
    def _reaching(self) -> Iterator[Any]:
        """The client; where nothing answers is a ServiceUnreachable."""
        from urllib3.exceptions import HTTPError

        client = self._kubernetes
        try:
            yield client
        except HTTPError as error:
            raise ServiceUnreachable(
                f"the Kubernetes API does not answer at {client.configuration.host} "
                f"({type(error).__name__}); check the kubeconfig and the network"
            ) from None

    def check_kubernetes(self) -> Iterator[CheckResult]:
        """Check that the Kubernetes API answers."""
        version = self._get("/version")["gitVersion"]
        yield ok("Kubernetes", f"{self._kubernetes.configuration.host} answers, {version}")

    def check_namespaces(self) -> Iterator[CheckResult]:
        """Check that the namespaces of the cluster file exist."""
        names = {self.settings.runs_in: "runs", self.settings.namespace: "the recommender"}
        for name, use in names.items():
            subject = f"namespace {name}"
            yield self._check_exists(
                subject,
                f"/api/v1/namespaces/{name}",
                f"it does not exist; it is for {use}: create it (kustomize/README.md), or correct "
                "the cluster file",
            )

    def check_permissions(self) -> Iterator[CheckResult]:
        """Check that this user may do what the commands need."""
        for permission in needed_permissions(self.settings, self.endpoint):
            refused = [verb for verb in permission.verbs if not self._may(permission, verb)]
            subject = f"may {', '.join(permission.verbs)} {permission.what}"
            where = f"in namespace {permission.namespace}, for refit {permission.command}"
            if refused:
                yield not_ok(
                    subject,
                    f"not allowed to {', '.join(refused)} {where}; ask for a role with it",
                    ServiceUnreachable,
                )
            else:
                yield ok(subject, where)

    def check_objects(self) -> Iterator[CheckResult]:
        """Check that the objects exist that steps are to use."""
        settings, place = self.settings, f"/api/v1/namespaces/{self.settings.runs_in}"
        named = [
            *(("serviceaccounts", name) for name in settings.service_accounts.values()),
            *(("configmaps", source.name) for source in settings.config_maps),
            *(("secrets", source.name) for source in settings.secrets),
            *(("secrets", name) for name in settings.image_pull_secrets),
            *(("persistentvolumeclaims", volume.claim) for volume in settings.volumes),
        ]
        for kind, name in dict.fromkeys(named):
            yield self._check_exists(
                f"{kind}/{name}",
                f"{place}/{kind}/{name}",
                f"it is not in namespace {settings.runs_in}: create it, or correct the cluster "
                "file",
            )

    def check_seldon(self) -> Iterator[CheckResult]:
        """Check that Seldon's operator has its kind of object, and that ours is there."""
        settings = self.settings
        api = f"/apis/{SELDON_GROUP}/{SELDON_VERSION}"
        kind = self._check_exists(
            "SeldonDeployment kind", api, "it is unknown; install Seldon Core's operator"
        )
        yield kind
        if kind.ok:
            name = settings.rollout.name
            yield self._check_exists(
                f"seldondeployments/{name}",
                f"{api}/namespaces/{settings.namespace}/seldondeployments/{name}",
                f"it is not in namespace {settings.namespace}; apply an overlay of kustomize/",
            )

    def _check_store(
        self, name: str, url: str, check: Callable[[str], Iterator[CheckResult]]
    ) -> Iterator[CheckResult]:
        if not is_url(url):
            yield not_ok(
                name,
                f"{url} is a folder of the steps' pods, which cannot be checked from here; look "
                "into it from a pod",
                ServiceUnreachable,
            )
            return
        for result in run_check(name, lambda: check(url)):
            if result.exit_code == ServiceUnreachable.exit_code:
                yield not_ok(name, f"{result.detail}; {FROM_HERE}", ServiceUnreachable)
            else:
                yield result

    def _check_exists(self, subject: str, path: str, when_missing: str) -> CheckResult:
        from kubernetes.client import ApiException

        try:
            self._get(path)
        except ApiException as error:
            if error.status == 404:
                return not_ok(subject, when_missing)
            if error.status == 403:
                return not_ok(
                    subject,
                    "it could not be checked, since this user may not read it; ask for the right "
                    "to get it, or have somebody look",
                    ServiceUnreachable,
                )
            return from_error(subject, error)
        return ok(subject, "it exists")

    def _may(self, permission: Permission, verb: str) -> bool:
        """Ask the API server whether this user may do something."""
        from kubernetes.client import AuthorizationV1Api

        attributes = {
            "namespace": permission.namespace,
            "verb": verb,
            "group": permission.group,
            "resource": permission.resource,
            "subresource": permission.subresource,
            "name": permission.name,
        }
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        with self._reaching() as client:
            review = AuthorizationV1Api(client).create_self_subject_access_review(
                body, _request_timeout=SECONDS
            )
        return bool(review.status.allowed)

    def _get(self, path: str) -> Any:
        with self._reaching() as client:
            return client.call_api(
                path,
                "GET",
                header_params={"Accept": METADATA},
                response_type="object",
                auth_settings=["BearerToken"],
                _return_http_data_only=True,
                _request_timeout=SECONDS,
            )


def check_readable(name: str, url: str) -> Iterator[CheckResult]:
    """Check that a folder or file of an object store can be listed; it may not exist yet."""
    import fsspec

    fs, path = fsspec.core.url_to_fs(url)
    there = fs.exists(path) and bool(fs.ls(path))
    yield ok(name, f"{url} can be read" + ("" if there else " and is empty"))


def _minor(version: str) -> tuple[str, ...]:
    return tuple(version.lstrip("v").split(".")[:2])

"""The Kubernetes side of a rollout: read and apply the SeldonDeployment, list its pods."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from components.deployment import manifests, routes
from components.deployment.manifests import BUNDLE_ANNOTATION, Manifest
from components.deployment.routes import weights_of, with_weights
from refit.errors import RefitError, ServiceUnreachable, UsageError
from refit.settings import Settings

FIELD_MANAGER = "refit-rollout"
METRICS_PORT = 6000
METRICS_PATH = "prometheus"
TIMEOUT_SECONDS = 10
APP_LABEL = "seldon-app"
DEPLOYMENT = f"{manifests.API_VERSION}/seldondeployments"
ROUTES = (f"{routes.API_VERSION}/httproutes", f"{routes.API_VERSION}/grpcroutes")


def kubeconfig_path() -> str:
    """The kubeconfig that is in force now; the Kubernetes client reads KUBECONFIG only once."""
    return os.environ.get("KUBECONFIG") or "~/.kube/config"


class ConflictError(RefitError):
    """The object has been modified since it was read; read it again."""


class NotFoundError(UsageError):
    """The object does not exist."""


class Pod(Settings):
    """A pod of a predictor.

    Attributes:
        name, uid, address: Of the pod.
        predictor: Name of the predictor.
        bundle_id: The bundle that it is pinned to; "" if it serves the current champion.
        ready: Whether it receives requests.
        terminating: Whether it is being deleted.
        restarts: Number of container restarts, including those before it was ready.
    """

    name: str
    uid: str
    address: str
    predictor: str
    bundle_id: str
    ready: bool
    terminating: bool
    restarts: int


class SeldonCluster:
    """One SeldonDeployment and its pods.

    Inside a pod it uses the pod's service account and reads metrics from the pods directly.
    Elsewhere it uses a kubeconfig and reads metrics through the API server.

    Args:
        namespace: The object's namespace.
        name: The object's name.
        context: Context of the kubeconfig; empty for the current one.
        client: A ``kubernetes.client.ApiClient`` that is used instead.
        reads_pods: With ``client``: whether the pods' addresses are reachable.

    Raises:
        UsageError: There is neither a service account nor a kubeconfig.
    """

    def __init__(
        self,
        namespace: str,
        name: str,
        context: str = "",
        client: Any = None,
        reads_pods: bool = False,
    ) -> None:
        self.namespace, self.name = namespace, name
        self._reads_pods = reads_pods
        self._client = client or self._connect(context)

    def read(self) -> Manifest:
        """Read the live object.

        Raises:
            NotFoundError: It does not exist.
            ServiceUnreachable: The API server does not respond, or denies access.
        """
        return self._call("GET", DEPLOYMENT)

    def apply(self, manifest: Manifest) -> Manifest:
        """Apply a manifest server-side, taking over its fields, and return the live object.

        Raises:
            ConflictError: The object has been modified since it was read.
            ServiceUnreachable: The API server does not respond, or denies access.
        """
        return self._call("PATCH", DEPLOYMENT, manifest)

    def pods(self) -> list[Pod]:
        """List the pods of all predictors, including terminating ones.

        Raises:
            ServiceUnreachable: The API server does not respond, or denies access.
        """
        from kubernetes.client import CoreV1Api

        with self._translated_errors():
            found = CoreV1Api(self._client).list_namespaced_pod(
                self.namespace,
                label_selector=f"seldon-deployment-id={self.name}",
                _request_timeout=TIMEOUT_SECONDS,
            )
        return [self._describe(pod) for pod in found.items]

    def read_metrics(self, pod: Pod) -> str | None:
        """Read a pod's Prometheus metrics; None if it does not respond."""
        from kubernetes.client import ApiException, CoreV1Api
        from urllib3 import PoolManager
        from urllib3.exceptions import HTTPError

        try:
            if self._reads_pods:
                url = f"http://{pod.address}:{METRICS_PORT}/{METRICS_PATH}"
                response = PoolManager(retries=False).request("GET", url, timeout=TIMEOUT_SECONDS)
                return response.data.decode() if response.status == 200 else None
            return str(
                CoreV1Api(self._client).connect_get_namespaced_pod_proxy_with_path(
                    f"{pod.name}:{METRICS_PORT}",
                    self.namespace,
                    METRICS_PATH,
                    _request_timeout=TIMEOUT_SECONDS,
                )
            )
        except (ApiException, HTTPError):
            return None

    def split(self, weights: Mapping[str, int]) -> None:
        """Set the traffic weights of the HTTPRoute and the GRPCRoute with the object's name.

        One of the two routes may be missing.

        Args:
            weights: Percent of the traffic by predictor.

        Raises:
            NotFoundError: Both routes are missing.
            UsageError: A route has no backend of this SeldonDeployment.
            ConflictError: A route has been modified since it was read.
            ServiceUnreachable: The API server does not respond, or denies access.
        """
        routes_by_kind = []
        for kind in ROUTES:
            with suppress(NotFoundError):
                routes_by_kind.append((kind, self._call("GET", kind)))
        if not routes_by_kind:
            raise NotFoundError(
                f"there is neither an HTTPRoute nor a GRPCRoute {self.name!r} in namespace "
                f"{self.namespace!r}: add components/gateway to the overlay, or choose another "
                "rollout.split"
            )
        for kind, route in routes_by_kind:
            if weights_of(route, self.name) != weights:
                self._call("PATCH", kind, with_weights(route, self.name, weights))

    def _connect(self, context: str) -> Any:
        from kubernetes import client, config

        try:
            config.load_incluster_config()
            self._reads_pods = True
            return client.ApiClient()
        except config.ConfigException:
            pass
        try:
            return config.new_client_from_config(kubeconfig_path(), context=context or None)
        except config.ConfigException as error:
            raise UsageError(
                f"no cluster is configured: {error}; set KUBECONFIG, or run in a pod with the "
                "service account refit-deployer"
            ) from None

    def _call(self, method: str, kind: str, manifest: Manifest | None = None) -> Manifest:
        version, plural = kind.rsplit("/", 1)
        path = f"/apis/{version}/namespaces/{{namespace}}/{plural}/{{name}}"
        query = [("fieldManager", FIELD_MANAGER), ("force", "true")] if manifest else []
        headers = {"Accept": "application/json"}
        if manifest:
            headers["Content-Type"] = "application/apply-patch+yaml"
        with self._translated_errors(plural):
            # The client's CustomObjectsApi does not support server-side apply.
            response = self._client.call_api(
                path,
                method,
                {"namespace": self.namespace, "name": self.name},
                query,
                headers,
                body=manifest,
                response_type="object",
                auth_settings=["BearerToken"],
                _return_http_data_only=True,
                _request_timeout=TIMEOUT_SECONDS,
            )
        return dict(response)

    def _describe(self, pod: Any) -> Pod:
        conditions = pod.status.conditions or ()
        containers = (
            *(pod.status.init_container_statuses or ()),
            *(pod.status.container_statuses or ()),
        )
        app = str(pod.metadata.labels.get(APP_LABEL, ""))
        return Pod(
            name=pod.metadata.name,
            uid=pod.metadata.uid,
            address=pod.status.pod_ip or "",
            predictor=app.removeprefix(f"{self.name}-"),
            bundle_id=(pod.metadata.annotations or {}).get(BUNDLE_ANNOTATION, ""),
            ready=any(one.type == "Ready" and one.status == "True" for one in conditions),
            terminating=pod.metadata.deletion_timestamp is not None,
            restarts=sum(one.restart_count for one in containers),
        )

    @contextmanager
    def _translated_errors(self, plural: str = "pods") -> Iterator[None]:
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        try:
            yield
        except ApiException as error:
            raise self._translate(error, plural) from None
        except (HTTPError, OSError) as error:
            raise ServiceUnreachable(f"the Kubernetes API does not respond: {error}") from None

    def _translate(self, error: Any, plural: str) -> RefitError:
        name = f"{plural}/{self.name}"
        if error.status == 404:
            return NotFoundError(
                f"there is no {name} in namespace {self.namespace}; apply an overlay of kustomize/ "
                "first"
            )
        if error.status == 409:
            return ConflictError(f"{name} has been modified by another writer")
        message = error.body or error.reason
        if error.status in (401, 403):
            return ServiceUnreachable(
                f"the Kubernetes API denies access ({error.status}): {message}"
            )
        return RefitError(f"the Kubernetes API responded with {error.status}: {message}")

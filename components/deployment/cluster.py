"""The Kubernetes side of a rollout: read and apply the SeldonDeployment, look at its pods."""

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
SECONDS = 10
APP_LABEL = "seldon-app"
DEPLOYMENT = f"{manifests.API_VERSION}/seldondeployments"
ROUTES = (f"{routes.API_VERSION}/httproutes", f"{routes.API_VERSION}/grpcroutes")


class Changed(RefitError):  # noqa: N818 - an outcome, named as people say it
    """Somebody changed the object since it was read: read it again."""


class Missing(UsageError):  # noqa: N818 - an outcome, named as people say it
    """The object is not there."""


class Pod(Settings):
    """A pod of a predictor.

    Attributes:
        predictor: Name of the predictor.
        bundle_id: What it serves; "" when it follows the champion.
        ready: Whether it takes requests.
        ending: Whether it was told to end.
        restarts: Of its containers, those before it was ready included.
    """

    name: str
    uid: str
    address: str
    predictor: str
    bundle_id: str
    ready: bool
    ending: bool
    restarts: int


class SeldonCluster:
    """One SeldonDeployment and its pods.

    In a pod it acts with the pod's service account and reads metrics from the pods themselves;
    elsewhere with a kubeconfig, and reads metrics through the API server.

    Args:
        namespace: Where the object is.
        name: The object's name.
        context: Context of the kubeconfig; empty takes the current one.
        client: A ``kubernetes.client.ApiClient`` instead of either.
        reads_pods: With ``client``: whether the pods' addresses can be reached from here.

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
        """The live object.

        Raises:
            UsageError: There is none.
            ServiceUnreachable: The API server does not answer, or refuses.
        """
        return self._call("GET", DEPLOYMENT)

    def apply(self, manifest: Manifest) -> Manifest:
        """Apply it server-side, over whoever owned its fields, and return what is live then.

        Raises:
            Changed: The object is not the one that was read.
            ServiceUnreachable: The API server does not answer, or refuses.
        """
        return self._call("PATCH", DEPLOYMENT, manifest)

    def pods(self) -> list[Pod]:
        """The pods of all predictors, ending ones included.

        Raises:
            ServiceUnreachable: The API server does not answer, or refuses.
        """
        from kubernetes.client import CoreV1Api

        with self._reaching():
            found = CoreV1Api(self._client).list_namespaced_pod(
                self.namespace,
                label_selector=f"seldon-deployment-id={self.name}",
                _request_timeout=SECONDS,
            )
        return [self._describe(pod) for pod in found.items]

    def read_metrics(self, pod: Pod) -> str | None:
        """What a pod shows to Prometheus; None when it does not answer."""
        from kubernetes.client import ApiException, CoreV1Api
        from urllib3 import PoolManager
        from urllib3.exceptions import HTTPError

        try:
            if self._reads_pods:
                url = f"http://{pod.address}:{METRICS_PORT}/{METRICS_PATH}"
                answer = PoolManager(retries=False).request("GET", url, timeout=SECONDS)
                return answer.data.decode() if answer.status == 200 else None
            return str(
                CoreV1Api(self._client).connect_get_namespaced_pod_proxy_with_path(
                    f"{pod.name}:{METRICS_PORT}",
                    self.namespace,
                    METRICS_PATH,
                    _request_timeout=SECONDS,
                )
            )
        except (ApiException, HTTPError):
            return None

    def split(self, weights: Mapping[str, int]) -> None:
        """Have the HTTPRoute and the GRPCRoute of the object's name split the traffic so.

        Either may be missing, where nobody asks that way.

        Args:
            weights: By predictor, in percent.

        Raises:
            Missing: Both are.
            UsageError: One leads elsewhere.
            Changed: Somebody changed one meanwhile.
            ServiceUnreachable: The API server does not answer, or refuses.
        """
        found = []
        for kind in ROUTES:
            with suppress(Missing):
                found.append((kind, self._call("GET", kind)))
        if not found:
            raise Missing(
                f"there is neither an HTTPRoute nor a GRPCRoute {self.name!r} in namespace "
                f"{self.namespace!r}: add components/gateway to the overlay, or choose another "
                "rollout.split"
            )
        for kind, route in found:
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
            return config.new_client_from_config(context=context or None)
        except config.ConfigException as error:
            raise UsageError(
                f"no cluster to talk to: {error}; set KUBECONFIG, or run in a pod with the "
                "service account refit-deployer"
            ) from None

    def _call(self, method: str, kind: str, manifest: Manifest | None = None) -> Manifest:
        version, plural = kind.rsplit("/", 1)
        path = f"/apis/{version}/namespaces/{{namespace}}/{plural}/{{name}}"
        query = [("fieldManager", FIELD_MANAGER), ("force", "true")] if manifest else []
        headers = {"Accept": "application/json"}
        if manifest:
            headers["Content-Type"] = "application/apply-patch+yaml"
        with self._reaching(plural):
            # The typed client of custom objects knows no server-side apply.
            found = self._client.call_api(
                path,
                method,
                {"namespace": self.namespace, "name": self.name},
                query,
                headers,
                body=manifest,
                response_type="object",
                auth_settings=["BearerToken"],
                _return_http_data_only=True,
                _request_timeout=SECONDS,
            )
        return dict(found)

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
            ending=pod.metadata.deletion_timestamp is not None,
            restarts=sum(one.restart_count for one in containers),
        )

    @contextmanager
    def _reaching(self, plural: str = "pods") -> Iterator[None]:
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        try:
            yield
        except ApiException as error:
            raise self._explain(error, plural) from None
        except (HTTPError, OSError) as error:
            raise ServiceUnreachable(f"the Kubernetes API does not answer: {error}") from None

    def _explain(self, error: Any, plural: str) -> RefitError:
        what = f"{plural}/{self.name}"
        if error.status == 404:
            return Missing(
                f"there is no {what} in namespace {self.namespace}; apply an overlay of kustomize/ "
                "first"
            )
        if error.status == 409:
            return Changed(f"{what} was changed meanwhile")
        message = error.body or error.reason
        if error.status in (401, 403):
            return ServiceUnreachable(f"the Kubernetes API refuses ({error.status}): {message}")
        return RefitError(f"the Kubernetes API answered {error.status}: {message}")

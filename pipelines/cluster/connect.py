"""Connect to a cluster's Kubeflow Pipelines API: by URL, or through the kubeconfig."""

import os
from pathlib import Path

from components.deployment.cluster import kubeconfig_path
from components.kubeflow import Kubeflow
from pipelines.cluster.settings import ClusterSettings
from refit.errors import ServiceUnreachable, UsageError

ENDPOINT_VARIABLE = "REFIT_KFP_ENDPOINT"


def connect(settings: ClusterSettings, endpoint: str = "") -> Kubeflow:
    """Connect to the API of a cluster and check that it answers.

    Args:
        settings: The cluster.
        endpoint: URL that takes precedence over the settings' own; with neither, the kubeconfig is
            used.

    Raises:
        ServiceUnreachable: Nothing answers there, or access is denied.
        UsageError: The token file cannot be read.
    """
    url = endpoint or settings.endpoint
    api = (
        Kubeflow.at(url, _read_token(settings), settings.ca_file, settings.verify_tls)
        if url
        else _through_kubeconfig(settings)
    )
    api.check()
    return api


def _read_token(settings: ClusterSettings) -> str:
    if not settings.token_file:
        return os.environ.get(settings.token_variable, "")
    try:
        return Path(settings.token_file).expanduser().read_text("utf-8").strip()
    except OSError as error:
        raise UsageError(
            f"token_file {settings.token_file} cannot be read: {error.strerror}"
        ) from None


def _through_kubeconfig(settings: ClusterSettings) -> Kubeflow:
    """The API behind the proxy of the Kubernetes API server, as the kubeconfig's user."""
    import kfp_server_api
    from kubernetes import config

    configuration = kfp_server_api.Configuration()
    try:
        config.load_kube_config(
            kubeconfig_path(),
            client_configuration=configuration,
            context=settings.kube_context or None,
        )
    except (config.ConfigException, OSError) as error:
        raise ServiceUnreachable(
            f"no endpoint is given and the kubeconfig cannot be used ({error}): give --endpoint, "
            f"set {ENDPOINT_VARIABLE} or KUBECONFIG, or name the endpoint in the cluster file"
        ) from None
    service = settings.service
    configuration.host = (
        f"{configuration.host.rstrip('/')}/api/v1/namespaces/{service.namespace}"
        f"/services/http:{service.name}:{service.port}/proxy"
    )
    return Kubeflow(configuration, configuration.host)

"""The configuration and command line of each Kubernetes program on the node."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.machine.certificates import Authority, Pair, write_kubeconfig, write_token_keys
from tests.machine.commands import wait_for
from tests.machine.node import Node

NODE_NAME = "node1"
PROGRAMS = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
)
ENVIRONMENT = {"GOGC": "300"}
"""Less frequent garbage collection: memory is less scarce here than processor time."""


class Services:
    """Starts and restarts Kubernetes' programs on a node.

    Args:
        node: The node that they run on.
        programs: The folder of the ``kube`` binary.
    """

    def __init__(self, node: Node, programs: Path) -> None:
        self._node = node
        self._etc = node.folder / "etc"
        self._keys = self._etc / "keys"
        self._kube = programs / "kube"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self._etc / "admin.kubeconfig"

    @property
    def kubectl(self) -> Path:
        """kubectl of the cluster's version."""
        return self._named("kubectl")

    @property
    def runtime_socket(self) -> Path:
        """The container runtime's socket."""
        return self._node.folder / "run" / "containerd.sock"

    @property
    def runtime_folder(self) -> Path:
        """The container runtime's root folder, which contains its images."""
        return self._node.folder / "var" / "containerd"

    def configure(self) -> None:
        """Write keys, certificates and configuration, and link each program's name."""
        for name in (*PROGRAMS, "kubectl"):
            self._named(name).symlink_to(self._kube)
        self._write_certificates()
        self._write("cni/10-pods.conflist", self._pod_network())
        self._write("kubelet.json", self._kubelet_configuration())
        self._write("kube-proxy.json", self._proxy_configuration())
        (self._etc / "resolv.conf").touch()
        (self._etc / "containerd.toml").write_text(self._runtime_configuration())

    def start(self, name: str) -> None:
        """Start ``containerd`` or one of ``PROGRAMS``."""
        if name == "containerd":
            self._node.start(name, ["containerd", "--config", self._etc / "containerd.toml"])
            return
        self._node.start(name, [self._named(name), *self._arguments(name)], ENVIRONMENT)

    def wait_for_runtime(self) -> None:
        """Wait until the container runtime answers."""
        seconds = self._node.settings.ready_seconds
        command = ("ctr", "-a", self.runtime_socket, "version")
        wait_for("the container runtime", lambda: self._node.run(*command), seconds)

    def _named(self, name: str) -> Path:
        return self._node.folder / "run" / name

    def _write(self, name: str, content: dict[str, Any]) -> None:
        staging = self._etc / f".{Path(name).name}"
        staging.write_text(json.dumps(content, indent=1))
        staging.rename(self._etc / name)  # the runtime may read the folder meanwhile

    def _client(self, authority: Authority, name: str, user: str, *groups: str) -> None:
        pair = authority.issue(name, user, groups=groups)
        server = f"https://{self._node.settings.node_ip}:6443"
        write_kubeconfig(self._etc / f"{name}.kubeconfig", server, authority.certificate, pair)

    def _write_certificates(self) -> None:
        settings = self._node.settings
        authority = Authority(self._keys, "authority")
        services = [f"kubernetes{tail}" for tail in ("", ".default", ".default.svc")]
        addresses = [settings.node_ip, settings.api_ip, "127.0.0.1", "localhost"]
        names = [*services, "kubernetes.default.svc.cluster.local"]
        authority.issue("kube-apiserver", "kube-apiserver", hosts=[*addresses, *names])
        authority.issue("kubelet-server", NODE_NAME, hosts=[settings.node_ip, NODE_NAME])
        authority.issue("apiserver-of-kubelet", "kube-apiserver", groups=["system:masters"])
        self._client(authority, "admin", "admin", "system:masters")
        self._client(authority, "kubelet", f"system:node:{NODE_NAME}", "system:nodes")
        for name in ("kube-controller-manager", "kube-scheduler", "kube-proxy"):
            self._client(authority, name, f"system:{name}")
        Authority(self._keys, "front").issue("front-proxy", "front-proxy")
        write_token_keys(self._keys)

    def _pair(self, name: str) -> Pair:
        return Pair(self._keys / f"{name}.crt", self._keys / f"{name}.key")

    def _arguments(self, name: str) -> list[str]:
        options: dict[str, Callable[[], dict[str, Any]]] = {
            "etcd": self._etcd_options,
            "kube-apiserver": self._api_server_options,
            "kube-controller-manager": self._controller_options,
            "kube-scheduler": lambda: self._control_plane_options("kube-scheduler"),
            "kubelet": self._kubelet_options,
            "kube-proxy": lambda: {"config": self._etc / "kube-proxy.json"},
        }
        return [f"--{option}={value}" for option, value in options[name]().items()]

    def _etcd_options(self) -> dict[str, Any]:
        return {
            "data-dir": self._node.folder / "var/etcd",
            "unsafe-no-fsync": "true",  # its data is not needed after the cluster's end
            "log-level": "warn",
            "listen-client-urls": "http://127.0.0.1:2379",
            "advertise-client-urls": "http://127.0.0.1:2379",
            "listen-peer-urls": "http://127.0.0.1:2380",
        }

    def _api_server_options(self) -> dict[str, Any]:
        settings, server = self._node.settings, self._pair("kube-apiserver")
        kubelet, front = self._pair("apiserver-of-kubelet"), self._pair("front-proxy")
        authority = self._pair("authority").certificate
        return {
            "bind-address": settings.node_ip,
            "advertise-address": settings.node_ip,
            "secure-port": 6443,
            "etcd-servers": "http://127.0.0.1:2379",
            "service-cluster-ip-range": settings.service_range,
            "authorization-mode": "Node,RBAC",
            "enable-admission-plugins": "NodeRestriction",
            "allow-privileged": "true",
            "tls-cert-file": server.certificate,
            "tls-private-key-file": server.key,
            "client-ca-file": authority,
            "service-account-issuer": "https://kubernetes.default.svc.cluster.local",
            "service-account-key-file": self._keys / "service-accounts.pub",
            "service-account-signing-key-file": self._keys / "service-accounts.key",
            "kubelet-certificate-authority": authority,
            "kubelet-preferred-address-types": "InternalIP",
            "kubelet-client-certificate": kubelet.certificate,
            "kubelet-client-key": kubelet.key,
            "requestheader-client-ca-file": self._pair("front").certificate,
            "requestheader-allowed-names": "front-proxy",
            "requestheader-extra-headers-prefix": "X-Remote-Extra-",
            "requestheader-group-headers": "X-Remote-Group",
            "requestheader-username-headers": "X-Remote-User",
            "proxy-client-cert-file": front.certificate,
            "proxy-client-key-file": front.key,
        }

    def _control_plane_options(self, name: str) -> dict[str, Any]:
        kubeconfig = self._etc / f"{name}.kubeconfig"
        return {
            "kubeconfig": kubeconfig,
            "authentication-kubeconfig": kubeconfig,
            "authorization-kubeconfig": kubeconfig,
            "bind-address": "127.0.0.1",
            "leader-elect": "false",
        }

    def _controller_options(self) -> dict[str, Any]:
        settings, authority = self._node.settings, self._pair("authority")
        return {
            **self._control_plane_options("kube-controller-manager"),
            "kube-api-qps": 200,
            "kube-api-burst": 400,
            "use-service-account-credentials": "true",
            "allocate-node-cidrs": "true",
            "cluster-cidr": settings.pod_range,
            "service-cluster-ip-range": settings.service_range,
            "root-ca-file": authority.certificate,
            "service-account-private-key-file": self._keys / "service-accounts.key",
            "cluster-signing-cert-file": authority.certificate,
            "cluster-signing-key-file": authority.key,
        }

    def _kubelet_options(self) -> dict[str, Any]:
        return {
            "config": self._etc / "kubelet.json",
            "kubeconfig": self._etc / "kubelet.kubeconfig",
            "root-dir": self._node.folder / "var/kubelet",
            "cert-dir": self._node.folder / "var/kubelet-keys",
            "hostname-override": NODE_NAME,
            "node-ip": self._node.settings.node_ip,
        }

    def _kubelet_configuration(self) -> dict[str, Any]:
        settings, server = self._node.settings, self._pair("kubelet-server")
        # The disk is shared with the host and may be nearly full. Images cannot be pulled again,
        # so they must not be garbage collected, nor pods evicted.
        disk = ("nodefs.available", "nodefs.inodesFree", "imagefs.available", "imagefs.inodesFree")
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": settings.node_ip,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(self._pair("authority").certificate)},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(server.certificate),
            "tlsPrivateKeyFile": str(server.key),
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{settings.name}",
            "failCgroupV1": False,
            "failSwapOn": False,
            "protectKernelDefaults": True,
            "containerRuntimeEndpoint": f"unix://{self.runtime_socket}",
            "clusterDomain": "cluster.local",
            "clusterDNS": [settings.dns_ip],
            "resolvConf": str(self._etc / "resolv.conf"),
            "healthzBindAddress": "127.0.0.1",
            "enforceNodeAllocatable": [],
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "evictionHard": {"memory.available": "100Mi", **dict.fromkeys(disk, "0%")},
            "nodeStatusUpdateFrequency": "5s",
            "syncFrequency": "10s",
            "serializeImagePulls": False,
        }

    def _proxy_configuration(self) -> dict[str, Any]:
        settings = self._node.settings
        return {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": str(self._etc / "kube-proxy.kubeconfig")},
            "mode": "nftables",
            "clusterCIDR": settings.pod_range,
            "hostnameOverride": NODE_NAME,
            "bindAddress": settings.node_ip,
            "healthzBindAddress": "127.0.0.1:10256",
            "metricsBindAddress": "127.0.0.1:10249",
            # The size of the connection tracking table is a setting of the whole host.
            "conntrack": {
                "maxPerCore": 0,
                "min": 0,
                "tcpEstablishedTimeout": "0s",
                "tcpCloseWaitTimeout": "0s",
            },
        }

    def _pod_network(self) -> dict[str, Any]:
        pods = self._node.settings.pod_range.replace(".0/16", ".0/24")
        addresses = {
            "type": "host-local",
            "dataDir": str(self._node.folder / "run/pod-addresses"),
            "ranges": [[{"subnet": pods}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        }
        return {
            "cniVersion": "0.4.0",
            "name": "pods",
            "plugins": [
                {"type": "ptp", "ipMasq": False, "mtu": 1500, "ipam": addresses},
                {"type": "portmap", "capabilities": {"portMappings": True}},
            ],
        }

    def _runtime_configuration(self) -> str:
        folder = self._node.folder
        return f"""version = 2
root = "{self.runtime_folder}"
state = "{folder}/run/containerd"
oom_score = 0
[grpc]
  address = "{self.runtime_socket}"
[debug]
  level = "warn"
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/var/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:test"
  disable_apparmor = true
  restrict_oom_score_adj = true
  tolerate_missing_hugetlb_controller = true
  disable_hugetlb_controller = true
  stream_server_address = "127.0.0.1"
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
  default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = false
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "{folder}/etc/cni"
"""

"""A real Weaviate cluster of three nodes on this machine, built from its Go module."""

import os
import random
import signal
import socket
from dataclasses import dataclass
from pathlib import Path

import requests

from serving.engines.settings import WeaviateSettings
from serving.processes import Process
from tests.machine.binaries import build, weaviate

N_NODES = 3
START_SECONDS = 90.0


@dataclass(frozen=True)
class Ports:
    """The ports of a node; the ones after ``gossip`` and ``raft`` are its own as well."""

    http: int
    grpc: int
    gossip: int
    raft: int

    @classmethod
    def find(cls) -> "Ports":
        """Ports that no process listens on, below those that outgoing connections get."""
        while True:
            first = random.randrange(20_000, 32_000, 6)
            if not any(_listens(port) for port in range(first, first + 6)):
                return cls(first, first + 1, first + 2, first + 4)


class Cluster:
    """Three nodes with their folders; each may be killed and started again.

    Args:
        folder: Their folders.
    """

    def __init__(self, folder: Path) -> None:
        self._program, self._folder = build(weaviate()) / "weaviate-server", folder
        self._ports = [Ports.find() for _ in range(N_NODES)]
        self._processes: list[Process | None] = [None] * N_NODES
        self.start_all()

    @property
    def settings(self) -> WeaviateSettings:
        """How it is reached."""
        return WeaviateSettings(
            http=tuple(f"127.0.0.1:{ports.http}" for ports in self._ports),
            grpc=tuple(f"127.0.0.1:{ports.grpc}" for ports in self._ports),
        )

    def kill(self, number: int) -> None:
        """End a node with SIGKILL."""
        process = self._processes[number]
        assert process is not None
        os.killpg(process.pid, signal.SIGKILL)
        process.stop()

    def start_all(self) -> None:
        """Start all nodes, and wait until they answer."""
        for number in range(N_NODES):
            self._launch(number)
        for number in range(N_NODES):
            self._await(number)

    def start(self, number: int) -> None:
        """Start a node again, and wait until it answers."""
        self._launch(number)
        self._await(number)

    def stop(self) -> None:
        """Stop all nodes."""
        for process in self._processes:
            if process is not None:
                process.stop()

    def _launch(self, number: int) -> None:
        ports, home = self._ports[number], self._folder / f"node{number}"
        pairs = zip(self._processes, self._ports, strict=True)
        others = [other for process, other in pairs if process and process.is_running()]
        variables = {
            "AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED": "true",
            "CLUSTER_ADVERTISE_ADDR": "127.0.0.1",
            "CLUSTER_DATA_BIND_PORT": ports.gossip + 1,
            "CLUSTER_GOSSIP_BIND_PORT": ports.gossip,
            "CLUSTER_HOSTNAME": f"node{number}",
            "CLUSTER_IN_LOCALHOST": "true",
            "CLUSTER_JOIN": ",".join(f"127.0.0.1:{other.gossip}" for other in others),
            "DEFAULT_VECTORIZER_MODULE": "none",
            "DISABLE_TELEMETRY": "true",
            "GO_PROFILING_DISABLE": "true",
            "GRPC_PORT": ports.grpc,
            "LOG_LEVEL": "warning",
            "PERSISTENCE_DATA_PATH": home,
            "RAFT_BOOTSTRAP_EXPECT": N_NODES,
            "RAFT_INTERNAL_RPC_PORT": ports.raft + 1,
            "RAFT_JOIN": ",".join(f"node{i}:{p.raft}" for i, p in enumerate(self._ports)),
            "RAFT_PORT": ports.raft,
        }
        command = [str(self._program), "--scheme", "http", "--host", "127.0.0.1"]
        command += ["--port", str(ports.http)]
        texts = {name: str(value) for name, value in variables.items()}
        log = self._folder / f"node{number}.log"
        process = Process(f"Weaviate node {number}", command, log, texts)
        # The next node joins those that run.
        process.wait_until(lambda: _listens(ports.gossip), START_SECONDS)
        self._processes[number] = process

    def _await(self, number: int) -> None:
        process = self._processes[number]
        assert process is not None
        url = f"http://127.0.0.1:{self._ports[number].http}/v1/.well-known/ready"
        process.wait_until(lambda: _answers(url), START_SECONDS)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _answers(url: str) -> bool:
    with requests.Session() as session:
        session.trust_env = False
        try:
            return session.get(url, timeout=1.0).status_code == 200
        except requests.RequestException:
            return False

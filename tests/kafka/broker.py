"""A real Kafka broker in KRaft mode, from its published jars."""

import fcntl
import re
import shutil
import subprocess
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

import pytest
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from refit.ports import free_port, free_ports
from serving.processes import PROJECT, Process

POM = Path(__file__).with_name("pom.xml")
JARS = PROJECT / ".build" / "kafka"
OLDEST_JAVA = 17
START_SECONDS = 150.0


def find_java() -> str:
    """The path of a Java that runs the broker; the test is skipped where something is missing."""
    java, maven = shutil.which("java"), shutil.which("mvn")
    if not java or not maven:
        missing = " and ".join(n for n, found in (("java", java), ("mvn", maven)) if not found)
        pytest.skip(f"the Kafka broker needs {missing}: install Java {OLDEST_JAVA} and Maven")
    text = subprocess.run([java, "-version"], capture_output=True, text=True, check=True).stderr
    version = re.search(r'version "(\d+)', text)
    if version is None or int(version[1]) < OLDEST_JAVA:
        pytest.skip(
            f"the Kafka broker needs Java {OLDEST_JAVA}, and {java} is {text.splitlines()[0]}"
        )
    return java


def fetch_jars() -> Path:
    """The folder of the broker's jars, which are fetched once."""
    JARS.mkdir(parents=True, exist_ok=True)
    with (JARS / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        pom = (JARS / "pom.xml").read_text() if (JARS / "pom.xml").exists() else ""
        if pom != POM.read_text():
            command = ["mvn", "-q", "-B", "-f", str(POM), "dependency:copy-dependencies"]
            command += [f"-DoutputDirectory={JARS / 'jars'}", "-DincludeScope=runtime"]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
            if done.returncode:
                pytest.skip(f"the jars of the Kafka broker cannot be fetched: {done.stdout[-500:]}")
            shutil.copy(POM, JARS / "pom.xml")
    return JARS / "jars"


class Broker:
    """A broker with its folder; it may be stopped and started again.

    Attributes:
        address: ``host:port``.
        admin: A client that makes and removes topics.

    Args:
        folder: Its folder.
        settings: Settings of the broker, beside those that it needs.
        host: The address of this host that clients connect to.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, object] | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self._java, self._jars, self._folder = find_java(), fetch_jars(), folder
        port = free_port(host)
        (controller,) = free_ports(1, besides=[port])
        self.address = f"{host}:{port}"
        folder.mkdir(parents=True, exist_ok=True)
        lines = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "listeners": f"PLAINTEXT://{self.address},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"PLAINTEXT://{self.address}",
            "controller.listener.names": "CONTROLLER",
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "log.dirs": folder / "data",
            "offsets.topic.replication.factor": 1,
            "group.initial.rebalance.delay.ms": 0,
            **(settings or {}),
        }
        self._config = folder / "server.properties"
        self._config.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        command = self._command("kafka.tools.StorageTool", "format")
        command += ["-t", uuid.uuid4().hex[:22], "-c", str(self._config)]
        subprocess.run(command, check=True, capture_output=True, timeout=START_SECONDS)
        self._process: Process | None = None
        self.start()
        self.admin = AdminClient({"bootstrap.servers": self.address, "log_level": 0})

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [*self._command("kafka.Kafka"), str(self._config)]
        self._process = Process("Kafka broker", command, self._folder / "broker.log")
        self._process.wait_until(self.answers, START_SECONDS)

    def stop(self) -> None:
        """Stop it; what it holds stays on its disk."""
        if self._process is not None:
            self._process.stop()

    def answers(self) -> bool:
        """Whether it answers."""
        admin = AdminClient({"bootstrap.servers": self.address, "log_level": 0})
        try:
            return bool(admin.list_topics(timeout=1.0).brokers)
        except KafkaException:
            return False

    def make_topic(self, name: str, partitions: int = 1, **settings: object) -> str:
        """Make a topic; return its address as a feed."""
        config = {key.replace("_", "."): str(value) for key, value in settings.items()}
        topic = NewTopic(name, num_partitions=partitions, replication_factor=1, config=config)
        self.admin.create_topics([topic])[name].result(30)
        deadline = time.monotonic() + START_SECONDS
        while len(self.admin.list_topics(name, timeout=5).topics[name].partitions) < partitions:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return f"kafka://{self.address}/{name}"

    def producer(self) -> Producer:
        """A client that writes."""
        settings = {"bootstrap.servers": self.address, "linger.ms": 0, "log_level": 0}
        more = {"reconnect.backoff.max.ms": 500, "message.max.bytes": 4 << 20}
        return Producer({**settings, **more})

    def _command(self, *arguments: str) -> list[str]:
        classes = f"{self._jars}/*"
        return [self._java, "-Xmx400m", "-XX:+UseSerialGC", "-cp", classes, *arguments]

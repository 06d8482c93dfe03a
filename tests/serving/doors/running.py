"""Run a door in this process, on real sockets, around a recommender that is made for the test."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvloop

from serving.counters import Counters
from serving.doors.access import Certificates, Tokens
from serving.doors.admission import Admission
from serving.doors.http import HttpDoor, make_server
from serving.doors.readiness import Readiness
from serving.doors.settings import DoorSettings
from serving.feeds.intake import Intake
from serving.request import parse_request, parse_similar


class Clerk:
    """Answers at once, or when ``go`` is set; keeps what it was asked."""

    bundle_id = "the-bundle"

    def __init__(self) -> None:
        self.counters = Counters()
        self.go = threading.Event()
        self.go.set()
        self.asked: list[tuple[Any, float | None]] = []

    def recommend(self, body: Any, arrived: float | None = None) -> dict[str, Any]:
        request = parse_request(body)
        self.asked.append((body, None if arrived is None else time.perf_counter() - arrived))
        self.go.wait(10)
        if request.user_id == "fails":
            raise ValueError("a fault of ours")
        items = [{"item_id": f"item-{n}", "score": 1.0 / (n + 1)} for n in range(request.k)]
        return {
            "request_id": request.request_id or "r",
            "bundle_id": self.bundle_id,
            "items": items,
            "fallback": None,
        }

    def similar(self, body: Any, arrived: float | None = None) -> dict[str, Any]:
        about = parse_similar(body)
        items = [{"item_id": f"like-{about.item_id}-{n}", "score": 1.0} for n in range(about.k)]
        return {"request_id": "r", "bundle_id": self.bundle_id, "items": items, "fallback": None}

    def is_ready(self) -> bool:
        return True

    def status(self) -> dict[str, Any]:
        return {"bundle_id": self.bundle_id, "towers": "available", "live_items": 3, "ready": True}


@contextmanager
def running(
    clerk: Clerk,
    readiness: Readiness | None = None,
    intakes: Mapping[str, Intake] | None = None,
    **settings: Any,
) -> Iterator[int]:
    """Serve HTTP; yields the port."""
    door = DoorSettings.model_validate(settings)
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    admission = Admission(door.threads, door.queue, clerk.counters)
    tokens = Tokens(door.token_file) if door.token_file else None
    server = make_server(
        HttpDoor(clerk, admission, door, readiness or Readiness(True), tokens, intakes),
        door,
        clerk.counters,
        Certificates(door) if door.certificate else None,
    )

    loop = uvloop.new_event_loop()

    def run() -> None:
        asyncio.run(server.serve(sockets=[listener]), loop_factory=lambda: loop)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield listener.getsockname()[1]
    finally:
        clerk.go.set()
        server.force_exit = True
        loop.call_soon_threadsafe(server.stop)
        thread.join(15)
        admission.close()


def make_certificates(folder: Path) -> dict[str, Path]:
    """An authority, a certificate of ``127.0.0.1`` and one of a client."""
    from datetime import UTC, datetime, timedelta
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def write(name: str, issuer: Any, issuer_key: Any, is_authority: bool) -> tuple[Any, Any]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.subject if issuer else subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False
            )
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(
                    (issuer_key or key).public_key()
                ),
                critical=False,
            )
            .sign(issuer_key or key, hashes.SHA256())
        )
        pem = serialization.Encoding.PEM
        (folder / f"{name}.pem").write_bytes(certificate.public_bytes(pem))
        (folder / f"{name}.key").write_bytes(
            key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        return certificate, key

    authority, key = write("authority", None, None, True)
    for name in ("server", "client"):
        write(name, authority, key, False)
    return {file.name: file for file in folder.iterdir()}

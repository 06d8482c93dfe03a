"""Certificates, keys and kubeconfigs of a test cluster."""

import base64
import ipaddress
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

LIFETIME = timedelta(days=30)


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key, as PEM files."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority with a new key.

    Args:
        folder: Where certificates and keys are written.
        name: The authority's file name and common name.
    """

    def __init__(self, folder: Path, name: str) -> None:
        from cryptography import x509

        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._key = _new_key()
        self._name = _subject(name, ())
        signs = x509.BasicConstraints(ca=True, path_length=None)
        builder = _builder(self._name, self._name, self._key).add_extension(signs, critical=True)
        self.pair = self._write(name, self._sign(builder), self._key)

    @property
    def certificate(self) -> Path:
        """The authority's own certificate, for clients that trust this authority."""
        return self.pair.certificate

    def issue(
        self,
        name: str,
        common_name: str,
        *,
        groups: Sequence[str] = (),
        hosts: Sequence[str] = (),
    ) -> Pair:
        """Sign a server certificate if ``hosts`` are given, otherwise a client certificate.

        Args:
            name: File name without suffix.
            common_name: Name of the user or server.
            groups: The user's groups.
            hosts: The server's addresses and host names.
        """
        from cryptography import x509
        from cryptography.x509.oid import ExtendedKeyUsageOID

        key = _new_key()
        usage = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = _builder(_subject(common_name, groups), self._name, key)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if hosts:
            names = x509.SubjectAlternativeName([_host(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        return self._write(name, self._sign(builder), key)

    def _sign(self, builder: "x509.CertificateBuilder") -> "x509.Certificate":
        from cryptography.hazmat.primitives import hashes

        return builder.sign(self._key, hashes.SHA256())

    def _write(
        self, name: str, certificate: "x509.Certificate", key: "EllipticCurvePrivateKey"
    ) -> Pair:
        from cryptography.hazmat.primitives.serialization import Encoding

        pair = Pair(self._folder / f"{name}.crt", self._folder / f"{name}.key")
        pair.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))
        write_key(pair.key, key)
        return pair


def write_key(path: Path, key: "EllipticCurvePrivateKey") -> None:
    """Write a private key, readable only by its owner."""
    from cryptography.hazmat.primitives import serialization

    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def write_token_keys(folder: Path) -> Pair:
    """Write the key pair that signs service account tokens; ``certificate`` is the public key."""
    from cryptography.hazmat.primitives import serialization

    key = _new_key()
    pair = Pair(folder / "service-accounts.pub", folder / "service-accounts.key")
    write_key(pair.key, key)
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    pair.certificate.write_bytes(public)
    return pair


def write_kubeconfig(path: Path, server: str, authority: Path, user: Pair) -> Path:
    """Write a kubeconfig with embedded certificates and key."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "refit",
                "cluster": {"server": server, "certificate-authority-data": _encoded(authority)},
            }
        ],
        "users": [
            {
                "name": "refit",
                "user": {
                    "client-certificate-data": _encoded(user.certificate),
                    "client-key-data": _encoded(user.key),
                },
            }
        ],
        "contexts": [{"name": "refit", "context": {"cluster": "refit", "user": "refit"}}],
        "current-context": "refit",
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(config))  # JSON is YAML
    return path


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _new_key() -> "EllipticCurvePrivateKey":
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _subject(common_name: str, groups: Sequence[str]) -> "x509.Name":
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _host(host: str) -> "x509.GeneralName":
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _builder(
    subject: "x509.Name", issuer: "x509.Name", key: "EllipticCurvePrivateKey"
) -> "x509.CertificateBuilder":
    from cryptography import x509

    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + LIFETIME)
    )

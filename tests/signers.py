"""Certificates to sign credentials with, made for a test: a root, and one that it vouches for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

NAME = "Jane Doe"


@dataclass(frozen=True)
class Pems:
    """Files in PEM: `certificate`, its `key`, and the `root` that a verifier trusts."""

    certificate: Path
    key: Path
    root: Path


def private_key(kind: str = "ec") -> Any:
    from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa

    if kind == "rsa":
        return rsa.generate_private_key(65537, 2048)
    if kind == "dsa":
        return dsa.generate_private_key(1024)
    return ed25519.Ed25519PrivateKey.generate() if kind == "ed25519" else ec.generate_private_key(ec.SECP256R1())


def written_key(path: Path, key: Any, password: bytes | None = None) -> Path:
    from cryptography.hazmat.primitives import serialization as s

    lock = s.BestAvailableEncryption(password) if password else s.NoEncryption()
    path.write_bytes(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, lock))
    return path


def pems(folder: Path, kind: str = "ec", days: tuple[int, int] = (-1, 30), purpose: str = "email") -> Pems:
    """Files of a signer whose certificate is valid between these days from now; `purpose`: email or server."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    folder.mkdir(parents=True, exist_ok=True)
    own, issuer, now = private_key(kind), private_key(), datetime.now(UTC)

    def certificate(common: str, public: Any, authority: bool) -> Any:
        def name(text: str) -> Any:
            entries = [(NameOID.ORGANIZATION_NAME, "Example Ltd"), (NameOID.COMMON_NAME, text)]
            return x509.Name([x509.NameAttribute(*entry) for entry in entries])

        usage = x509.KeyUsage(not authority, False, False, False, False, authority, authority, False, False)
        wanted = ExtendedKeyUsageOID.EMAIL_PROTECTION if purpose == "email" else ExtendedKeyUsageOID.SERVER_AUTH
        made = x509.CertificateBuilder(name("root"), name(common), public, x509.random_serial_number())
        made = made.not_valid_before(now + timedelta(days[0])).not_valid_after(now + timedelta(days[1]))
        made = made.add_extension(x509.BasicConstraints(authority, None), True).add_extension(usage, True)
        made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)
        made = made.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()), False)
        made = made if authority else made.add_extension(x509.ExtendedKeyUsage([wanted]), False)
        return made.sign(issuer, hashes.SHA256()).public_bytes(Encoding.PEM)

    found = Pems(folder / "me.pem", written_key(folder / "me.key", own), folder / "root.pem")
    found.certificate.write_bytes(certificate(NAME, own.public_key(), False))
    found.root.write_bytes(certificate("root", issuer.public_key(), True))
    return found

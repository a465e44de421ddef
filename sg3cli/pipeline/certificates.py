"""The certificate that credentials are signed with: the user's, or one made on the spot that nobody trusts.

The only module that imports cryptography. Neither key nor certificate is written anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sg3cli.errors import UsageError

SELF_MADE = "made by sg3 itself, trusted by nobody"  # organisation in such a certificate: readers show it as the issuer
SELF_MADE_NAME = "whoever ran sg3 (not verified)"
YEARS = 10  # for which a certificate of ours is valid; its key is gone when the command ends
PEM_HINT = "a PEM file: the signer's certificate first, then those that vouch for it, without the root"


@dataclass(frozen=True)
class Signer:
    """Who signs. `chain` and `key` are PEM, and kept out of the object's description, so that no log shows them."""

    name: str  # common name and organisation of the certificate
    algorithm: str  # as C2PA names it: es256, ps256, ed25519
    fingerprint: str  # sha256 of the certificate; of a self-made one a word, as each is used once
    self_made: bool
    chain: bytes = field(repr=False)
    key: bytes = field(repr=False)


def self_made() -> Signer:
    """A key and a certificate that live as long as the command: they show that a file was not changed, not by whom."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    issuer, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    certificates = [_certificate(key.public_key(), issuer, False), _certificate(issuer.public_key(), issuer, True)]
    chain = b"".join(one.public_bytes(Encoding.PEM) for one in certificates)
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Signer(f"{SELF_MADE_NAME}, {SELF_MADE}", "es256", "self-made", True, chain, secret)


def _certificate(public: Any, issuer: Any, authority: bool) -> Any:
    """A certificate for the key `public`, signed by the key `issuer`; an `authority` signs others, and not files."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def name(common: str) -> Any:
        organisation = x509.NameAttribute(NameOID.ORGANIZATION_NAME, SELF_MADE)
        return x509.Name([organisation, x509.NameAttribute(NameOID.COMMON_NAME, common)])

    now, root = datetime.now(UTC), f"root, {SELF_MADE}"
    usage = x509.KeyUsage(not authority, False, False, False, False, authority, authority, False, False)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(root if authority else SELF_MADE_NAME))
        .issuer_name(name(root))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # clocks differ
        .not_valid_after(now + timedelta(days=365 * YEARS))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()), critical=False)
        .add_extension(usage, critical=True)
    )
    if not authority:
        purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])  # one of those that C2PA allows
        builder = builder.add_extension(purpose, critical=False)
    return builder.sign(issuer, hashes.SHA256())


def of_files(certificate: Path, key: Path) -> Signer:
    """The user's certificate, with its chain, and its key. Raises `UsageError` for what cannot sign, and says why."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    text, secret = _read(certificate, "certificate"), _read(key, "key")
    try:
        chain = x509.load_pem_x509_certificates(text)
    except ValueError:
        raise UsageError(f"{certificate} holds no certificate that can be read", PEM_HINT) from None
    private = _private_key(secret, key)
    own = chain[0]
    plain = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if own.public_key().public_bytes(*plain) != private.public_key().public_bytes(*plain):
        raise UsageError(f"the key in {key} is not that of the certificate in {certificate}", PEM_HINT)
    now = datetime.now(UTC)
    if not own.not_valid_before_utc <= now <= own.not_valid_after_utc:
        dates = f"{own.not_valid_before_utc:%Y-%m-%d} to {own.not_valid_after_utc:%Y-%m-%d}"
        raise UsageError(f"the certificate in {certificate} is valid from {dates} only", "sign with a current one")
    public = b"".join(one.public_bytes(Encoding.PEM) for one in chain)  # nothing else that the file may hold
    fingerprint = f"sha256:{own.fingerprint(hashes.SHA256()).hex()}"
    return Signer(_name_of(own.subject), _algorithm(private, key), fingerprint, False, public, _plain(private))


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the {what} {path}: {error.strerror or error}", "check the path") from error


def _private_key(text: bytes, path: Path) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return load_pem_private_key(text, None)
    except TypeError:
        hint = "sg3 never asks: openssl pkey -in KEY -out PLAIN takes it off, into a file that only you may read"
        raise UsageError(f"the key in {path} is locked by a password", hint) from None
    except (ValueError, UnsupportedAlgorithm):
        hint = "--sign-key KEY.pem: a private key in PEM, as PKCS#8"
        raise UsageError(f"{path} holds no private key that can be read", hint) from None  # it may quote the file


def _algorithm(key: Any, path: Path) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    curves = {256: "es256", 384: "es384", 521: "es512"}
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name.startswith("secp") and key.key_size in curves:
        return curves[key.key_size]
    if isinstance(key, rsa.RSAPrivateKey):
        return "ps256"
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    raise UsageError(f"the key in {path} is of a kind that C2PA does not know", "EC (P-256), RSA or Ed25519 will do")


def _plain(key: Any) -> bytes:
    """The key as PKCS#8, which is all that the signing library reads."""
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def _name_of(subject: Any) -> str:
    from cryptography.x509.oid import NameOID

    kinds: Sequence[Any] = (NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME)
    words = [str(entry.value) for kind in kinds for entry in subject.get_attributes_for_oid(kind)]
    return ", ".join(words) or subject.rfc4514_string() or "nobody named"

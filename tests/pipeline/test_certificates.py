"""Certificates: the user's, what is wrong with others, and those that are made on the spot."""

from __future__ import annotations

from pathlib import Path

import pytest
from signers import NAME, pems, private_key, written_key

from sg3cli.errors import UsageError
from sg3cli.pipeline import certificates

x509 = pytest.importorskip("cryptography.x509", reason="cryptography comes with the extra c2pa")


@pytest.mark.parametrize(("kind", "algorithm"), [("ec", "es256"), ("rsa", "ps256"), ("ed25519", "ed25519")])
def test_a_signer_is_named_and_its_algorithm_is_that_of_its_key(tmp_path: Path, kind: str, algorithm: str) -> None:
    files = pems(tmp_path, kind)
    signer = certificates.of_files(files.certificate, files.key)
    assert (signer.name, signer.algorithm, signer.self_made) == (f"{NAME}, Example Ltd", algorithm, False)
    assert "PRIVATE" not in repr(signer) and "CERTIFICATE" not in repr(signer)  # an object may end up in a log


def test_certificate_and_key_may_be_one_file_and_the_key_is_no_part_of_the_chain(tmp_path: Path) -> None:
    files = pems(tmp_path)
    both = tmp_path / "both.pem"
    both.write_bytes(files.key.read_bytes() + files.certificate.read_bytes())
    signer = certificates.of_files(both, both)
    assert b"PRIVATE" not in signer.chain and signer.chain == files.certificate.read_bytes()


def test_what_cannot_sign_is_said_in_two_lines(tmp_path: Path) -> None:
    good, other = pems(tmp_path / "good"), pems(tmp_path / "other")
    old, early = pems(tmp_path / "old", days=(-9, -1)), pems(tmp_path / "early", days=(1, 9))
    text = tmp_path / "text.pem"
    text.write_text("secret words\n")
    locked = written_key(tmp_path / "locked.key", private_key(), b"sesame")
    dsa = pems(tmp_path / "dsa", "dsa")
    for certificate, key, said in (
        (good.certificate, other.key, "is not that of the certificate"),
        (old.certificate, old.key, "is valid from"),
        (early.certificate, early.key, "is valid from"),
        (text, good.key, "holds no certificate"),
        (good.certificate, text, "holds no private key"),
        (good.certificate, good.certificate, "holds no private key"),
        (good.certificate, locked, "locked by a password"),
        (tmp_path / "none.pem", good.key, "cannot read the certificate"),
        (good.certificate, tmp_path / "none.key", "cannot read the key"),
        (dsa.certificate, dsa.key, "of a kind that C2PA does not know"),
    ):
        with pytest.raises(UsageError, match=said) as caught:
            certificates.of_files(certificate, key)
        assert caught.value.hint and "secret words" not in str(caught.value)


def test_a_certificate_made_on_the_spot_says_that_nobody_trusts_it_and_is_another_each_time() -> None:
    first, second = certificates.self_made(), certificates.self_made()
    assert first.self_made and first.key != second.key and first.chain != second.chain
    own, root = x509.load_pem_x509_certificates(first.chain)
    own.verify_directly_issued_by(root)
    assert "trusted by nobody" in own.subject.rfc4514_string() and "trusted by nobody" in root.subject.rfc4514_string()
    assert not own.extensions.get_extension_for_class(x509.BasicConstraints).value.ca

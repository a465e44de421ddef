"""Content credentials (C2PA) of an output: what was done to which source, signed; and those of any file read back.

The only module that imports c2pa, an extra; nothing is ever fetched from a network.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

from sg3cli import __version__
from sg3cli.errors import InputError, UsageError
from sg3cli.pipeline import certificates
from sg3cli.pipeline.certificates import Signer
from sg3cli.pipeline.provenance import sidecar_of
from sg3cli.project import Project
from sg3cli.settings import Settings
from sg3cli.video.image_file import kind_of
from sg3cli.video.image_sequence import is_pattern, output_name
from sg3cli.video.output_file import IMAGES, format_of

EDITED_BY_AI = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
CONTAINERS = {"mp4": "video/mp4", "mov": "video/quicktime"}  # FFmpeg's name of the outputs that hold credentials
OUTPUT_PICTURES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}  # one of them, not many
OUTPUT_PICTURES |= dict.fromkeys((".tif", ".tiff"), "image/tiff")
PICTURES = {"jpeg_pipe": "image/jpeg", "png_pipe": "image/png", "tiff_pipe": "image/tiff", "webp_pipe": "image/webp"}
PICTURES |= {"gif": "image/gif"}
BRANDS = {b"qt  ": "video/quicktime", b"avif": "image/avif", b"avis": "image/avif"}
BRANDS |= dict.fromkeys((b"heic", b"heix", b"mif1", b"msf1", b"heim", b"heis"), "image/heic")
OTHER = "application/octet-stream"  # a source of a kind that holds no credentials
OFFLINE = {
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_trust": True},
    "builder": {"thumbnail": {"enabled": False}},
}
UNTRUSTED = "signingCredential.untrusted"  # which says nothing about whether the signature holds
CHANGED = ("mismatch", "missing")  # ends of the codes that say that bytes are not those that were signed
DEPTH = 8  # of ingredients in ingredients
MISSING = "needs the package c2pa-python"
INSTALL = "in the clone: pip install '.[c2pa]'"
PROBE = bytes.fromhex(  # a PNG of one pixel, on which a certificate is tried
    "89504e470d0a1a0a0000000d4948445200000001000000010800000000" "3a7e9b550000000a49444154789c6360000000020001"
    "48afa471" "0000000049454e44ae426082"
)  # fmt: skip


@dataclass(frozen=True)
class Signing:
    """Signs one output: by whom, and what is said about it, namely the project's source and its edits by then."""

    signer: Signer
    media: str  # kind of the output
    title: str  # its name
    project: Project
    kept: Mapping[str, Any]  # credentials of the source, as `read` gives them

    @property
    def mark(self) -> str:
        """By which an output that is signed so already is known; holds neither name nor certificate."""
        return self.signer.fingerprint

    @property
    def facts(self) -> dict[str, Any]:
        """For the record beside the output."""
        return {"signed_by": self.signer.name, "self_made_certificate": self.signer.self_made}

    def notices(self) -> Iterator[str]:
        """What a user should know about it."""
        if self.signer.self_made:
            yield (
                "the credentials are signed with a certificate that sg3 made for this file and that nobody trusts: "
                "they show that it was not changed since, not who made it"
            )
        else:
            yield f"the credentials are signed by {self.signer.name}"
        status = self.kept["status"]
        if status == "holds":
            yield f"the source's credentials are kept, signed by {self.kept['signed_by']}"
        elif status == "damaged":
            yield "the source's credentials cannot be read (tampered, or damaged) and are left out"
        elif status != "none":
            yield f"the source's credentials do not hold ({status}), they are kept and the output says so"

    def __call__(self, unsigned: Path, signed: Path) -> None:
        """Write the file `unsigned` with credentials into `signed`, which is there. Raises `InputError`."""
        import c2pa

        with unsigned.open("rb") as plain, signed.open("r+b") as sealed:
            try:
                self._sign(self.media, plain, sealed)
            except c2pa.C2paError as error:
                hint = "is there room for the file once more? --sign off writes it without credentials"
                raise InputError(f"cannot sign {self.title}: {_short(error)}", hint) from error

    def rehearse(self, given: str) -> None:
        """Sign one pixel: what a verifier would refuse shows now and not after hours of work.

        Raises `UsageError` for the certificate, that was `given` as this.
        """
        import c2pa

        signed = io.BytesIO()
        try:
            self._sign("image/png", io.BytesIO(PROBE), signed)
            with c2pa.Reader("image/png", signed, context=c2pa.Context.from_dict(OFFLINE)) as reader:
                problems = _problems(json.loads(reader.json())["validation_results"])
        except c2pa.C2paError as error:
            problems = [_short(error)]
        if problems:
            hint = "C2PA wants X.509 v3 for signing (digitalSignature; e-mail or document signing), no root of its own"
            raise UsageError(f"the certificate {given} cannot sign credentials: {problems[0]}", hint)

    def _sign(self, media: str, plain: BinaryIO, signed: BinaryIO) -> None:
        import c2pa

        builder = self._builder()
        self._add_source(builder)
        info = c2pa.C2paSignerInfo(self.signer.algorithm, self.signer.chain, self.signer.key, None)
        with c2pa.Signer.from_info(info) as signer:
            builder.sign(signer, media, plain, signed)

    @property
    def _said(self) -> str:
        words = ", ".join(edit.describe() for edit in self.project.edits) or "no edits, the face is drawn anew"
        return f"the face in the footage was edited with a generative model: {words}"

    def _builder(self) -> Any:
        import c2pa

        agent = {"name": "sg3", "version": __version__}
        edited = {
            "action": "c2pa.edited",
            "digitalSourceType": EDITED_BY_AI,
            "softwareAgent": agent,
            "description": self._said,
        }
        actions = {"label": "c2pa.actions.v2", "data": {"actions": [edited]}}
        manifest = {"claim_generator_info": [agent], "title": self.title, "assertions": [actions]}
        builder = c2pa.Builder(json.dumps(manifest), c2pa.Context.from_dict(OFFLINE))
        builder.set_intent(c2pa.C2paBuilderIntent.EDIT)  # which puts c2pa.opened, of the source, before the edit
        return builder

    def _add_source(self, builder: Any) -> None:
        """The source as the parent, with the credentials that it has."""
        source = self.project.source()
        told = {"title": source.name, "relationship": "parentOf"}
        if not source.is_file() or self.kept["status"] == "damaged":  # a folder or pattern of pictures has none
            builder.add_ingredient(told, OTHER, io.BytesIO())
            return
        with source.open("rb") as file:
            builder.add_ingredient(told, media_type(source) or OTHER, file)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


# ---- before the work


def holder(out: str, container: str | None) -> str | None:
    """The kind of file that an output is, None when it can hold no credentials. `container`: as the user says it."""
    if out == "-" or is_pattern(output_name(out)):
        return None
    found = format_of(out, container)
    return OUTPUT_PICTURES.get(Path(out).suffix.lower()) if found == IMAGES else CONTAINERS.get(found)


def signing_of(project: Project, settings: Settings, out: str) -> Signing | None:
    """What signs the output, tried on a picture of one pixel; None when nothing is to be signed, or cannot be.

    Raises `UsageError` when the extra is not installed, or the certificate cannot sign.
    """
    asked = settings.credentials
    if asked.sign is None and asked.sign_key is not None:
        raise UsageError("--sign-key without --sign signs nothing", "--sign CERT.pem names the certificate")
    media = holder(out, settings.encode.format)
    if asked.sign in (None, "off") or media is None:
        return None
    if find_spec("c2pa") is None:
        raise UsageError(f"--sign {MISSING}", INSTALL)
    certificate = Path(str(asked.sign))
    own = asked.sign == "self"
    key = certificate if asked.sign_key is None else Path(asked.sign_key)
    signer = certificates.self_made() if own else certificates.of_files(certificate, key)
    source = project.source()
    signing = Signing(signer, media, Path(out).name, project, read(source) if source.is_file() else {"status": "none"})
    signing.rehearse(str(certificate))
    return signing


def unsigned_notice(settings: Settings, out: str) -> str | None:
    """What is said when the output should be signed and is of a kind that cannot be."""
    container = settings.encode.format
    if settings.credentials.sign in (None, "off") or holder(out, container) is not None:
        return None
    if out == "-":
        return "standard output is not signed, credentials are written into a finished file"
    what = "pictures in a row are" if is_pattern(output_name(out)) else f"{format_of(out, container)} is"
    return f"{what} not signed, C2PA has no place there; {sidecar_of(out)} says what was done, unsigned"


# ---- reading back


def media_type(path: Path) -> str | None:
    """The kind of a file by its first bytes, as far as it can hold credentials."""
    with path.open("rb") as file:
        head = file.read(12)
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "video/x-msvideo"
    kind = kind_of(path)
    return BRANDS.get(head[8:12], "video/mp4") if kind == "mov" else PICTURES.get(kind)


def read(path: Path, anchors: str | None = None) -> dict[str, Any]:
    """The credentials in a file as plain data; `anchors` (PEM) are certificates that are trusted.

    `status` is `none`, `holds`, `tampered` (bytes are not those that were signed), `invalid`, `damaged` (they cannot
    be read) or `not read` (the extra is not installed).
    """
    if (media := media_type(path)) is None:
        return {"status": "none", "why": "a file of this kind cannot hold them"}
    if find_spec("c2pa") is None:
        return {"status": "not read", "why": f"reading credentials {MISSING}; {INSTALL}"}
    import c2pa

    trust: Mapping[str, Any] = {} if anchors is None else {"trust": {"trust_anchors": anchors}}
    try:
        context = c2pa.Context.from_dict({**OFFLINE, **trust})
        with path.open("rb") as file, c2pa.Reader(media, file, context=context) as reader:
            told = json.loads(reader.json())
    except c2pa.C2paError.ManifestNotFound:
        return {"status": "none"}
    except c2pa.C2paError as error:
        return {"status": "damaged", "problems": [_short(error)]}
    results = told.get("validation_results") or {}
    problems, status = _problems(results), _status(_failures(results))
    trusted = told.get("validation_state") == "Trusted"
    facts = _manifest_facts(told["manifests"], told["active_manifest"])
    return {"status": status, "trusted": trusted, "problems": problems, **facts}


def _failures(results: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What does not hold, but for trust; `results` are those of a file or of an ingredient."""
    parts = [results.get("activeManifest") or {}]
    parts += [entry.get("validationDeltas") or {} for entry in results.get("ingredientDeltas") or []]
    return [one for part in parts for one in part.get("failure") or [] if one.get("code") != UNTRUSTED]


def _problems(results: Mapping[str, Any]) -> list[str]:
    return [f"{one['code']}: {one.get('explanation') or ''}".rstrip(": ") for one in _failures(results)]


def _status(failures: Sequence[Mapping[str, Any]]) -> str:
    if not failures:
        return "holds"
    return "tampered" if any(str(one["code"]).endswith(CHANGED) for one in failures) else "invalid"


def _manifest_facts(manifests: Mapping[str, Any], label: str, depth: int = 0) -> dict[str, Any]:
    """Who signed a manifest, what was done, and from which files."""
    manifest = manifests[label]
    signature = manifest.get("signature_info") or {}
    names = [str(signature[key]) for key in ("common_name", "issuer") if signature.get(key)]
    made_by = [_agent(one) for one in manifest.get("claim_generator_info") or [] if isinstance(one, dict)]
    return {
        "title": manifest.get("title"),
        "signed_by": ", ".join(names) or "nobody named",
        "signed_at": signature.get("time"),
        "self_made_certificate": signature.get("issuer") == certificates.SELF_MADE,
        "generator": ", ".join(made_by),
        "actions": list(_actions(manifest)),
        "ingredients": [_ingredient(one, manifests, depth) for one in manifest.get("ingredients") or []],
    }


def _agent(told: Mapping[str, Any]) -> str:
    """A program and its version."""
    return " ".join(str(told[key]) for key in ("name", "version") if key in told)


def _actions(manifest: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for assertion in manifest.get("assertions") or []:
        if str(assertion.get("label", "")).startswith("c2pa.actions"):
            for action in assertion["data"].get("actions") or []:
                agent = action.get("softwareAgent")
                yield {
                    "action": action.get("action"),
                    "digital_source_type": action.get("digitalSourceType"),
                    "agent": _agent(agent) if isinstance(agent, dict) else agent,
                    "description": action.get("description"),
                }


def _ingredient(told: Mapping[str, Any], manifests: Mapping[str, Any], depth: int) -> dict[str, Any]:
    """A file that another was made from, with its own credentials as they were found when it was put in."""
    facts = {"title": told.get("title"), "relationship": told.get("relationship"), "status": "none"}
    label = str(told.get("active_manifest"))
    if label not in manifests or depth >= DEPTH:
        return facts
    failures = _failures(told.get("validation_results") or {})
    return {**_manifest_facts(manifests, label, depth + 1), **facts, "status": _status(failures)}

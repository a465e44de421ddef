"""What a file says of how it was made: the record beside it, the tag inside it, its credentials."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sg3cli.errors import InputError
from sg3cli.files import digest_of
from sg3cli.pipeline import credentials, provenance


def file_facts(path: Path, anchors: str | None = None) -> dict[str, Any]:
    """A media file as plain data; `anchors` (PEM) are certificates that are trusted.

    `record` is that beside the file, `record_holds` whether it describes the file as it is (None: there is none).
    Raises `InputError` for a file that is no footage and of which nothing is known.
    """
    from sg3cli.video.image_file import comment_of
    from sg3cli.video.probe import probe

    digest, stream, comment = digest_of(path), None, comment_of(path)
    record, signed = _record(path), credentials.read(path, anchors)
    try:
        info = probe(path)
        stream, comment = info.to_dict(), info.metadata.get("comment", comment)
    except InputError:
        if record is None and signed["status"] in ("none", "not read"):
            raise
    holds = None if record is None else bool(record.get("output", {}).get("sha256") == digest)
    return {
        "path": str(path),
        "size": path.stat().st_size,
        "sha256": digest,
        "stream": stream,
        "record": record,
        "record_holds": holds,
        "tag": _ours(comment),
        "credentials": signed,
    }


def _record(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(provenance.sidecar_of(str(path)).read_text(encoding="utf8"))
    except (OSError, ValueError):
        return None
    ours = isinstance(record, dict) and str(record.get("tool", "")).startswith(provenance.TOOL)
    return record if ours and isinstance(record.get("output"), dict) else None


def _ours(comment: str) -> dict[str, Any] | None:
    """The record in a comment, as outputs carry it."""
    try:
        found = json.loads(comment)["sg3"]
    except (ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, dict) else None

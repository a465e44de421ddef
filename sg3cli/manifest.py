"""`project.json`: what a project is and what its stages found, sealed with a digest, so that damage is seen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from sg3cli.errors import InputError
from sg3cli.files import write_json

SCHEMA = 1
MANIFEST = "project.json"
SEAL = "digest"  # of all else in the manifest; those of early projects have none
SHAPE = {"source": dict, "stream": dict, "stages": dict, "edits": list}
OF_SOURCE = {"path": str, "size": int, "sha256": str}


@dataclass(frozen=True)
class StageRecord:
    """What is known of a stage's last finished run; false when there was none.

    `inputs` are the content keys of the stages before it, `models` digests, `facts` what the stage found out.
    """

    key: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    version: str = ""
    seconds: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.key)

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> StageRecord:
        """The record as the manifest holds it."""
        own = {item.name: stored[item.name] for item in fields(cls) if item.name in stored and item.name != "facts"}
        facts = {name: value for name, value in stored.items() if name not in own and name != "status"}
        return cls(**{**own, "files": tuple(own.get("files", ()))}, facts=facts)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of the project in `folder`; raises `InputError` when it is broken, or newer than this program."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf8"))
        schema, seal = int(manifest["schema"]), manifest.pop(SEAL, None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"the manifest {path} is damaged: {error}", how_to_mend(folder)) from error
    if seal is not None and seal != seal_of(manifest):
        hint = f'{how_to_mend(folder)} (if you changed it yourself, delete its entry "{SEAL}")'
        raise InputError(f"the manifest {path} is damaged: it is not what sg3 wrote", hint)
    if schema > SCHEMA:
        raise InputError(f"{folder} was made by a newer sg3 (schema {schema})", "update sg3")
    source = manifest.get("source")
    wrong = [name for name, kind in SHAPE.items() if not isinstance(manifest.get(name), kind)]
    wrong = wrong or [name for name, kind in OF_SOURCE.items() if not isinstance(source.get(name), kind)]
    if wrong:
        raise InputError(f"the manifest {path} is damaged: it does not tell {wrong[0]}", how_to_mend(folder))
    return dict(manifest)


def how_to_mend(folder: Path) -> str:
    """What to do about a manifest that is lost."""
    return f"restore {MANIFEST}, or remove {folder} and begin anew"


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write it, with its seal."""
    write_json(folder / MANIFEST, {**manifest, SEAL: seal_of(manifest)})


def seal_of(manifest: Mapping[str, Any]) -> str:
    """Digest of what a manifest says, however it is laid out."""
    plain = json.loads(json.dumps(manifest))  # keys and tuples as they will be read
    return f"sha256:{hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()}"

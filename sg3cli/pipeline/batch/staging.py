"""A project on its way between machines: its manifest as data, its finished results as files in a store."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sg3cli.errors import InputError
from sg3cli.files import digest_of, remove
from sg3cli.pipeline.batch.store import Store, get_file, is_url, put_file
from sg3cli.project import DIGESTS, Project
from sg3cli.video.image_sequence import is_image_sequence, is_pattern

STAGES = ("align", "invert", "finetune")  # whose records a worker brings


@dataclass(frozen=True)
class Snapshot:
    """A project as it stands: `files` are those in it by name, with the digests under which the store has them.

    `source` is the digest of the clip where the store has it, too; None: its path leads to it on all machines.
    """

    manifest: dict[str, Any]
    files: dict[str, str]
    source: str | None = None


def take(project: Project, store: Store, address: str) -> Snapshot:
    """Store the finished results of a project; the clip as well where the machines share a URL and no folder."""
    sealed: dict[str, str] = project.manifest.get(DIGESTS, {})
    kept = sorted({*sealed, *(name for stage in STAGES for name in project.record(stage).files)})
    there = [name for name in kept if (project.path / name).is_file()]
    files = {name: put_file(store, project.path / name, sealed.get(name)) for name in there}
    source = project.source()
    sent = is_url(address) and not (is_image_sequence(source) or is_pattern(source))
    clip = put_file(store, source, project.manifest["source"]["sha256"]) if sent else None
    return Snapshot(copy.deepcopy(project.manifest), files, clip)


def lay_out(snapshot: Snapshot, store: Store, folder: Path, cache: Path) -> Project:
    """The project in a folder of this machine, `folder/work.sg3`; `cache` keeps files for the next time.

    Raises `InputError` when the clip is neither in the store nor at its path.
    """
    path = folder / "work.sg3"
    for name, digest in snapshot.files.items():
        place = path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        os.link(cached(store, digest, cache), place)  # files of a project are replaced, never changed
    project = Project(path, copy.deepcopy(snapshot.manifest))
    known = Path(snapshot.manifest["source"]["path"])
    if snapshot.source is not None and not known.is_file():
        clip = folder / known.name
        os.link(cached(store, snapshot.source, cache), clip)
        project.manifest["source"] = {**snapshot.manifest["source"], "path": str(clip)}
    elif not known.exists() and not is_pattern(known):
        hint = "keep clips where all machines see them, or give --store a URL"
        raise InputError(f"the clip {known} is not there on {os.uname().nodename}", hint)
    path.mkdir(parents=True, exist_ok=True)
    project.save()
    return project


def cached(store: Store, digest: str, cache: Path) -> Path:
    """A file of the store on this machine, fetched once."""
    path = cache / digest.partition(":")[2]
    if not path.is_file():
        get_file(store, digest, path)
    return path


def install(project: Project, sent: Snapshot, back: Snapshot, store: Store) -> None:
    """Take over what a worker has made of the project that was `sent`: files, and the records of its stages."""
    for name, digest in back.files.items():
        path = project.path / name
        if not path.is_file() or digest_of(path) != digest:
            get_file(store, digest, path)
    for name in sent.files.keys() - back.files.keys():
        remove(project.path / name)
    records = {stage: record for stage, record in back.manifest["stages"].items() if stage in STAGES}
    project.manifest["stages"] |= records
    project.manifest[DIGESTS] = {
        name: digest
        for name, digest in {**project.manifest.get(DIGESTS, {}), **back.manifest.get(DIGESTS, {})}.items()
        if (project.path / name).is_file()
    }
    project.save()

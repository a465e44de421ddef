"""The `.sg3` folder of one clip: a manifest, arrays in open formats, and what is needed to continue after a kill.

Every write is a temporary file that is flushed and renamed, so a reader (or the next run) never meets half a file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sg3cli import __version__
from sg3cli.errors import InputError, UsageError
from sg3cli.files import RowFile, digest_of, read_arrays, write_error, write_json
from sg3cli.latents.edits import Edit
from sg3cli.manifest import MANIFEST, SCHEMA, StageRecord, how_to_mend, read_manifest, write_manifest
from sg3cli.process_memory import peak_rss
from sg3cli.video.color import HLG, PQ
from sg3cli.video.image_sequence import DEFAULT_RATE, fingerprint, is_image_sequence, is_pattern, outside

if TYPE_CHECKING:
    from sg3cli.faces.alignment import Track

SUFFIX = ".sg3"
RETIMED = ("avi", "mpegts", "mpeg", "mpegvideo")  # containers
LOCK, OWNER = ".lock", ".owner.json"
LEFTOVERS = (".*.tmp", ".tmp??????")  # of a killed writer: `atomic_path`'s, and what safetensors writes before it
STAGES = ("align", "invert", "finetune", "edit", "render")
UNDO = 20  # changes of the edits that can be taken back
DIGESTS = "digests"  # of the files in the project, by their names in it
TRACK, CODES = "align/track.safetensors", "invert/ws.npy"  # of the first face; `of_face` names the others'
CODE_PARTS = {"ws": CODES, "shift": "invert/shift.npy", "pose": "invert/pose.npy"}  # the last two after a refinement


# ---- content keys ---------------------------------------------------------------------------------------------------


def content_key(**parts: Any) -> str:
    """Hash of all that a result depends on; dataclasses count by their fields."""
    text = json.dumps(parts, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _plain(part: Any) -> Any:
    return asdict(part) if is_dataclass(part) and not isinstance(part, type) else str(part)


# ---- the project ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """The clip that a project belongs to. Identity is size and sha256; the path only says where it was last seen.

    Images (a folder, a pattern, a still) have a `rate`, which belongs to their identity. `track` is the number of the
    video in a file of several, None: the one that players show.
    """

    path: Path
    size: int
    sha256: str
    mtime_ns: int
    rate: str | None = None
    track: int | None = None

    @classmethod
    def of(cls, path: Path, rate: str | None = None, track: int | None = None) -> Source:
        """Identity of what is at `path`; raises `InputError` when it cannot be read."""
        rate = (rate or DEFAULT_RATE) if is_image_sequence(path) else None
        try:
            return cls(path.resolve(), *fingerprint(path, rate), rate, track)
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}", "check the path and its permissions") from error

    def to_dict(self) -> dict[str, Any]:
        plain = {**asdict(self), "path": str(self.path)}
        return {key: value for key, value in plain.items() if value is not None}


class Project:
    """One clip's folder. `manifest` is what `project.json` holds; `save()` writes it."""

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest
        self._seen: dict[str, tuple[tuple[int, int, int], str]] = {}  # name -> what tells a change, and the digest

    # -- opening

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Project:
        """The project at `path`; raises `UsageError` when there is none, `InputError` when its manifest is broken."""
        path = Path(path)
        if not (path / MANIFEST).is_file():
            check_not_lost(path)
            raise UsageError(f"{path} is not a project", "a project is a folder made by `sg3 align INPUT`")
        return cls(path, read_manifest(path))

    @classmethod
    def of_source(
        cls,
        source: Path,
        path: Path | None,
        stream: Mapping[str, Any],
        rate: str | None = None,
        track: int | None = None,
    ) -> Project:
        """The project of the clip at `source`, made if there is none; `stream` are the clip's facts.

        `rate` is that of images, `track` the number of the video; None: as it was.

        A folder that belongs to another clip is an error, because its codes would be pasted onto the wrong person.
        """
        path = path or default_path(source)
        if (path / MANIFEST).is_file():
            project = cls.open(path)
            project._adopt(Source.of(source, rate or project.rate, project.video_track if track is None else track))
            project.manifest["stream"] |= stream
            return project
        identity = Source.of(source, rate, track)
        if not is_vacant(path):
            check_not_lost(path)
            raise UsageError(f"{path} exists and is not a project", "choose another place with --project PATH")
        manifest = {"schema": SCHEMA, "source": identity.to_dict(), "stream": dict(stream), "stages": {}, "edits": []}
        return cls(path, manifest)

    def _adopt(self, identity: Source) -> None:
        """Check that the clip is the project's own; note where it lies now, and the rate of images."""
        known = self.manifest["source"]
        same = (known["size"], known["sha256"]) == (identity.size, identity.sha256)
        if not same and self.rate and identity.rate:  # perhaps the rate alone is another
            same = Source.of(identity.path, self.rate).sha256 == known["sha256"]
        if not same:
            raise InputError(
                f"{self.path} is the project of another clip ({known['path']})",
                f"give this clip a project of its own: --project {identity.path.stem}-2{SUFFIX}",
            )
        self.manifest["source"] = identity.to_dict()

    @property
    def source_key(self) -> str:
        """What the frames depend on: the source, and how it is read where that has changed since early projects."""
        stream = self.manifest["stream"]
        tone_mapped = stream.get("color", {}).get("transfer") in (PQ, HLG)
        changed = tone_mapped or stream.get("interlaced")
        read = " read 2" if changed else ""
        # Whose frames and times are told apart in another way than early projects had them.
        read = " read 3" if str(stream.get("format", "")).split(",")[0] in RETIMED else read
        return (
            self.manifest["source"]["sha256"]
            + read
            + (f" video {self.video_track}" if self.video_track is not None else "")
        )

    @property
    def rate(self) -> str | None:
        """Frames a second of images, None for a video."""
        rate = self.manifest["source"].get("rate")
        return None if rate is None else str(rate)

    @property
    def video_track(self) -> int | None:
        """Number of the video in a file of several, None: the one that players show."""
        track = self.manifest["source"].get("track")
        return None if track is None else int(track)

    @property
    def reading(self) -> dict[str, Any]:
        """How `VideoReader` and `probe` are to read the clip."""
        return {"rate": self.rate, "track": self.video_track}

    def source(self) -> Path:
        """Where the clip is; raises `InputError` when it is gone or no longer the same file."""
        known = self.manifest["source"]
        path = Path(known["path"])
        if not (is_image_sequence(path) if self.rate else path.is_file()):
            raise InputError(
                f"the clip of {self.path} is no longer at {path}",
                f"give its new place once: sg3 align CLIP --project {self.path}",
            )
        if outside(path) != (known["size"], known["mtime_ns"]):
            identity = Source.of(path, self.rate, self.video_track)
            if identity.sha256 != known["sha256"]:
                hint = f"restore it, or start over: sg3 align {path} --project OTHER{SUFFIX}"
                raise InputError(f"{path} is not the clip that {self.path} was made from", hint)
            self.manifest["source"] = identity.to_dict()
        return path

    # -- manifest

    @property
    def stream(self) -> dict[str, Any]:
        """Facts about the clip: size, rate, frames, colour, audio."""
        return dict(self.manifest["stream"])

    @property
    def edits(self) -> list[Edit]:
        """The edits; `save` after setting them."""
        return [Edit.from_dict(stored) for stored in self.manifest["edits"]]

    @edits.setter
    def edits(self, edits: Sequence[Edit]) -> None:
        self.manifest["edits"] = [edit.to_dict() for edit in edits]

    @property
    def stored_edits(self) -> list[dict[str, Any]]:
        """The edits as plain data: what content keys and records are made of."""
        return list(self.manifest["edits"])

    def remember_edits(self) -> None:
        """Keep the edits as they are for `recall_edits`; the last `UNDO` of them."""
        earlier = [*self.manifest.get("earlier_edits", []), self.stored_edits]
        self.manifest["earlier_edits"] = earlier[-UNDO:]

    def recall_edits(self) -> bool:
        """Take back the last change of the edits; whether there was one."""
        if not (earlier := list(self.manifest.get("earlier_edits", []))):
            return False
        self.manifest["edits"] = earlier.pop()
        self.manifest["earlier_edits"] = earlier
        return True

    def record(self, stage: str) -> StageRecord:
        """What is known of a stage's last finished run."""
        return StageRecord.of(self.manifest["stages"].get(stage, {}))

    # -- results

    @property
    def faces(self) -> list[int]:
        """Numbers of the faces that are edited, as `sg3 faces` counts, in the order of their tracks."""
        return [int(face["face"]) for face in self.record("align").facts.get("faces", [{"face": 0}])]

    def track(self, face: int = 0) -> Track:
        """Where the `face`-th chosen face is, frame by frame. Raises `UsageError` before `align` has run."""
        from sg3cli.faces.alignment import Track

        path = self.result("align", of_face(TRACK, face))
        try:
            return Track.from_arrays(read_arrays(path)[0])
        except KeyError as error:
            raise InputError(f"{path} is damaged: it lacks {error}", f"sg3 align {self.path}") from error

    def tracks(self) -> list[Track]:
        """The tracks of all chosen faces."""
        return [self.track(face) for face in range(len(self.faces))]

    def codes(self, face: int = 0) -> RowFile:
        """Its codes `[T, num_ws, w_dim]` float32, unsmoothed, on disk. Raises `UsageError` before `invert` has run."""
        return RowFile(self.result("invert", of_face(CODES, face)))

    def result(self, stage: str, name: str) -> Path:
        """A file of a stage; `UsageError` before the stage has run, `InputError` when it is not what was written."""
        if name not in self.record(stage).files and not (self.path / name).is_file():
            raise UsageError(f"{self.path} has no results of {stage}", f"sg3 {stage} {self.path}")
        if damage := self.damage(name):
            raise InputError(f"{self.path / name} is {damage}", f"sg3 {stage} {self.path} computes it again")
        return self.path / name

    def seal(self, *names: str) -> None:
        """Note the digests of files as they are now; `save` after it. Those of files that are gone are forgotten."""
        digests = {name: self._digest(name) for name in names}
        known = {n: d for n, d in self.manifest.get(DIGESTS, {}).items() if (self.path / n).is_file()}
        self.manifest[DIGESTS] = {**known, **digests}

    def is_sealed(self, name: str) -> bool:
        """Whether the digest of a file is known."""
        return name in self.manifest.get(DIGESTS, {})

    def damage(self, name: str) -> str:
        """`missing`, `damaged` when it is not what was sealed, or nothing; early projects sealed no files."""
        if not (self.path / name).is_file():
            return "missing"
        known = self.manifest.get(DIGESTS, {}).get(name)
        try:
            return "damaged" if known is not None and known != self._digest(name) else ""
        except OSError:
            return "damaged"

    def _digest(self, name: str) -> str:
        """Digest of a file, read again only when the file has changed."""
        stat = (self.path / name).stat()
        tells = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        if self._seen.get(name, ((), ""))[0] != tells:
            self._seen[name] = (tells, digest_of(self.path / name))
        return self._seen[name][1]

    def key(self, stage: str) -> str:
        """Content key of a finished stage; raises `KeyError` when it has not run."""
        return str(self.manifest["stages"][stage]["key"])

    def is_fresh(self, stage: str, key: str) -> bool:
        """Whether the stage's results on disk are those of `key`, and complete."""
        return self.record(stage).key == key and not self.damages(stage)

    def damages(self, stage: str) -> list[str]:
        """What is wrong with the files of a stage's last run: `align/track.safetensors is damaged`."""
        found = {name: self.damage(name) for name in self.record(stage).files}
        return [f"{self.path / name} is {damage}" for name, damage in found.items() if damage]

    def status(self, stage: str) -> str:
        """`missing`, `done`, or `stale` (something before it has changed since)."""
        record = self.record(stage)
        if not record:
            return "missing"
        for name, key in record.inputs.items():
            if self.record(name).key != key or self.status(name) != "done":
                return "stale"
        if stage == "render" and record.facts.get("edits") != self.manifest["edits"]:
            return "stale"
        return "done"

    def commit(
        self,
        stage: str,
        key: str,
        *,
        params: Mapping[str, Any],
        files: list[str],
        seconds: float,
        inputs: tuple[str, ...] = (),
        models: Mapping[str, str] | None = None,
        **facts: Any,
    ) -> None:
        """Note a finished stage; those after it become stale by their recorded inputs."""
        self.manifest["stages"][stage] = {
            "status": "done",
            "key": key,
            "params": dict(params),
            "inputs": {name: self.key(name) for name in inputs},
            "models": dict(models or {}),
            "files": files,
            "version": __version__,
            "seconds": round(seconds, 3),
            "peak_memory": peak_rss(),  # of the process so far, in bytes
            **facts,
        }
        self.seal(*files)
        self.save()

    def note(self, stage: str, **facts: Any) -> None:
        """Change facts of a stage's last finished run."""
        self.manifest["stages"][stage].update(facts)
        self.save()

    def note_model(self, model: str) -> None:
        """Let the commands that follow take `model`, whose codes are those that the project has."""
        params = self.manifest["stages"]["invert"]["params"]
        if params.get("model") != model:
            params["model"] = model
            self.save()

    def save(self) -> None:
        """Write the manifest."""
        write_manifest(self.path, self.manifest)

    # -- locking

    @contextlib.contextmanager
    def lock(self, command: str) -> Iterator[Project]:
        """Be the only writer. The lock is the operating system's and ends with its process, however that ends."""
        import filelock

        owner_file = self.path / OWNER
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self.path / LOCK, timeout=0)
            lock.acquire()
        except filelock.Timeout as error:
            raise InputError(
                f"{self.path} is being written by {describe_owner(owner_file)}",
                "wait until it ends, or work in another project with --project PATH",
            ) from error
        except OSError as error:
            raise write_error(self.path, error, "choose another place for the project: --project DIR") from error
        try:
            self._refresh()
            owner = {"pid": os.getpid(), "host": platform.node(), "command": command, "since": time.time()}
            write_json(owner_file, owner)
            for pattern in LEFTOVERS:
                for leftover in self.path.rglob(pattern):
                    leftover.unlink(missing_ok=True)
            yield self
        finally:
            with contextlib.suppress(OSError):
                owner_file.unlink(missing_ok=True)
            lock.release()

    def _refresh(self) -> None:
        """Take over what another writer has finished between our opening and our locking."""
        if (self.path / MANIFEST).is_file():
            known = self.manifest["source"]
            self.manifest = Project.open(self.path).manifest
            self._adopt(
                Source(
                    *(Path(known["path"]), known["size"], known["sha256"], known["mtime_ns"]),
                    *(known.get("rate"), known.get("track")),
                )
            )


def describe_owner(owner_file: Path) -> str:
    """`process 123 on host (sg3 invert, since 10:31:05)`, as far as it is known."""
    try:
        owner = json.loads(owner_file.read_text(encoding="utf8"))
        since = time.strftime("%H:%M:%S", time.localtime(owner["since"]))
        return f"process {owner['pid']} on {owner['host']} (sg3 {owner['command']}, since {since})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def is_vacant(path: Path) -> bool:
    """Whether a project can be made there: nothing is there, or what one leaves that was begun and holds nothing yet.

    A process that has the lock but has not finished its first write is such a one; so is one that was killed there.
    """
    if not path.exists():
        return True
    begun = re.compile(rf"{re.escape(LOCK)}|{re.escape(OWNER)}|\.({re.escape(OWNER)}|{re.escape(MANIFEST)})\..*\.tmp")
    return path.is_dir() and all(begun.fullmatch(inside.name) for inside in path.iterdir())


def check_not_lost(path: Path) -> None:
    """Raise `InputError` where a project has been that has lost its manifest."""
    if (path / LOCK).is_file() and not is_vacant(path):
        raise InputError(f"{path / MANIFEST} is missing, without which {path} is no project", how_to_mend(path))


def of_face(name: str, face: int) -> str:
    """Name of a stage's file or folder for the `face`-th face that a project edits; the first has the plain name."""
    path = Path(name)
    return name if face == 0 else str(path.with_name(f"{path.stem}-{face}{path.suffix}"))


def default_path(source: Path) -> Path:
    """`<stem>.sg3` in the folder where the command runs; for images the name of their folder."""
    if source.is_file():
        return Path(source.stem + SUFFIX)
    folder = source.parent if is_pattern(source) and not source.is_dir() else source
    return Path((folder.resolve().name or "frames") + SUFFIX)

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
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sg3cli import __version__
from sg3cli.errors import InputError, UsageError
from sg3cli.files import RowFile, read_arrays, write_error, write_json
from sg3cli.latents.edits import Edit
from sg3cli.video.color import HLG, PQ
from sg3cli.video.image_sequence import DEFAULT_RATE, fingerprint, is_image_sequence, is_pattern, outside

if TYPE_CHECKING:
    from sg3cli.faces.alignment import Track

SCHEMA = 1
SUFFIX = ".sg3"
MANIFEST = "project.json"
RETIMED = ("avi", "mpegts", "mpeg", "mpegvideo")  # containers
LOCK, OWNER = ".lock", ".owner.json"
LEFTOVERS = (".*.tmp", ".tmp??????")  # of a killed writer: `atomic_path`'s, and what safetensors writes before it
STAGES = ("align", "invert", "finetune", "edit", "render")
UNDO = 20  # changes of the edits that can be taken back
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


class Project:
    """One clip's folder. `manifest` is what `project.json` holds; `save()` writes it."""

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest

    # -- opening

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Project:
        """The project at `path`; raises `UsageError` when there is none, `InputError` when its manifest is broken."""
        path = Path(path)
        if not (path / MANIFEST).is_file():
            raise UsageError(f"{path} is not a project", "a project is a folder made by `sg3 align INPUT`")
        try:
            manifest = json.loads((path / MANIFEST).read_text(encoding="utf8"))
            schema = int(manifest["schema"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"the manifest of {path} cannot be read: {error}", "restore project.json") from error
        if schema > SCHEMA:
            raise InputError(f"{path} was made by a newer sg3 (schema {schema})", "update sg3")
        return cls(path, manifest)

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

        return Track.from_arrays(read_arrays(self._result("align", TRACK, face))[0])

    def tracks(self) -> list[Track]:
        """The tracks of all chosen faces."""
        return [self.track(face) for face in range(len(self.faces))]

    def codes(self, face: int = 0) -> RowFile:
        """Its codes `[T, num_ws, w_dim]` float32, unsmoothed, on disk. Raises `UsageError` before `invert` has run."""
        return RowFile(self._result("invert", CODES, face))

    def _result(self, stage: str, name: str, face: int) -> Path:
        path = self.path / of_face(name, face)
        if not path.is_file():
            raise UsageError(f"{self.path} has no results of {stage}", f"sg3 {stage} {self.path}")
        return path

    def key(self, stage: str) -> str:
        """Content key of a finished stage; raises `KeyError` when it has not run."""
        return str(self.manifest["stages"][stage]["key"])

    def is_fresh(self, stage: str, key: str) -> bool:
        """Whether the stage's results on disk are those of `key`, and complete."""
        record = self.record(stage)
        return record.key == key and all((self.path / name).is_file() for name in record.files)

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
            **facts,
        }
        self.save()

    def save(self) -> None:
        """Write the manifest."""
        write_json(self.path / MANIFEST, self.manifest)

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
            raise write_error(self.path, error) from error
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
    begun = re.compile(rf"{re.escape(LOCK)}|\.?{re.escape(OWNER)}(\.\d+\.tmp)?|\.{re.escape(MANIFEST)}\.\d+\.tmp")
    return path.is_dir() and all(begun.fullmatch(inside.name) for inside in path.iterdir())


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

"""What a worker does: one task on a copy of a project, whose result lies in the store when it is done."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from sg3cli import __version__
from sg3cli.console import Console
from sg3cli.errors import ModelError
from sg3cli.latents.edits import Edit
from sg3cli.pipeline import Job
from sg3cli.pipeline.batch import staging
from sg3cli.pipeline.batch.plan import Span
from sg3cli.pipeline.batch.staging import Snapshot
from sg3cli.pipeline.batch.store import Store, blob, open_store, put_file, read_note, write_note
from sg3cli.project import content_key
from sg3cli.settings import Settings
from sg3cli.video import image_sequence
from sg3cli.weights.loaded_nets import LoadedNets

Kind = Literal["whole", "align", "invert", "tune", "render"]
DEPENDS = {"align": ("align",), "invert": ("align", "invert")}  # the keys that count; for the others all do
IDLE = "nothing was computed"  # what a worker says of stages that it was given


@dataclass(frozen=True)
class Task:
    """One task on one clip. `keys` are the content keys that its stages must have, `plan` that of the render.

    `store` is the address of the clip's own part of the shared store. `span` are the frames of a range, `edits` (as
    data) what a whole run sets, `out` the name of the output without its folder. Relative paths of models and other
    files count from the folder `here`.
    """

    kind: Kind
    store: str
    snapshot: Snapshot
    settings: Settings
    keys: Mapping[str, str]
    plan: str = ""
    span: Span | None = None
    edits: tuple[dict[str, Any], ...] | None = None
    out: str = ""
    device: str = "auto"
    pull: bool = False
    here: str = ""

    @property
    def name(self) -> str:
        """Under which the store has its result: the same for the same work."""
        keys = {stage: key for stage, key in self.keys.items() if stage in DEPENDS.get(self.kind, self.keys)}
        parts = {"kind": self.kind, "keys": keys, "plan": self.plan, "span": self.span, "out": self.out}
        made = {"edits": self.edits, "render": self.settings.render, "encode": self.settings.encode}
        return f"tasks/{content_key(version=__version__, **parts, **(made if self.kind == 'whole' else {}))}.json"

    @property
    def title(self) -> str:
        """`render 250-500`."""
        return self.kind if self.span is None else f"{self.kind} {self.span[0]}-{self.span[1]}"


@dataclass(frozen=True)
class Result:
    """What came of a task: the project, or of a range the `files` it adds; `output` are files beside it, by name."""

    manifest: dict[str, Any]
    files: dict[str, str]
    output: dict[str, str]
    stages: dict[str, dict[str, Any]]
    notices: list[str]
    seconds: float
    worker: str


def perform(task: Task, nets: LoadedNets, cache: Path) -> Result:
    """Do a task in a folder of its own; whatever it raises, the store is as it was.

    Raises `ModelError` when this machine's models or program are others than where the batch was started.
    """
    store, began = open_store(task.store), time.monotonic()
    if (done := finished(task, store)) is not None:
        return done
    where = contextlib.chdir(task.here) if Path(task.here).is_dir() else contextlib.nullcontext()
    with where, tempfile.TemporaryDirectory(dir=cache.parent, prefix="task-") as place:
        folder = Path(place)
        project, console = staging.lay_out(task.snapshot, store, folder, cache), Console(quiet=True)
        job = Job(project, task.settings, console, task.pull, task.device, nets)
        with project.lock("batch"):
            check_keys(job, task)
            work = Work(job, task, store, folder)
            files, output = WORK[task.kind](work)
        notices = [notice for notice in console.notices if not notice.endswith(IDLE)]
        result = Result(
            project.manifest, files, output, job.stages, notices, round(time.monotonic() - began, 3), worker_name()
        )
        write_note(store, task.name, asdict(result))
    return result


def finished(task: Task, store: Store) -> Result | None:
    """The result of a task that was done before and is still whole."""
    note = read_note(store, task.name)
    if note is None:
        return None
    result = Result(**note)
    files = [*result.files.values(), *result.output.values()]
    return result if all(store.has(blob(digest)) for digest in files) else None


def check_keys(job: Job, task: Task) -> None:
    """Raise `ModelError` when the stages would be other ones here."""
    here = job.keys()
    if other := [stage for stage, key in task.keys.items() if here.get(stage) != key]:
        what = f"{other[0]} would be another one on {os.uname().nodename}: its models or its sg3 are not the same"
        raise ModelError(what, "all machines need the same version of sg3 and the same models (sg3 models verify)")


def worker_name() -> str:
    """`process 123 on host`."""
    return f"process {os.getpid()} on {os.uname().nodename}"


# ---- the kinds of tasks


@dataclass
class Work:
    """A task that is being done on a locked project in `folder`."""

    job: Job
    task: Task
    store: Store
    folder: Path

    def project_files(self) -> dict[str, str]:
        """Store all finished results of the project."""
        return staging.take(self.job.project, self.store, "").files

    def files_below(self, *folders: str) -> dict[str, str]:
        """Store what lies in these folders of the project."""
        root = self.job.project.path
        found = [path for pattern in folders for path in sorted(root.glob(f"{pattern}/*")) if path.is_file()]
        return {path.relative_to(root).as_posix(): put_file(self.store, path) for path in found}

    @property
    def span(self) -> Span:
        """The frames of the range."""
        assert self.task.span is not None
        return self.task.span


Files = tuple[dict[str, str], dict[str, str]]


def whole(work: Work) -> Files:
    """The chain from begin to end, as `sg3 run` does it, but for the signature."""
    out = f"{work.folder / 'out' / work.task.out.rstrip('/')}{'/' if work.task.out.endswith('/') else ''}"
    Path(image_sequence.output_name(out)).parent.mkdir(parents=True, exist_ok=True)
    edits = None if work.task.edits is None else [Edit.from_dict(dict(edit)) for edit in work.task.edits]
    work.job.run(out, edits)
    made = {path.name: put_file(work.store, path) for path in image_sequence.written(out)}
    return work.project_files(), made


def align(work: Work) -> Files:
    """Where the faces are: tracks run from the first frame to the last, so this is not cut."""
    work.job.align()
    return work.project_files(), {}


def invert(work: Work) -> Files:
    """Codes of a range of frames."""
    from sg3cli.pipeline import invert as stage

    stage.encode_range(work.job, work.job.bundle().origin, work.task.keys["invert"], *work.span)
    return work.files_below(f"{stage.CHUNK_FOLDER}*"), {}


def tune(work: Work) -> Files:
    """All ranges' codes joined, brought closer to the person, the generator tuned, the codes smoothed."""
    from sg3cli.pipeline.invert import smoothed_codes

    job = work.job
    job.finetune() if "finetune" in work.task.keys else job.invert()
    for order, track in enumerate(job.project.tracks()):
        smoothed_codes(job.project, job.bundle(), track, job.smooth(), order, job)
    return work.project_files(), {}


def render(work: Work) -> Files:
    """One chunk of the output."""
    from sg3cli.pipeline import render as stage

    job, plan = work.job, work.job.plan()
    if plan.key != work.task.plan:
        raise ModelError(
            f"the edits would be others on {os.uname().nodename}: a direction or a mask is not the same there",
            "keep what the edits name where all machines see it, under one path",
        )
    stage.run_range(job, plan, str(work.folder / work.task.out), *work.span)
    folder = stage.chunk_folder(job.project, plan.key)
    return work.files_below(folder.relative_to(job.project.path).as_posix()), {}


WORK: Mapping[Kind, Callable[[Work], Files]] = {
    "whole": whole,
    "align": align,
    "invert": invert,
    "tune": tune,
    "render": render,
}

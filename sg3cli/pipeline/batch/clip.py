"""One clip of a batch, from where its project stands to its output: which tasks it needs, and what their results mean.

`steps` is the clip on one page. Each step asks for tasks that can be done at once, by whomever, and is given their
results. Project and output are written here alone, by the same functions that write those of `sg3 run`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sg3cli.files import atomic_path
from sg3cli.latents.edits import Edit
from sg3cli.pipeline import Job, provenance, render
from sg3cli.pipeline.batch import staging
from sg3cli.pipeline.batch.plan import CUT, Cuts, Span, cuts_of
from sg3cli.pipeline.batch.staging import Snapshot
from sg3cli.pipeline.batch.store import get_file, open_store
from sg3cli.pipeline.batch.tasks import Kind, Result, Task
from sg3cli.pipeline.dry_run import outlook
from sg3cli.project import content_key
from sg3cli.video import image_sequence

Steps = Generator[list[Task], list[Result], None]


@dataclass
class BatchClip:
    """A clip's job and what it shall become. `stages` and `seconds` are those of the workers, once they are done."""

    job: Job
    out: str
    edits: Sequence[Edit] | None
    force: bool
    shared: str  # address of the store of the whole batch
    longest: float = CUT  # seconds; longer clips are cut
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        project = self.job.project
        self.address = f"{self.shared}/{content_key(source=project.source_key, project=str(project.path.resolve()))}"
        self.store = open_store(self.address)
        self.keys: dict[str, str] = {}

    def cuts(self) -> Cuts:
        """Where it is cut."""
        resolution = self.job.bundle().origin.config.img_resolution
        return cuts_of(self.job.project.stream, self.job.settings, self.out, resolution, self.longest)

    def steps(self) -> Steps:
        """Yield the tasks of each step and take their results; at the end the output stands."""
        job = self.job
        with job.project.lock("batch"):
            job.check_output(self.out, self.force)
            job.project.save()
            self.keys = job.keys()
            if all(entry.status == "up to date" for entry in outlook(job, "render", self.out, self.edits)):
                job.device = "auto"  # that of the workers need not be here, and nothing is computed
                job.run(self.out, self.edits, self.force)
            else:
                yield from self._cut(cuts) if (cuts := self.cuts()) else self._whole()
                render.clear(job.project)
        kept = {stage: {"status": "up to date", "key": key} for stage, key in self.keys.items()}
        self.stages = {**kept, **job.stages, **self.stages}
        self.store.clear()

    # ---- one task

    def _whole(self) -> Steps:
        sent = self._snapshot()
        edits = None if self.edits is None else tuple(edit.to_dict() for edit in self.edits)
        (result,) = yield [self._task("whole", sent, edits=edits, out=Path(self.out).name + self._slash)]
        self._take(sent, result)
        self._set_edits()
        self._place(result)

    def _place(self, result: Result) -> None:
        """Give the files of a worker their names, and note them as a render does."""
        job, project, out = self.job, self.job.project, self.out
        plan, record = job.plan(), result.manifest["stages"]["render"]
        final = Path(image_sequence.output_name(out)).resolve()
        folder = project.path / provenance.UNFINISHED / "fetched"
        for name, digest in result.output.items():
            get_file(self.store, digest, folder / name)
        provenance.mark_as_ours(project, out, folder / final.name)
        for name in result.output:
            with atomic_path(final.parent / name) as temp:
                shutil.copyfile(folder / name, temp)
        facts = {"params": record["params"], "inputs": tuple(record["inputs"]), "notices": record["notices"]}
        facts |= {"sha256": provenance.write_sidecar(out, plan.record), "signed": None}
        provenance.record(project, out, plan.key, facts, float(record["seconds"]))
        provenance.sign_finished(project, out, plan.record, job.signing(out))

    # ---- ranges

    def _cut(self, cuts: Cuts) -> Steps:
        job, project, keys = self.job, self.job.project, self.keys
        if not project.is_fresh("align", keys["align"]):
            (result,) = yield [self._task("align", sent := self._snapshot())]
            self._take(sent, result)
        if not all(project.is_fresh(stage, keys[stage]) for stage in keys):
            pieces: dict[str, str] = {}
            if not project.is_fresh("invert", keys["invert"]):
                pieces = yield from self._ranges("invert", cuts.invert)
            sent = self._snapshot()
            (result,) = yield [self._task("tune", replace(sent, files={**sent.files, **pieces}))]
            self._take(sent, result)
        self._set_edits()
        plan = job.plan()
        pieces = yield from self._ranges("render", cuts.render, plan=plan.key, out=Path(self.out).name)
        for name, digest in pieces.items():
            get_file(self.store, digest, project.path / name)
        job.write(plan, self.out)
        self.stages["render"] = {**self.stages["render"], "key": plan.key}

    def _ranges(self, kind: Kind, spans: Sequence[Span], **more: Any) -> Generator[list[Task], list[Result], Any]:
        """The files that the tasks of these ranges add to the project, with their digests."""
        sent, began = self._snapshot(), self.seconds
        results = yield [self._task(kind, sent, span=span, **more) for span in spans]
        for result in results:
            self._hear(result)
        self.stages[kind] = {"status": "done", "seconds": round(self.seconds - began, 2), "ranges": len(spans)}
        return {name: digest for result in results for name, digest in result.files.items()}

    # ---- what all have

    @property
    def _slash(self) -> str:
        return "/" if self.out.endswith("/") else ""

    def _task(self, kind: Kind, sent: Snapshot, **more: Any) -> Task:
        job = self.job
        settings = job.settings.having(credentials={"sign": None, "sign_key": None})  # keys stay on this machine
        task = Task(kind, self.address, sent, settings, self.keys, device=job.device, pull=job.pull, here=os.getcwd())
        return replace(task, **more)

    def _snapshot(self) -> Snapshot:
        return staging.take(self.job.project, self.store, self.shared)

    def _take(self, sent: Snapshot, result: Result) -> None:
        """Take over a worker's project."""
        self._hear(result)
        back = Snapshot(result.manifest, result.files)
        staging.install(self.job.project, sent, back, self.store)
        ranges = self.stages.get("invert", {}).get("ranges")
        done = {name: stage for name, stage in result.stages.items() if stage["status"] == "done"}
        self.stages |= done
        if ranges and "invert" in done:
            self.stages["invert"] = {**done["invert"], "ranges": ranges}

    def _hear(self, result: Result) -> None:
        self.seconds += result.seconds
        for notice in result.notices:
            self.job.console.notice(notice)

    def _set_edits(self) -> None:
        """As `Job.run` does it, now that the codes are there."""
        if self.edits is not None:
            self.job.edit(self.edits)
        else:
            self.job.say_edits()

"""The flow on one page: align -> invert -> finetune -> edit -> render, each stage on the project's folder.

A stage's content key is the hash of what it depends on. While the key stays, nothing is computed again. The modules
beside this one do a stage's work between the project and the pure functions of `align`, `invert`, ...; they import
torch and PyAV, so they are imported when a stage runs and not before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from sg3cli import config
from sg3cli.console import Console
from sg3cli.errors import UsageError
from sg3cli.latents.edits import Edit
from sg3cli.pipeline import provenance
from sg3cli.project import Project, content_key
from sg3cli.weights.bundle import Bundle, load_bundle
from sg3cli.weights.direction_file import find_direction, load_direction

DEFAULTS: Mapping[str, Any] = {
    "input": config.InputConfig(),
    "align": config.AlignConfig(),
    "invert": config.InvertConfig(),
    "finetune": config.FinetuneConfig(),
    "render": config.RenderConfig(),
    "encode": config.EncodeConfig(),
}
REVISION = {"align": 2, "invert": 1, "finetune": 1, "render": 2}  # raised when a stage's results change

Result = tuple[list[str], dict[str, Any]]  # files of a stage, relative to the project, and facts for its record


class Job:
    """One command's work on one project, which must be locked.

    `configs` holds a config per stage; `pull` allows downloads of missing models. After a stage has run, `stages`
    says for each whether it was computed or up to date.
    """

    def __init__(
        self,
        project: Project,
        configs: Mapping[str, Any] = DEFAULTS,
        console: Console | None = None,
        pull: bool = False,
        device: str = "auto",
    ) -> None:
        self.project = project
        self.configs = configs
        self.console = console or Console(quiet=True)
        self.pull = pull
        self.device = device
        self.stages: dict[str, dict[str, Any]] = {}
        self.output: str | None = None
        self.facts: dict[str, Any] = {}  # what a command found out beside its stages

    # ---- the stages, each after those it needs

    def align(self) -> None:
        """Source -> `align/track.safetensors`: where the face is, frame by frame."""
        from sg3cli.pipeline import align

        params = self.configs["align"]
        models = align.digests(params, self.pull)
        source = self.project.source_key
        self._run("align", params, (), models, partial(align.run, self, models), source=source)

    def invert(self) -> None:
        """Track -> `invert/ws.npy`, the codes `[T, num_ws, w_dim]`."""
        from sg3cli.pipeline import invert

        bundle = self.bundle()
        params = replace(self.configs["invert"], model=stable_model(self.configs["invert"].model))
        digests = bundle_digests(bundle)  # a model without an encoder is refused before any frame is decoded
        self.align()
        self._run("invert", params, ("align",), digests, partial(invert.run, self, bundle))

    def finetune(self) -> None:
        """Codes -> `finetune/delta.safetensors`, the generator tuned to the person in the clip."""
        from sg3cli.metrics.perceptual import make_perceptual
        from sg3cli.pipeline import finetune

        bundle = self.bundle()
        self.invert()
        loss = make_perceptual(self.configs["finetune"].loss, self.pull)
        params = replace(self.configs["finetune"], loss=loss.name)
        work = partial(finetune.run, self, bundle, loss)
        self._run("finetune", params, ("invert",), bundle_digests(bundle), work, smooth=self.smooth())

    def set_edits(self, edits: Sequence[Edit]) -> None:
        """Replace the project's edits; inverts first if that is not done. Nothing is rendered, nor torch imported."""
        bundle = self.bundle()
        found = {name: self.direction_file(name, bundle) for edit in edits for name in (edit.direction, *edit.preserve)}
        edits = [edit.with_names({name: stable_name(name, bundle) for name in found}) for edit in edits]
        if self.project.status("invert") != "done" or self._beyond_choice(edits):
            self.invert()  # the choice of faces may be another one now
        self._check_fit(edits, found)
        self._check_faces(edits)
        self.project.edits = [edit.to_dict() for edit in edits]
        self.project.save()
        words = [f"{edit.title} = {edit.text}" for edit in edits]
        self.console.notice(f"edit: {', '.join(words) or 'none'}")

    def render(self, out: str, finetune: bool = True) -> None:
        """Everything -> the video at `out` (`-` is stdout), and its provenance beside it."""
        from sg3cli.pipeline import render, render_plan

        self.finetune() if finetune else self.invert()
        self.output = out
        job = render_plan.plan(self, self.bundle(), finetune)
        if provenance.is_current(self.project, out, job.key):
            self.console.notice(f"render: {out} is up to date, nothing was computed")
            self.stages["render"] = {"status": "up to date", "key": job.key}
            render.clear(self.project)  # a kill may have come between the record and this
            return
        began = time.monotonic()
        facts = render.run(self, job, out)
        provenance.record(self.project, out, job.key, facts, time.monotonic() - began)
        render.clear(self.project)
        self.stages["render"] = {"status": "done", "key": job.key, "seconds": round(time.monotonic() - began, 2)}

    # ---- what the stages ask

    def bundle(self) -> Bundle:
        """The model of the inversion; raises `ModelError` when it is not there."""
        return load_bundle(self.configs["invert"].model)

    def smooth(self) -> str:
        """How codes are smoothed: pivots are tuned on what will be rendered."""
        return str(self.configs["render"].smooth)

    def direction_file(self, name: str, bundle: Bundle) -> Path:
        """File of a direction of the model, or the file `name` itself; raises `UsageError` listing those known."""
        return find_direction(name, {known: bundle.direction_path(known) for known in bundle.direction_names()})

    def check_output(self, out: str, force: bool) -> None:
        """Raise before any work when the output could not be written, or would replace what is not ours."""
        provenance.check(self.project, out, self.configs["encode"], force, self.console.as_json)

    # ---- content keys

    def _run(
        self,
        stage: str,
        params: Any,
        inputs: tuple[str, ...],
        models: dict[str, str],
        work: Callable[[str], Result],
        **more: Any,
    ) -> None:
        """Do a stage's work unless its results for the same key are there; note it in the project."""
        if stage in self.stages:
            return
        keyed = {name: value for name, value in asdict(params).items() if name != "model"}  # its digests count
        parts = {"params": keyed, "models": models, "revision": REVISION[stage], **more}
        key = content_key(inputs=[self.project.key(name) for name in inputs], **parts)
        if self.project.is_fresh(stage, key):
            self.console.notice(f"{stage}: up to date, nothing was computed")
            self.stages[stage] = {"status": "up to date", "key": key}
            return
        if self.project.record(stage):
            self.console.notice(f"{stage}: what it depends on has changed, it is computed again")
        self.project.save()
        began = time.monotonic()
        files, facts = work(key)
        seconds = time.monotonic() - began
        self.project.commit(
            stage, key, params={**asdict(params), **more}, inputs=inputs, models=models, files=files,
            seconds=seconds, **facts,
        )  # fmt: skip
        self.stages[stage] = {"status": "done", "key": key, "seconds": round(seconds, 2), **facts}

    def tell(self, stage: str, notices: Sequence[str]) -> None:
        """Say what the reader or writer of a stage found worth saying."""
        for notice in notices:
            self.console.notice(f"{stage}: {notice}")

    def _check_fit(self, edits: Sequence[Edit], files: Mapping[str, Path]) -> None:
        """Raise for a layer or direction that does not belong to the codes' generator, before it is stored."""
        record = self.project.record("invert")
        for edit in edits:
            edit.rows(record["num_ws"])
        for path in files.values():
            load_direction(path).check_fits(record["num_ws"], record["w_dim"], record["models"]["generator"])

    def _beyond_choice(self, edits: Sequence[Edit]) -> list[Edit]:
        """The edits of faces that were not chosen."""
        chosen = {int(face["face"]) for face in self.project.record("align").get("faces", [])}
        return [edit for edit in edits if edit.face is not None and chosen and edit.face not in chosen]

    def _check_faces(self, edits: Sequence[Edit]) -> None:
        """Raise for an edit of a face that was not chosen."""
        for edit in self._beyond_choice(edits):
            chosen = ", ".join(str(face["face"]) for face in self.project.record("align")["faces"])
            what = f"{edit.title}: face {edit.face} is not among those that the project edits: {chosen}"
            raise UsageError(what, f"choose it too: sg3 align {self.project.path} --face all")


def bundle_digests(bundle: Bundle) -> dict[str, str]:
    """What codes depend on: generator and encoder."""
    return {"name": bundle.name, "generator": bundle.digest, "encoder": bundle.encoder_digest}


def stable_model(name: str) -> str:
    """A model folder by its full path; names stay."""
    return str(Path(name).resolve()) if Path(name).is_dir() else name


def stable_name(name: str, bundle: Bundle) -> str:
    """A direction file by its full path, so that the project can be used from elsewhere; names stay."""
    return name if name in bundle.direction_names() else str(Path(name).resolve())

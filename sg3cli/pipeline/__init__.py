"""The flow on one page: align -> invert -> finetune -> edit -> render, each stage on the project's folder.

A stage's content key is the hash of what it depends on. While the key stays, nothing is computed again. The modules
beside this one do a stage's work between the project and the pure functions of `align`, `invert`, ...; they import
torch and PyAV, so they are imported when a stage runs and not before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sg3cli.console import Console
from sg3cli.latents.edits import Edit
from sg3cli.pipeline import credentials, provenance
from sg3cli.project import Project, content_key
from sg3cli.settings import InvertConfig, Settings
from sg3cli.weights.bundle import Bundle, load_model
from sg3cli.weights.loaded_nets import LoadedNets

if TYPE_CHECKING:
    from sg3cli.pipeline.render_plan import Plan

REVISION = {"align": 3, "invert": 2, "finetune": 2, "render": 8}  # raised when a stage's results change

Result = tuple[list[str], dict[str, Any]]  # files of a stage, relative to the project, and facts for its record


@dataclass(frozen=True)
class StageParts:
    """What a stage's result depends on: its settings, the stages before it, the models' digests, and what `more`."""

    params: Any
    inputs: tuple[str, ...]
    models: dict[str, str]
    extra: dict[str, Any]


class Job:
    """One command's work on one project, which must be locked.

    `pull` allows downloads of missing models; `nets` holds the networks that earlier jobs of a batch have read. After a
    stage has run, `stages` says for each whether it was computed or up to date.
    """

    def __init__(
        self,
        project: Project,
        settings: Settings | None = None,
        console: Console | None = None,
        pull: bool = False,
        device: str = "auto",
        nets: LoadedNets | None = None,
    ) -> None:
        self.project = project
        self.settings = settings or Settings()
        self.console = console or Console(quiet=True)
        self.pull = pull
        self.device = device
        self.nets = nets or LoadedNets()
        self.stages: dict[str, dict[str, Any]] = {}
        self._signings: dict[str, credentials.Signing | None] = {}  # of each output

    def run(self, out: str, edits: Sequence[Edit] | None = None, force: bool = False) -> None:
        """The whole chain to the video at `out`; `edits` replace those of the project, None leaves them."""
        self.check_output(out, force)
        self.check_device()
        self.align()  # before anything is stored: a choice of faces that the clip does not have changes nothing
        self.check_mask()
        if edits is not None:
            self.edit(edits)
        else:
            self.say_edits()
        self.render(out)

    # ---- the stages, each after those it needs

    def align(self) -> None:
        """Source -> `align/track.safetensors`: where the face is, frame by frame."""
        from sg3cli.pipeline import align
        from sg3cli.pipeline.edit import warn_outside

        if "align" in self.stages:
            return
        parts = self.parts("align")
        self._run("align", parts, partial(align.run, self, parts.models))
        if self.settings.render.range:
            warn_outside(self, self.settings.render.range)

    def invert(self) -> None:
        """Track -> `invert/ws.npy`, the codes `[T, num_ws, w_dim]`."""
        from sg3cli.pipeline import invert

        parts = self.parts("invert")  # a model without an encoder is refused before any frame is decoded
        self.align()
        self._run("invert", parts, partial(invert.run, self, self.bundle().origin))

    def finetune(self) -> None:
        """Codes -> `finetune/delta.safetensors`, the generator tuned to the person in the clip."""
        from sg3cli.metrics.perceptual import make_perceptual
        from sg3cli.pipeline import finetune

        self.invert()
        loss = make_perceptual(self.settings.finetune.loss, self.pull)
        self._run(
            "finetune", self.parts("finetune", loss.name), partial(finetune.run, self, self.bundle().origin, loss)
        )

    def edit(self, edits: Sequence[Edit], onto: Sequence[Edit] = ()) -> None:
        """Edits -> the manifest, in the place of those that the project has; inverts first if that is not done.

        Each of them replaces the one of its direction and face among those of `onto`, which stay otherwise.
        """
        from sg3cli.pipeline import edit

        edit.run(self, edits, onto)

    def render(self, out: str) -> None:
        """Everything -> the video at `out` (`-` is stdout), and its provenance beside it.

        No tuning steps: the model's own generator draws the face, whether the project holds a tuned one or not.
        """
        from sg3cli.pipeline import render

        self.check_mask()
        self.finetune() if self.settings.finetune.steps > 0 else self.invert()
        plan = self.plan()
        if provenance.is_current(self.project, out, plan.key):
            self.console.notice(f"render: {out} is up to date, nothing was computed")
            self.stages["render"] = {"status": "up to date", "key": plan.key}
            provenance.sign_finished(self.project, out, plan.record, self.signing(out))
            render.clear(self.project)  # a kill may have come between the record and this
            return
        self.write(plan, out)

    def plan(self) -> Plan:
        """What a render depends on; the stages before it must have run."""
        from sg3cli.pipeline import render_plan

        return render_plan.plan(self, self.bundle(), self.settings.finetune.steps > 0)

    def write(self, plan: Plan, out: str) -> None:
        """Render what is planned to `out`, whatever is there, and note it."""
        from sg3cli.pipeline import render

        began = time.monotonic()
        facts = render.run(self, plan, out)
        if out != "-":
            self.console.notice(f"render: {out} is written")
        provenance.record(self.project, out, plan.key, facts, time.monotonic() - began)
        render.clear(self.project)
        self.stages["render"] = {"status": "done", "key": plan.key, "seconds": round(time.monotonic() - began, 2)}

    # ---- what the stages ask

    def bundle(self) -> Bundle:
        """The model that draws; raises `ModelError` when it is not there.

        Codes are found and the person is tuned on its `origin`: an adapted model takes those of its parent.
        """
        return load_model(self.settings.invert.model)

    def smooth(self) -> str:
        """How codes are smoothed: pivots are tuned on what will be rendered."""
        return str(self.settings.render.smooth)

    def say_edits(self) -> None:
        """Which edits the project brings, where the caller gave none."""
        words = ", ".join(edit.describe() for edit in self.project.edits)
        look = f"as {self.bundle().name} draws it" if self.bundle().is_adapted else "as it is"
        self.console.notice(f"edit: {words}, as the project has it" if words else f"edit: none, the face stays {look}")

    def check_device(self) -> None:
        """Raise before any work when the device cannot be had; torch is asked only about CUDA."""
        if self.device not in ("auto", "cpu"):
            from sg3cli.pipeline.device import choose_device

            choose_device(self.device, self.console)

    def check_output(self, out: str, force: bool) -> None:
        """Raise before any work when the output could not be written, or would replace what is not ours."""
        provenance.check(self.project, out, self.settings.encode, force, self.console.as_json)
        self.signing(out)

    def check_mask(self) -> None:
        """Raise before faces are inverted when the user's mask does not fit the source; aligns first."""
        if self.settings.render.mask is not None:
            from sg3cli.pipeline.paste_inputs import user_mask

            self.align()
            if (mask := user_mask(self, len(self.project.tracks()[0].pts))) is not None:
                mask.close()

    def signing(self, out: str) -> credentials.Signing | None:
        """What signs the output, None if nothing does; raises `UsageError` for a certificate that cannot sign.

        What is to be known of it is said once.
        """
        if out not in self._signings:
            made = credentials.signing_of(self.project, self.settings, out)
            unsigned = credentials.unsigned_notice(self.settings, out)
            self.report("render", [*made.notices()] if made else [unsigned] if unsigned else [])
            self._signings[out] = made
        return self._signings[out]

    # ---- content keys

    def parts(self, stage: str, loss: Any = None) -> StageParts:
        """What a stage's result depends on beside the stages before it; raises for a model that is not there.

        `loss` is the name of the tuning's perceptual loss, None: the one that would be taken.
        """
        if stage == "align":
            from sg3cli.pipeline import align

            models = align.digests(self.settings.align, self.pull)
            return StageParts(self.settings.align, (), models, {"source": self.project.source_key})
        digests = bundle_digests(self.bundle().origin)
        if stage == "invert":
            params = replace(self.settings.invert, model=stable_model(self.settings.invert.model))
            named = None if params.steps else self.bundle().origin.restyle_steps
            more = {"steps": named} if named else {}
            if not (params.refine or params.likeness):
                return StageParts(params, ("align",), digests, more)
        from sg3cli.metrics.perceptual import make_perceptual

        if stage == "invert":
            return StageParts(params, ("align",), digests, {"loss": make_perceptual("auto", self.pull).name, **more})
        loss = loss or make_perceptual(self.settings.finetune.loss, self.pull).name
        if self.settings.finetune.keep:  # what the directions do is part of the result
            digests = {**digests, "directions": self.bundle().directions_digest}
        return StageParts(replace(self.settings.finetune, loss=loss), ("invert",), digests, {"smooth": self.smooth()})

    def inversion(self) -> InvertConfig:
        """The settings of `invert`, with as many steps as the model needs where none are asked for."""
        config = self.settings.invert
        return replace(config, steps=config.steps or self.bundle().origin.restyle_steps)

    def key(self, stage: str, parts: StageParts, before: Mapping[str, str] | None = None) -> str:
        """Content key of a stage; raises `KeyError` when one before it has not run.

        `before`: the keys that those before it will have, instead of those that they have.
        """
        keyed = {name: value for name, value in asdict(parts.params).items() if name != "model"}  # its digests count
        for optional in ("refine", "likeness"):
            if not keyed.get(optional):  # an inversion without it is what it was before there was one
                keyed = {name: value for name, value in keyed.items() if not name.startswith(optional)}
        depends = {"params": keyed, "models": parts.models, "revision": REVISION[stage], **parts.extra}
        key_of = self.project.key if before is None else before.__getitem__
        return content_key(inputs=[key_of(name) for name in parts.inputs], **depends)

    def keys(self) -> dict[str, str]:
        """The content keys that the stages before the render will have, whether they have run or not."""
        found: dict[str, str] = {}
        for stage in ("align", "invert", *(["finetune"] if self.settings.finetune.steps > 0 else [])):
            found[stage] = self.key(stage, self.parts(stage), found)
        return found

    def _run(self, stage: str, parts: StageParts, work: Callable[[str], Result]) -> None:
        """Do a stage's work unless its results for the same key are there; note it in the project."""
        if stage in self.stages:
            return
        key = self.key(stage, parts)
        if self.project.is_fresh(stage, key):
            self.console.notice(f"{stage}: up to date, nothing was computed")
            self.stages[stage] = {"status": "up to date", "key": key}
            if stage == "invert":  # a model and what was adapted from it have the same codes
                self.project.note_model(parts.params.model)
            return
        if before := self.project.record(stage):
            model, cost = parts.models.get("name"), f"it took {before.seconds:.0f} s before"
            changed = f"the model {model} is another one now" if model and dict(before.models) != parts.models else ""
            reason = changed or "what it depends on has changed"
            if before.key == key:
                reason = ", ".join(self.project.damages(stage))
            self.console.notice(f"{stage}: {reason}, it is computed again ({cost})")
        self.project.save()
        began = time.monotonic()
        files, facts = work(key)
        seconds = time.monotonic() - began
        self.project.commit(
            stage, key, params={**asdict(parts.params), **parts.extra}, inputs=parts.inputs, models=parts.models,
            files=files, seconds=seconds, **facts,
        )  # fmt: skip
        self.stages[stage] = {"status": "done", "key": key, "seconds": round(seconds, 2), **facts}

    def report_damage(self, stage: str, damaged: Sequence[Path]) -> None:
        """Say which kept results were dropped because they are not what was written."""
        for path in damaged:
            self.console.notice(f"{stage}: {path} is damaged, it is computed again")

    def report(self, stage: str, notices: Sequence[str]) -> None:
        """Say what the reader or writer of a stage found worth saying."""
        for notice in notices:
            self.console.notice(f"{stage}: {notice}")


def bundle_digests(bundle: Bundle) -> dict[str, str]:
    """What codes depend on: generator and encoder."""
    return {"name": bundle.name, "generator": bundle.digest, "encoder": bundle.encoder_digest}


def stable_model(name: str) -> str:
    """A model folder by its full path; names stay."""
    return str(Path(name).resolve()) if Path(name).is_dir() else name

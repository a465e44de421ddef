"""All that a render depends on, gathered before its first frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sg3cli.errors import UsageError
from sg3cli.faces.alignment import Track
from sg3cli.latents.codes import CodeRows
from sg3cli.latents.edits import Edit, edits_of
from sg3cli.pipeline import provenance
from sg3cli.pipeline.face_crops import FaceEdits
from sg3cli.pipeline.face_paster import mask_digest
from sg3cli.pipeline.load_edits import load_edits, wants_network
from sg3cli.project import content_key
from sg3cli.weights.bundle import Bundle

if TYPE_CHECKING:
    from sg3cli.pipeline import Job


@dataclass(frozen=True)
class Plan:
    """All that a render depends on; `key` is its content key, `record` its provenance."""

    key: str
    inputs: str  # key of what the edited faces are made from
    edits: list[Edit]  # with what they do
    bundle: Bundle
    tuned: bool
    record: dict[str, Any]

    def of_face(self, track: Track, codes: CodeRows, number: int = 0, order: int = 0) -> FaceEdits:
        """What the plan does to one face: those of its edits that change the face `number`."""
        return FaceEdits(track, codes, edits_of(self.edits, number), number, order, self.bundle.is_adapted)


def plan(job: Job, bundle: Bundle, tuned: bool) -> Plan:
    """Read the edits and their directions; raises when one is unknown or belongs to another generator."""
    project, config = job.project, job.settings.render
    if config.range is not None and config.view == "face":
        raise UsageError("--range passes frames through, and --view face shows none", "use --view frame or compare")
    loaded, invert = load_edits(project.edits, bundle, job.nets), project.record("invert")
    job.report("render", loaded.notices)
    digests = loaded.digests
    last = "finetune" if tuned else "invert"
    adapted = {"name": bundle.name, "generator": bundle.digest} if bundle.is_adapted else None
    drawn = {"inputs": project.key(last), "edits": project.stored_edits, "directions": digests}
    if adapted is not None:  # what draws the edited faces; without one the keys are what they were before there was any
        drawn["adapted"] = adapted["generator"]
    made_from = content_key(**drawn)
    parts = {"render": config, "encode": job.settings.encode, "tuned": tuned, "mask": mask_digest(config)}
    transfer = bundle.transfer_digest if wants_network(config.transfer, bundle, loaded.edits) else None
    parts["transfer"] = transfer
    parts["smile"] = smile = bundle.smile_digest if config.transfer not in ("paste", "draw") else None
    key = content_key(**drawn, **parts)
    models = {
        **invert.models,
        "tuned": project.key("finetune") if tuned else None,
        "directions": digests,
        "transfer": transfer,
        **({} if smile is None else {"smile": smile}),
        **({} if adapted is None else {"adapted": adapted}),
    }
    record = provenance.provenance(project, project.stored_edits, models)
    return Plan(key, made_from, loaded.edits, bundle, tuned, record)

"""All that a render depends on, gathered before its first frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sg3cli.errors import UsageError
from sg3cli.faces.alignment import Track
from sg3cli.files import RowFile, digest_of
from sg3cli.latents.edits import Edit, edits_of
from sg3cli.latents.projection import condition
from sg3cli.pipeline import provenance
from sg3cli.pipeline.face_crops import FaceEdits
from sg3cli.pipeline.face_paster import mask_digest
from sg3cli.project import content_key
from sg3cli.weights.bundle import Bundle
from sg3cli.weights.direction_file import load_direction

if TYPE_CHECKING:
    from sg3cli.pipeline import Job


@dataclass(frozen=True)
class Plan:
    """All that a render depends on; `key` is its content key, `record` its provenance."""

    key: str
    inputs: str  # key of what the edited faces are made from
    edits: list[Edit]
    directions: dict[str, np.ndarray]  # title of an edit -> [num_ws, w_dim] or [1, w_dim]
    bundle: Bundle
    tuned: bool
    record: dict[str, Any]

    def of_face(self, track: Track, codes: RowFile, number: int = 0, order: int = 0) -> FaceEdits:
        """What the plan does to one face: those of its edits that change the face `number`."""
        return FaceEdits(track, codes, edits_of(self.edits, number), self.directions, number, order)


def plan(job: Job, bundle: Bundle, tuned: bool) -> Plan:
    """Read the edits and their directions; raises when one is unknown or belongs to another generator."""
    project, config = job.project, job.settings.render
    if config.range is not None and config.view == "face":
        raise UsageError("--range passes frames through, and --view face shows none", "use --view frame or compare")
    edits = project.edits
    names = sorted({name for edit in edits for name in edit.names})
    files = {name: job.direction_file(name, bundle) for name in names}
    digests = {name: digest_of(path) for name, path in files.items()}
    loaded = {name: load_direction(path) for name, path in files.items()}
    invert = project.record("invert")
    for direction in loaded.values():
        direction.check_fits(invert.facts["num_ws"], invert.facts["w_dim"], bundle.digest)
    last = "finetune" if tuned else "invert"
    made_from = content_key(inputs=project.key(last), edits=project.stored_edits, directions=digests)
    parts = {"render": config, "encode": job.settings.encode, "tuned": tuned, "mask": mask_digest(config)}
    transfer = bundle.transfer_digest if config.transfer in ("auto", "learned") else None
    parts["transfer"] = transfer
    key = content_key(inputs=project.key(last), edits=project.stored_edits, directions=digests, **parts)
    models = {
        **invert.models,
        "tuned": project.key("finetune") if tuned else None,
        "directions": digests,
        "transfer": transfer,
    }
    vectors = {edit.title: conditioned(edit, {name: d.vector for name, d in loaded.items()}) for edit in edits}
    return Plan(
        key, made_from, edits, vectors, bundle, tuned, provenance.provenance(project, project.stored_edits, models)
    )


def conditioned(edit: Edit, vectors: dict[str, np.ndarray]) -> np.ndarray:
    """The edit's direction with what it must preserve projected out."""
    kept = [vectors[name] for name in edit.preserve]
    return condition(vectors[edit.direction], kept) if kept else vectors[edit.direction]

"""The generator of `--stitch tune`: made, continued, or found in the project."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from sg3cli.compositing.seam_tuning import SeamTargets, SeamTuner, seam_target
from sg3cli.faces.alignment import ABSENT
from sg3cli.geometry import warp_quad
from sg3cli.latents.pivotal_tuning import apply_delta, select_targets
from sg3cli.nets.generator import Generator
from sg3cli.pipeline.face_crops import FaceEdits
from sg3cli.pipeline.face_paster import FacePaster
from sg3cli.pipeline.finetune import load_tensors, restore, save_tensors
from sg3cli.project import content_key, of_face
from sg3cli.settings import FinetuneConfig
from sg3cli.video import VideoReader

if TYPE_CHECKING:
    from sg3cli.pipeline import Job

SEAM = "stitch/seam.safetensors"
SEAM_CHECKPOINT = "stitch/seam-checkpoint.safetensors"
REVISION = 1  # raised when masks or seams of the same settings come out differently


Pair = tuple[Generator, Generator | None]  # what draws the face without edits, and with them if that is another one


def seam_generator(job: Job, face: FaceEdits, paster: FacePaster, pair: Pair, inputs: str) -> Generator | None:
    """With `--stitch tune`, a copy of what draws the edited faces that lets them meet the frame at the mask's edge.

    What tuning has changed is kept in the project.
    """
    config = paster.config
    seam, checkpoint = (job.project.path / of_face(name, face.order) for name in (SEAM, SEAM_CHECKPOINT))
    if config.stitch != "tune":
        return None
    tuning = replace(job.settings.finetune, steps=config.stitch_steps)
    settings: dict[str, Any] = {
        "detail": config.detail,
        "feather": config.feather,
        "threshold": config.stitch_threshold,
    }
    settings |= {"mask_mode": config.mask_mode if config.mask else None, "smooth": job.smooth(), "revision": REVISION}
    settings |= {"precision": config.precision}
    key = content_key(inputs=inputs, tuning=tuning, **settings)
    result = copy.deepcopy(pair[1] or pair[0])
    if (kept := load_tensors(job, seam, key)) is not None:
        apply_delta(result, kept[0])
        return result
    tuner = seam_tuner(job, face, paster, pair, tuning)
    restore(job, tuner, checkpoint, key)
    last = None
    for last in job.console.progress(tuner.run(), config.stitch_steps, "render: seam", tuner.step):
        if last.step % tuning.save_every == 0:
            save_tensors(checkpoint, tuner.state(), {"key": key, "log": []})
    save_tensors(seam, tuner.delta(), {"key": key})
    checkpoint.unlink(missing_ok=True)
    if last is not None:
        job.console.notice(f"render: the seam was tuned in {last.step} steps to a squared error of {last.l2:.4f}")
    apply_delta(result, tuner.delta())  # what a later run gets from the file, to the bit
    return result


def seam_tuner(job: Job, face: FaceEdits, paster: FacePaster, pair: Pair, tuning: FinetuneConfig) -> SeamTuner:
    """A tuner on the edited codes of the frames that show the face, or of as many as memory allows."""
    G, by = pair[0], pair[1] or pair[0]
    track, config, size = paster.track, paster.config, G.img_resolution
    square = replace(paster, config=replace(config, expand=None))  # beyond the square nothing was tuned, nor is it now
    chosen = select_targets(track.status != ABSENT, size)
    images = np.empty((len(chosen), size, size, 3), np.uint8)
    masks = np.empty((len(chosen), size, size), np.uint8)
    rows = {int(index): row for row, index in enumerate(chosen)}
    with VideoReader(job.project.source(), **job.project.reading) as reader:
        frames = job.console.progress(reader.frames(), len(track.pts), "render: reading")
        wanted = (frame for frame in frames if frame.index in rows)
        while part := list(islice(wanted, config.batch)):
            for frame, (before, after) in zip(part, face.pairs(part, G, by, config), strict=True):
                source = warp_quad(frame.rgb, track.windows[frame.index], size)
                row = rows[frame.index]
                images[row], masks[row] = seam_target(after, before, source, square.opacity(frame.index), config.detail)
    targets = SeamTargets(images, np.arange(len(chosen)), masks)
    tuner = SeamTuner(by, face.edited_codes(chosen), track.transforms[chosen], targets, tuning, config.stitch_threshold)
    tuner.G.synthesis.set_precision("fp32")
    return tuner

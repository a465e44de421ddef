"""The finetune stage: pivotal tuning on the clip's crops, with checkpoints."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sg3cli.errors import InputError, ModelError
from sg3cli.faces.alignment import ABSENT
from sg3cli.faces.crops import window_crops
from sg3cli.files import SAVE_SECONDS, atomic_path, read_arrays, write_arrays
from sg3cli.latents.codes import joined
from sg3cli.latents.pivotal_tuning import (
    TARGET_BYTES,
    PivotalTuner,
    Targets,
    TuneStep,
    apply_delta,
    collect_targets,
    select_targets,
)
from sg3cli.metrics.perceptual import PerceptualLoss
from sg3cli.nets.generator import Generator
from sg3cli.pipeline.device import choose_device
from sg3cli.pipeline.invert import smoothed_codes
from sg3cli.project import Project
from sg3cli.video import VideoReader
from sg3cli.weights.bundle import Bundle
from sg3cli.weights.loaded_nets import LoadedNets

if TYPE_CHECKING:
    from sg3cli.pipeline import Job, Result

DELTA = "finetune/delta.safetensors"
LOG = "finetune/log.jsonl"
CHECKPOINT = "finetune/checkpoint.safetensors"


def run(job: Job, bundle: Bundle, loss: PerceptualLoss, key: str) -> Result:
    """Tune, from the last checkpoint of this key if there is one; returns the stage's files and facts."""
    project, config = job.project, job.settings.finetune
    if config.loss == "auto" and loss.name == "structural":
        fetch = "sg3 models pull perceptual brings a better one"
        job.console.notice(f"finetune: no perceptual backbone is here ({fetch}), the structural loss is used")
    tuner = make_tuner(job, bundle, loss)
    log = restore(job, tuner, project.path / CHECKPOINT, key)
    saved = time.monotonic()
    for step in job.console.progress(tuner.run(), config.steps, "finetune", tuner.step):
        log.append(asdict(step))
        if step.step % config.save_every == 0 or time.monotonic() - saved > SAVE_SECONDS:
            save_tensors(project.path / CHECKPOINT, tuner.state(), {"key": key, "log": log})
            saved = time.monotonic()
    save_tensors(project.path / DELTA, tuner.delta(), {"key": key, "generator": bundle.digest})
    with atomic_path(project.path / LOG) as temp:
        temp.write_text("".join(json.dumps(line) + "\n" for line in log), encoding="utf8")
    (project.path / CHECKPOINT).unlink(missing_ok=True)
    return [DELTA, LOG], {"steps": len(log), "perceptual": loss.name, "last": log[-1] if log else {}}


def make_tuner(job: Job, bundle: Bundle, loss: PerceptualLoss) -> PivotalTuner:
    """A tuner on the smoothed codes and the window crops of the frames that show the chosen faces, all together."""
    project, tracks = job.project, job.project.tracks()
    G = job.nets.generator(bundle).to(choose_device(job.device, job.console))
    crops_of_face, pivots, transforms = [], [], []
    for face, track in enumerate(tracks):
        frames = select_targets(track.status != ABSENT, G.img_resolution, TARGET_BYTES // len(tracks))
        with VideoReader(project.source(), **project.reading) as reader:
            crops = window_crops(reader.frames(), track, G.img_resolution)
            seen = collect_targets(job.console.progress(crops, len(track.pts), "finetune: reading"), frames)
        codes = smoothed_codes(project, bundle, track, job.smooth(), face, job)
        crops_of_face.append(seen.images)
        pivots.append(codes.take(frames))
        transforms.append(track.transforms[frames])
    images = np.concatenate(crops_of_face) if len(crops_of_face) > 1 else crops_of_face[0]
    numbered = Targets(images, np.arange(len(images)))
    turns = np.concatenate(transforms)
    config = job.settings.finetune
    kept = kept_directions(bundle) if config.keep else None
    return PivotalTuner(G, joined(pivots), turns, numbered, config, loss, kept)


def kept_directions(bundle: Bundle) -> np.ndarray | None:
    """`[K, num_ws, w_dim]`: the model's directions, which tuning shall leave as they are; None without any."""
    config = bundle.config
    vectors = (bundle.directions[name].vector for name in bundle.direction_names())
    shape = (config.num_ws, config.w_dim)
    found = [np.broadcast_to(vector, shape) for vector in vectors if vector.shape[-1] == config.w_dim]
    return np.stack(found) if found else None


def restore(job: Job, tuner: PivotalTuner, path: Path, key: str) -> list[dict[str, Any]]:
    """Continue from a checkpoint of this key; returns the log so far (empty without one)."""
    kept = load_tensors(job, path, key)
    if kept is None:
        return []
    tensors, meta = kept
    tuner.restore(tensors)
    return [asdict(TuneStep(**line)) for line in meta["log"]]  # in the order of the fields, as a new log is


def save_tensors(path: Path, tensors: dict[str, torch.Tensor], meta: dict[str, Any]) -> None:
    """Tensors as safetensors, atomically; see `write_arrays`."""
    write_arrays(path, {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}, meta)


def load_tensors(job: Job, path: Path, key: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """What `save_tensors` kept for this key; None when nothing was, or (said in a notice) when it is damaged."""
    if not path.is_file():
        return None
    try:
        arrays, meta = read_arrays(path)
    except InputError:
        job.report_damage("finetune" if path.parent.name == "finetune" else "render", [path])
        return None
    return (to_tensors(arrays), meta) if meta.get("key") == key else None


def to_tensors(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Arrays that nobody else holds, as tensors."""
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def tuned_generator(project: Project, bundle: Bundle, tuned: bool, nets: LoadedNets | None = None) -> Generator:
    """The model's generator with the clip's tuning; raises `ModelError` when that was made on another generator.

    An adapted generator gets what its parent's tuning has changed.
    """
    G = (nets or LoadedNets()).generator(bundle)
    if tuned:
        arrays, meta = read_arrays(project.result("finetune", DELTA))
        if meta.get("generator") != bundle.origin.digest:
            raise ModelError(f"the tuning in {project.path} belongs to another generator", "run `sg3 finetune`")
        apply_delta(G, to_tensors(arrays))
    return G

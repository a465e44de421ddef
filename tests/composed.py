"""Frames as a render composes them, before they are encoded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sg3cli.latents.edits import parse_edit
from sg3cli.pipeline import Job, face_crops, paste_inputs, render, render_plan
from sg3cli.pipeline.finetune import tuned_generator
from sg3cli.pipeline.invert import smoothed_codes
from sg3cli.project import Project
from sg3cli.settings import Settings
from sg3cli.video import VideoReader


def inverted_project(folder: Path, clip: Path, bundle: Path) -> Project:
    """A project with codes and one edit."""
    project = Project.of_source(clip, folder / "talk.sg3", {})
    Job(project, settings(bundle)).invert()
    project.edits = [parse_edit("age=3")]
    project.save()
    return project


def settings(bundle: Path, **changes: Any) -> Settings:
    """The settings of a render with the tiny model."""
    few = {"batch": 2, "save_every": 2}
    return Settings().having(invert={"model": str(bundle), "likeness": 0}, finetune=few, render=changes)


def composed(project: Project, bundle: Path, **changes: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(source, result) of every frame as a render makes them, before encoding."""
    job = Job(project, settings(bundle, **changes))
    config, track = job.settings.render, project.track()
    plan = render_plan.plan(job, job.bundle(), False)
    G = tuned_generator(project, plan.bundle.origin, False)
    adapted = tuned_generator(project, plan.bundle, False) if plan.bundle.is_adapted else None
    codes = smoothed_codes(project, plan.bundle, track, config.smooth)
    face = plan.of_face(face_crops.with_smooth_landmarks(track), codes)
    generator = project.key("invert")
    inputs = paste_inputs.prepare(job, face, G, (generator, plan.inputs), adapted)
    with VideoReader(project.source()) as reader:
        frames = list(reader)
    results = render.compose(iter(frames), plan.of_face(track, codes), G, config, inputs)
    yield from ((frame.rgb, result.rgb) for frame, result in zip(frames, results, strict=True))

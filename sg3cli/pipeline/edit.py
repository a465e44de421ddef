"""The edit stage: a project's edits, checked against its model and its faces, and stored as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sg3cli.errors import UsageError
from sg3cli.latents.edits import Edit, with_edits
from sg3cli.pipeline.load_edits import check_edits
from sg3cli.project import Project
from sg3cli.time_ranges import parse_ranges
from sg3cli.weights.bundle import Bundle
from sg3cli.weights.direction_file import Direction

if TYPE_CHECKING:
    from sg3cli.pipeline import Job


def run(job: Job, edits: Sequence[Edit], onto: Sequence[Edit] = ()) -> None:
    """Replace the project's edits by those of `onto` and `edits`; inverts first if that is not done.

    Nothing is rendered, nor torch imported.
    """
    bundle, project = job.bundle(), job.project
    named = [edit.with_names({name: stable_name(name, bundle) for name in edit.names}) for edit in edits]
    check_edits(edits, bundle)  # an unknown one is named as it was written
    edits = with_edits(onto, named)
    found = check_edits(edits, bundle)
    if project.status("invert") != "done" or beyond_choice(project, edits):
        job.align()  # the choice of faces may be another one now
        check_faces(project, edits)
        job.invert()
    warn_beyond_range(job, edits, found)
    warn_beyond_clip(job, edits)
    if [edit.to_dict() for edit in edits] != project.stored_edits:
        project.remember_edits()
    project.edits = list(edits)
    project.save()
    words = [f"{edit.title} = {edit.text}" for edit in edits]
    job.console.notice(f"edit: {', '.join(words) or 'none'}")


def beyond_choice(project: Project, edits: Sequence[Edit]) -> list[Edit]:
    """The edits of faces that were not chosen."""
    chosen = {int(face["face"]) for face in project.record("align").facts.get("faces", [])}
    return [edit for edit in edits if edit.face is not None and chosen and edit.face not in chosen]


def check_faces(project: Project, edits: Sequence[Edit]) -> None:
    """Raise for an edit of a face that was not chosen."""
    for edit in beyond_choice(project, edits):
        assert edit.face is not None
        people = int(project.record("align").facts.get("people", 1))
        what = f"{edit.title}: face {edit.face} is not among those that the project edits: "
        hint = f"choose it too: sg3 align {project.path} --face all"
        if edit.face >= people:
            hint = f"the clip shows {people} {'person' if people == 1 else 'people'}: sg3 faces {project.path}"
        raise UsageError(what + ", ".join(map(str, project.faces)), hint)


def warn_outside(job: Job, text: str) -> None:
    """Say when ranges all lie beyond the end of the clip, which must be aligned."""
    times = job.project.track().times
    if all(start > times[-1] for start, _ in parse_ranges(text)):
        what = f"{text} lies beyond the clip, whose last frame is at {times[-1]:.2f} s"
        job.console.notice(f"--range: {what}: nothing of it is edited")


def warn_beyond_clip(job: Job, edits: Sequence[Edit]) -> None:
    """Say which edits do nothing while the clip lasts."""
    times = job.project.track().times
    for edit in edits:
        if not edit.is_zero and not edit.strength_at(times).any():
            what = f"{edit.title} = {edit.text} does nothing while the clip lasts"
            job.console.notice(f"edit: {what}, whose last frame is at {times[-1]:.2f} s")


def warn_beyond_range(job: Job, edits: Sequence[Edit], directions: Mapping[str, Direction]) -> None:
    """Say when a strength is far outside of what its direction was fitted on."""
    for edit in edits:
        known = directions[edit.direction].range if edit.direction in directions else None
        strengths = [key.strength for key in edit.keyframes]
        if known is not None and (min(strengths) < known[0] or max(strengths) > known[1]):
            job.console.notice(
                f"edit: {edit.title} = {edit.text} is beyond {known[0]:g}..{known[1]:g}, where the direction holds: "
                "expect damage to the face"
            )


def undo(job: Job) -> None:
    """Back to the edits before the last change; raises `UsageError` when none is remembered."""
    if not job.project.recall_edits():
        raise UsageError("there is nothing to undo", "sg3 edit --list shows the edits")
    job.project.save()
    words = [f"{edit.title} = {edit.text}" for edit in job.project.edits]
    job.console.notice(f"edit: {', '.join(words) or 'none'}")


def stable_name(name: str, bundle: Bundle) -> str:
    """A direction file by its full path, so that the project can be used from elsewhere; names stay."""
    return name if name in bundle.direction_names() else str(Path(name).resolve())

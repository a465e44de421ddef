"""The whole chain as one call: what `sg3 run` does, from Python."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sg3cli.console import CallbackConsole
from sg3cli.latents.edits import Edit, parse_edits
from sg3cli.pipeline import Job
from sg3cli.pipeline.open_project import open_project
from sg3cli.settings import Settings


@dataclass(frozen=True)
class Result:
    """What `edit_video` made: the file, the project that a later call goes on from, and what was said on the way.

    `stages` holds for each stage whether it was computed (`done`) or `up to date`, its content key and its seconds.
    """

    output: Path
    project: Path
    edits: tuple[Edit, ...]
    stages: dict[str, dict[str, Any]]
    notices: tuple[str, ...]
    seconds: float


def edit_video(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    edits: Sequence[str | Edit] | None = None,
    *,
    settings: Settings | None = None,
    project: str | os.PathLike[str] | None = None,
    device: str = "auto",
    pull: bool = False,
    force: bool = False,
    progress: Callable[[str, int, int | None], None] | None = None,
    notice: Callable[[str], None] | None = None,
) -> Result:
    """Edit the face in a clip: `edit_video("talk.mp4", "older.mp4", ["age=2", "smile=1@0s..2s"])`.

    The same stages, files and bytes as `sg3 run SOURCE -o OUTPUT`, without environment and `sg3.toml`: what is not in
    `settings` is the default. Frames, times and sound are the source's; memory does not grow with the clip.

    Args:
        source: a video, an image, a folder or pattern of images, or a project (`*.sg3`).
        output: the video (or pattern of images) to write; it appears under its name when it is complete.
        edits: as `sg3 run --edit` takes them, or `Edit`s. They replace those of the project; None leaves them.
        settings: of all stages, for instance `Settings().having(finetune={"steps": 200})`.
        project: the project's folder; by default `<stem>.sg3` in the current one.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        pull: whether missing models may be downloaded.
        force: whether an output that sg3 did not make may be replaced.
        progress: called as `progress(stage, done, total)` while frames or steps are worked on. What it raises ends the
            work and reaches the caller; what was saved stays, and the same call goes on from there.
        notice: called with each thing that was decided or changed without being asked for.

    Raises:
        UsageError: an edit, a setting or a project that cannot be.
        InputError: a clip that cannot be used, or a place that cannot be written.
        ModelError: a model that is missing or does not belong to the codes.
        DeviceError: no such device, or not enough memory.
    """
    began = time.monotonic()
    wanted = settings or Settings()
    read = None if edits is None else _edits(edits)
    console = CallbackConsole(progress, notice)
    where = None if project is None else Path(project)
    found = open_project(Path(source), where, wanted.input.rate, wanted.input.video_track)
    with found.lock("edit_video"):
        job = Job(found, wanted, console, pull, device)
        job.run(os.fspath(output), read, force)
    notices = tuple(console.notices)
    return Result(Path(output), found.path, tuple(found.edits), job.stages, notices, round(time.monotonic() - began, 2))


def _edits(edits: Sequence[str | Edit]) -> list[Edit]:
    """Texts read, `Edit`s as they are; of several for one direction the last one counts."""
    from sg3cli.latents.edits import set_edit

    chosen: list[Edit] = []
    for edit in edits:
        for one in [edit] if isinstance(edit, Edit) else parse_edits([edit]):
            chosen = set_edit(chosen, one)
    return chosen

"""A command's job on the project that it finds, and what the command says at its end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sg3cli.cli import find_project, setting_sources
from sg3cli.cli.flags import Session
from sg3cli.latents.edits import Edit
from sg3cli.video.image_sequence import is_image_sequence

if TYPE_CHECKING:
    from sg3cli.pipeline import Job


def show_outlook(
    session: Session,
    argument: str | None,
    last: str,
    output: str | None = None,
    edits: Sequence[Edit] | None = None,
    force: bool = False,
) -> None:
    """Print what the stages up to `last` would take; nothing is written. Raises for an `output` that would be
    refused."""
    from sg3cli.pipeline.dry_run import outlook

    job = found_job(session, argument)
    if output is not None:
        job.check_output(output, force)
    found = outlook(job, last, output, edits)
    for entry in found:
        session.console.data(entry.describe())
    session.console.result("dry-run", project=str(job.project.path), stages=[asdict(entry) for entry in found])


@contextmanager
def opened(session: Session, argument: str | None, name: str) -> Iterator[Job]:
    """A locked project, and the job on it."""
    job = found_job(session, argument)
    with job.project.lock(name):
        job.check_device()
        yield job


def found_job(session: Session, argument: str | None) -> Job:
    """The job on a project that is found, or that of a clip; nothing is locked or written."""
    from sg3cli.pipeline import Job

    where = find_project.find_target(argument, session.project, session.console)
    read = session.flags.get("input", {})
    rate = read.get("rate")
    if rate is None and is_image_sequence(Path(where)):  # a rate that surrounds the command is no error beside a video
        rate = setting_sources.from_here()["input"].get("rate")
    project = find_project.open_target(where, session.project, rate, read.get("video_track"))
    wanted = setting_sources.of_project(project, session.flags, session.own)
    return Job(project, wanted, session.console, session.pull, session.device, session.nets)


@contextmanager
def working(
    session: Session, argument: str | None, name: str, output: str | None = None
) -> Iterator[tuple[Job, dict[str, Any]]]:
    """A job on a locked project and the reply of `--json`, to which the command may add.

    Afterwards the project's path on stdout, unless the command has said something else there, or the JSON object.
    """
    began = time.monotonic()
    reply: dict[str, Any] = {}
    with opened(session, argument, name) as job:
        yield job, reply
    if output != "-" and not reply:
        session.console.data(find_project.path_line(job.project.path))
    facts: dict[str, Any] = {"project": str(job.project.path), "stages": job.stages, "edits": job.project.stored_edits}
    if output is not None:
        facts["output"] = output
    session.console.result(name, **facts, **reply, seconds=round(time.monotonic() - began, 2))

"""A clip's project: the one that is there, or a new one with the clip's facts."""

from __future__ import annotations

import re
from pathlib import Path

from sg3cli.errors import InputError, UsageError
from sg3cli.project import SUFFIX, Project, default_path
from sg3cli.time_ranges import parse_rate
from sg3cli.video.image_sequence import is_image_sequence, is_pattern


def open_project(path: Path, where: Path | None = None, rate: str | None = None, track: int | None = None) -> Project:
    """The project that `path` is or, when it is a clip, the clip's project, made if there is none.

    A clip is a video, an image, a folder of images or a pattern; `rate` is that of images, `track` the number of the
    video in a file of several; `where` is the project's folder, None: `<stem>.sg3` here. Raises `InputError` for a
    clip that cannot be used and `UsageError` for what is neither clip nor project.
    """
    if path.is_dir() and ((path / "project.json").is_file() or path.suffix == SUFFIX):
        return Project.open(path)
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(path)):
        hint = "fetch it first, for instance: yt-dlp -o - URL | sg3 run - -o out.mp4"
        raise InputError(f"{path} is an address, sg3 reads files", hint)
    if not path.exists() and not is_pattern(path):
        kind = "project" if path.suffix == SUFFIX else "file"
        raise InputError(f"there is no {kind} {path}", "check the path")
    if path.is_file() and path.stat().st_size == 0:
        raise InputError(f"{path} is empty", "give a video file")
    if rate is not None:
        parse_rate(rate)
        if not is_image_sequence(path):
            raise UsageError(f"--rate is for pictures, and {path} has times of its own", "leave it out")
    known = where or default_path(path)
    if track is None and (known / "project.json").is_file():
        return Project.of_source(path, where, {}, rate)
    from sg3cli.video.probe import probe

    return Project.of_source(path, where, probe(path, rate, track).to_dict(), rate, track)

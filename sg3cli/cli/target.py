"""Which project a command works on: argument > line on a piped stdin > `$SG3_PROJECT` > the only one in the folder."""

from __future__ import annotations

import os
import select
import stat
import sys
from pathlib import Path

from sg3cli.console import Console
from sg3cli.errors import InputError, UsageError
from sg3cli.project import SUFFIX, Project, default_path

HINT = "give INPUT or PROJECT, set SG3_PROJECT, or work in a folder with one *.sg3"


def find_target(argument: str | None, option: Path | None, console: Console) -> str:
    """The argument, or what stands for it when there is none. Raises `UsageError` that lists the candidates."""
    if argument is not None:
        return argument
    if option is not None:
        return str(option)
    if stdin_is_pipe():
        return read_piped(console)
    if named := os.environ.get("SG3_PROJECT"):
        return named
    found = sorted(path for path in Path.cwd().glob(f"*{SUFFIX}") if path.is_dir())
    if len(found) == 1:
        return found[0].name
    if found:
        raise UsageError(f"several projects are here: {', '.join(p.name for p in found)}", "name one of them")
    raise UsageError("no project is here", HINT)


def stdin_is_pipe() -> bool:
    """Whether something is piped in (not a terminal, a file or /dev/null)."""
    try:
        return stat.S_ISFIFO(os.fstat(sys.stdin.fileno()).st_mode)
    except (OSError, ValueError, AttributeError):
        return False


def read_piped(console: Console) -> str:
    """The one line that the command before in the pipe printed."""
    ready, _, _ = select.select([sys.stdin], [], [], 2.0)
    if not ready:
        console.notice("waiting for a project's path on stdin")
    lines = sys.stdin.read().split("\n")
    line = lines[0].strip()
    if not line:
        raise UsageError("nothing came through the pipe", "the command before it failed, or name the project")
    if any(rest.strip() for rest in lines[1:]) or not (Path(line) / "project.json").is_file():
        raise UsageError(f"what came through the pipe is not a project: {line[:80]!r}", HINT)
    return line


def open_target(target: str, option: Path | None) -> Project:
    """The project that `target` is or, when it is a clip, the clip's project, made if there is none.

    Raises `InputError` for a clip that cannot be used and `UsageError` for what is neither clip nor project.
    """
    path = Path(target)
    if path.is_dir():
        if not (path / "project.json").is_file() and path.suffix != SUFFIX:
            raise InputError(f"{target} is a folder, not a video", "give a video file or a project (*.sg3)")
        return Project.open(path)
    if not path.exists():
        kind = "project" if path.suffix == SUFFIX else "file"
        raise InputError(f"there is no {kind} {target}", "check the path")
    return _project_of_clip(path, option)


def _project_of_clip(path: Path, option: Path | None) -> Project:
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty", "give a video file")
    known = option or default_path(path)
    if (known / "project.json").is_file():
        return Project.of_source(path, option, {})
    from sg3cli.video import probe

    return Project.of_source(path, option, probe(path).to_dict())

"""Which project a command works on: argument > line on a piped stdin > `$SG3_PROJECT` > the only one in the folder."""

from __future__ import annotations

import json
import os
import re
import select
import stat
import sys
from pathlib import Path

from sg3cli.console import Console
from sg3cli.errors import Sg3Error, UsageError
from sg3cli.files import digest_of
from sg3cli.pipeline.open_project import open_project
from sg3cli.project import SUFFIX, Project

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
    line = path_in(lines[0].strip())
    if not line:
        raise UsageError("nothing came through the pipe", "the command before it failed, or name the project")
    if any(rest.strip() for rest in lines[1:]) or not (Path(line) / "project.json").is_file():
        raise UsageError(f"what came through the pipe is not a project: {line[:80]!r}", HINT)
    return line


def path_line(path: Path | str) -> str:
    """A path as the one line that the next command in a pipe reads; as a JSON string when it would not survive that."""
    text = str(path)
    survives = text == text.strip() and not re.search(r'[\x00-\x1f\x7f]|^["{]', text)
    return text if survives else json.dumps(text)


def path_in(line: str) -> str:
    """Inverse of `path_line`; of the object of `--json` its project."""
    if not line.startswith(('"', "{")):
        return line
    try:
        told = json.loads(line)
    except ValueError:
        return line
    told = told.get("project", "") if isinstance(told, dict) else told
    return told if isinstance(told, str) else line


def open_target(target: str, option: Path | None, rate: str | None = None, track: int | None = None) -> Project:
    """`open_project`, where `-` is a video on standard input (which is not kept when it is none)."""
    if target != "-":
        return open_project(Path(target), option, rate, track)
    path, known = stored_stdin(option)
    try:
        return open_project(path, option, rate, track)
    except Sg3Error:
        if not known:
            path.unlink(missing_ok=True)
        raise


def stored_stdin(option: Path | None) -> tuple[Path, bool]:
    """What is piped in, as a file beside the project, and whether it was there: later commands read it again.

    It is named after its content, so that the same video finds its project again.
    """
    from sg3cli.video import spool

    folder = option.resolve().parent if option else Path.cwd()
    with spool(folder=folder) as piped:
        digest = digest_of(Path(piped.name)).partition(":")[2]
        path = folder / f"stdin-{digest[:12]}.media"
        if not (known := path.exists()):
            os.link(piped.name, path)  # the temporary name goes, the file stays
    return (path if option else path.relative_to(folder)), known

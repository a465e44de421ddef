"""`sg3 inspect`: a project and its stages, or a file and where it says that it comes from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from sg3cli.cli import find_project
from sg3cli.cli import plot as plots
from sg3cli.cli.flags import Session
from sg3cli.cli.text_reports import project_facts, project_lines
from sg3cli.errors import CONTROLS, UsageError
from sg3cli.project import Project, default_path

Inspected = Annotated[
    str | None,
    typer.Argument(metavar="PROJECT|FILE", help="A project, its video, or any output.", show_default=False),
]
Trust = Annotated[
    Path | None,
    typer.Option("--trust", metavar="ROOTS.pem", help="Certificates that you trust: who signed is checked by them."),
]
HOLDING = {
    "holds": "hold: nothing was changed since they were signed",
    "tampered": "DO NOT HOLD: the file was changed after it was signed (tampered)",
    "invalid": "DO NOT HOLD",
    "damaged": "DO NOT HOLD: they are there and cannot be read (tampered, or damaged)",
}
INGREDIENT = {
    "none": "without credentials",
    "holds": "with credentials that hold",
    "tampered": "with credentials that DO NOT HOLD: it was changed after it was signed",
    "invalid": "with credentials that DO NOT HOLD",
}


def inspect(
    session: Session,
    project: Inspected = None,
    plot: plots.Plot = None,
    samples: plots.Samples = plots.SAMPLES,
    device: plots.Device = "auto",
    trust: Trust = None,
) -> None:
    """Show a project and its stages (--plot draws its timeline), or where a file comes from and who signed that."""
    target = find_project.find_target(project, None, session.console)
    said: dict[str, Any] = {}
    path = Path(target)
    is_file = path.is_file() and path.stat().st_size > 0
    if not is_file or plot is not None or _has_project(path):
        found = find_project.open_target(target, None)
        drawn = {} if plot is None else {"plot": plots.draw_plot(session, found, plot, samples, device)}
        _say(session, [*project_lines(found), *([] if plot is None else [f"plot      {plot}"])])
        said |= {**project_facts(found), **drawn}
    if is_file and plot is None:
        from sg3cli.pipeline.file_facts import file_facts

        said["file"] = file_facts(path, _anchors(trust))
        _say(session, file_lines(said["file"]))
    session.console.result("inspect", **said)


def _say(session: Session, lines: list[str] | Iterator[str]) -> None:
    for line in lines:
        session.console.data(line)


def _has_project(path: Path) -> bool:
    """Whether the project of that name is here, and not that of another clip (as beside an output of the name)."""
    known = default_path(path)
    if not (known / "project.json").is_file():
        return False
    return bool(Project.open(known).manifest["source"]["size"] == path.stat().st_size)


def _anchors(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeError) as error:
        raise UsageError(f"cannot read the certificates in {path}: {error}", "--trust takes a PEM file") from error


def file_lines(facts: dict[str, Any]) -> Iterator[str]:
    """A file in words; what others have written into it cannot move the cursor."""
    for line in _lines(facts):
        yield line.translate(CONTROLS)


def _lines(facts: dict[str, Any]) -> Iterator[str]:
    stream = facts["stream"]
    yield f"file      {facts['path']}"
    if stream:
        size, rate = f"{stream['width']}x{stream['height']}", stream["average_rate"]
        yield f"          {size}, {stream['frames']} frames, {stream['duration']:.2f} s, {rate}/s, {stream['codec']}"
    record, tag = facts["record"], facts["tag"]
    if record is None:
        yield "record    none beside it"
    else:
        state = (
            "the file is as it says" if facts["record_holds"] else "the file IS NOT as it says, it was changed since"
        )
        yield f"record    {record.get('tool')}: {record.get('note')}; {state}"
    yield "tag       none" if tag is None else f"tag       {tag.get('tool')}: {tag.get('note')}"
    yield from _credential_lines(facts["credentials"])


def _credential_lines(facts: dict[str, Any]) -> Iterator[str]:
    status = facts["status"]
    if status in ("none", "not read"):
        yield f"signed    {'no' if status == 'none' else status}{', ' + facts['why'] if 'why' in facts else ''}"
        return
    yield f"signed    the credentials {HOLDING[status]}"
    for problem in facts["problems"]:
        yield f"          {problem}"
    if status == "damaged":
        return
    when = f" at {facts['signed_at']}" if facts["signed_at"] else ""
    if facts["trusted"]:
        yield f"by        {facts['signed_by']}{when}, for whom the given certificates vouch"
    elif facts["self_made_certificate"]:
        yield f"by        whoever ran sg3{when}: the certificate was made for this file and nobody trusts it"
    else:
        yield f"by        {facts['signed_by']}{when}, says the certificate; nobody vouches for it (--trust ROOTS.pem)"
    for action in facts["actions"]:
        yield f"action    {_action_words(action)}"
    for one in facts["ingredients"]:
        signer = f", signed by {one['signed_by']}" if "signed_by" in one else ""
        yield f"made from {one['title']} ({one['relationship']}), {INGREDIENT[one['status']]}{signer}"
        for action in one.get("actions", []):
            yield f"          action {_action_words(action)}"


def _action_words(action: dict[str, Any]) -> str:
    kind = str(action["digital_source_type"] or "").rpartition("/")[2]
    return ", ".join(str(word) for word in (action["action"], action["agent"], kind, action["description"]) if word)

"""What `inspect` and `doctor` print."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sg3cli.project import STAGES, Project


def project_facts(project: Project) -> dict[str, Any]:
    """A project as plain data."""
    stages = {}
    for stage in STAGES:
        if stage != "edit":
            stages[stage] = {**project.record(stage), "status": project.status(stage)}
    manifest = project.manifest
    facts = {"project": str(project.path), "source": manifest["source"], "stream": manifest["stream"]}
    return {**facts, "stages": stages, "edits": project.edits}


def project_lines(project: Project) -> Iterator[str]:
    """A project in words."""
    source, stream = project.manifest["source"], project.stream
    yield f"project   {project.path}"
    yield f"source    {source['path']}"
    if stream:
        size, rate = f"{stream['width']}x{stream['height']}", stream["average_rate"]
        yield f"          {size}, {stream['frames']} frames, {stream['duration']:.2f} s, {rate}/s, {stream['codec']}"
    for stage in STAGES:
        if stage == "edit":
            yield from _edit_lines(project)
        else:
            yield f"{stage:<9} {_stage_words(project, stage)}"


def _edit_lines(project: Project) -> Iterator[str]:
    for number, edit in enumerate(project.edits):
        layers = "" if edit["layers"] is None else f" on layers {edit['layers']}"
        kept = f", preserving {', '.join(edit['preserve'])}" if edit.get("preserve") else ""
        whose = "" if edit.get("face") is None else f"{edit['face']}:"
        yield f"{'edit' if number == 0 else '':<9} {whose}{edit['direction']} = {edit['strength']}{layers}{kept}"
    if not project.edits:
        yield "edit      none"


def _stage_words(project: Project, stage: str) -> str:
    record, status = project.record(stage), project.status(stage)
    if status == "missing":
        return "not done"
    words = f"{status}, {record['seconds']:.1f} s"
    if stage == "align":
        words += f", {record['found']} of {record['frames']} frames with the face"
        words += f", {record['interpolated']} bridged, {record['absent']} without"
        faces = record.get("faces", [])
        words += f", faces {', '.join(str(face['face']) for face in faces)}" if len(faces) > 1 else ""
        if "jitter" in record:
            words += f", jitter {record['jitter']['raw']:.2f} px, smoothed {record['jitter']['smoothed']:.2f}"
    if stage == "invert":
        words += f", codes {record['frames']}x{record['num_ws']}x{record['w_dim']} of {record['models']['name']}"
    if stage == "finetune":
        words += f", {record['steps']} steps, {record['perceptual']} loss"
    if stage == "render":
        words += "".join(f", {path}" for path in record["outputs"])
    return words


def doctor_lines(facts: dict[str, Any]) -> Iterator[str]:
    """One line per fact."""
    for section, values in facts.items():
        for name, value in values.items() if isinstance(values, dict) else [("", values)]:
            yield f"{section:<10}{name:<18}{value}"

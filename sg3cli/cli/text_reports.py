"""What `inspect` prints of a project, and `doctor` of a machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sg3cli.project import STAGES, Project


def project_facts(project: Project) -> dict[str, Any]:
    """A project as plain data."""
    stages, manifest = {}, project.manifest
    for stage in STAGES:
        if stage != "edit":
            stages[stage] = {**manifest["stages"].get(stage, {}), "status": project.status(stage)}
    facts = {"project": str(project.path), "source": manifest["source"], "stream": manifest["stream"]}
    return {**facts, "stages": stages, "edits": project.stored_edits}


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
        yield f"{'edit' if number == 0 else '':<9} {edit.describe()}"
    if not project.edits:
        yield "edit      none"


def _stage_words(project: Project, stage: str) -> str:
    record, status = project.record(stage), project.status(stage)
    if status == "missing":
        return "not done"
    facts = record.facts
    words = f"{status}, {record.seconds:.1f} s"
    if stage == "align":
        words += f", {facts['found']} of {facts['frames']} frames with the face"
        words += f", {facts['interpolated']} bridged, {facts['absent']} without"
        faces = facts.get("faces", [])
        words += f", faces {', '.join(str(face['face']) for face in faces)}" if len(faces) > 1 else ""
        if "jitter" in facts:
            words += f", jitter {facts['jitter']['raw']:.2f} px, smoothed {facts['jitter']['smoothed']:.2f}"
    if stage == "invert":
        words += f", codes {facts['frames']}x{facts['num_ws']}x{facts['w_dim']} of {record.models['name']}"
    if stage == "finetune":
        words += f", {facts['steps']} steps, {facts['perceptual']} loss"
    if stage == "render":
        words += "".join(f", {path}" for path in facts["outputs"])
    return words


def doctor_lines(facts: dict[str, Any]) -> Iterator[str]:
    """One line per fact."""
    for section, values in facts.items():
        for name, value in values.items() if isinstance(values, dict) else [("", values)]:
            yield f"{section:<10}{name:<28} {value}"

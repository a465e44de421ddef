"""`sg3 evaluate video`: an edited video against its source, whoever edited it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from sg3cli.cli import find_project, setting_sources
from sg3cli.cli.evaluate import MISSING, MOVED, Every, Model, number, rendered, row
from sg3cli.cli.flags import Session
from sg3cli.errors import InputError, UsageError
from sg3cli.latents.edits import edits_of

Target = Annotated[
    str | None,
    typer.Argument(
        metavar="PROJECT", help="A project, or its video: the source, the face, the edits.", show_default=False
    ),
]
Source = Annotated[Path | None, typer.Option("--source", metavar="VIDEO", help="The source, without a project.")]
Edited = Annotated[
    Path | None,
    typer.Option("--edited", metavar="VIDEO", help="The video to judge [default: what the project rendered last]."),
]
Embedder = Annotated[
    str | None,
    typer.Option("--embedder", metavar="ONNX", help="A face recognition network that says who a face is."),
]


def video(
    session: Session,
    project: Target = None,
    source: Source = None,
    edited: Edited = None,
    embedder: Embedder = None,
    every: Every = None,
    model: Model = None,
) -> None:
    """Judge an edited video, of any editor, against its source: likeness, steadiness, sharpness, seam, sound."""
    check_words(project, source, edited)
    for path in (source, edited):
        if path is not None and not path.exists():
            raise InputError(f"{path} is not there", "check the path")
    if embedder is not None and not Path(embedder).is_file():
        raise InputError(f"{embedder} is not there", "give --embedder the path of an ONNX network")
    if source is not None and edited is not None:
        clips = [of_files(session, source, edited, embedder, every or 1, model)]
    else:
        clips = of_project(session, project, edited, embedder, every or 1, model)
    for figures in clips:
        for line in video_lines(figures):
            session.console.data(line)
    session.console.result("evaluate video", clips=clips)


def of_files(
    session: Session, source: Path, edited: Path, embedder: str | None, every: int, model: str | None
) -> dict[str, Any]:
    """Figures of two files of which nothing else is known."""
    from sg3cli.evaluation.video_figures import make_judges, video_figures
    from sg3cli.weights.bundle import load_model

    judges = make_judges(None if model is None else load_model(model), embedder, session.console)
    return video_figures(source, edited, judges, session.console, every)


def of_project(
    session: Session, project: str | None, edited: Path | None, embedder: str | None, every: int, model: str | None
) -> list[dict[str, Any]]:
    """Figures of `edited`, or of all that the project rendered last, on its first face."""
    from sg3cli.evaluation.video_figures import make_judges, video_figures
    from sg3cli.weights.bundle import load_model

    console = session.console
    found = find_project.open_target(find_project.find_target(project, None, console), None)
    if not (found.path / "project.json").is_file():
        raise UsageError(f"{found.path} is not there yet", "run the clip first, or give --source and --edited")
    outputs = [str(edited)] if edited else rendered(found, console)
    if not outputs:
        raise InputError("the project has rendered nothing yet", "render it, or give --edited VIDEO")
    flags: setting_sources.Values = {} if model is None else {"invert": {"model": model}}
    judges = make_judges(load_model(setting_sources.of_project(found, flags).invert.model), embedder, console)
    with found.lock("evaluate"):
        track = found.track() if found.status("align") == "done" else None
        edits, source = edits_of(found.edits, found.faces[0]), found.source()
        return [
            video_figures(source, Path(out), judges, console, every, track, edits, found.reading) for out in outputs
        ]


def check_words(project: str | None, source: Path | None, edited: Path | None) -> None:
    """Raise `UsageError` for words that do not go together."""
    if source is not None and project is not None:
        raise UsageError("a project and --source exclude each other", "the project knows its source")
    if source is not None and edited is None:
        raise UsageError("--source needs the video to judge", "add --edited VIDEO")


def video_lines(figures: dict[str, Any]) -> Iterator[str]:
    """The figures as a table for people."""
    faces, shown = figures["faces"], figures["frames"]
    yield row("edited", figures["edited"])
    yield row("frames", f"{shown} of {figures['source_frames']}, {figures['judged']} judged")
    yield row("faces", f"{faces['source']} in the source, {faces['edited']} edited")
    distance, temporal = figures["distance"], figures["temporal"]
    words = f"{number(distance['mean'])} (max {number(distance['max'])}), over time {number(temporal['mean'])}"
    yield row(f"LPIPS-Vid ({distance['network']})", words)
    yield from frechet_lines(figures["frechet"])
    who = figures["identity"]
    yield row("likeness to the source", f"mean {number(who['mean'])}, min {number(who['min'])} ({who['network']})")
    yield row("TL-ID, TG-ID", f"{number(who['local'])}, {number(who['global'])} ({who['network']})")
    warping = figures["warping"]
    yield row("warping error", f"{number(warping['ratio'], 3)} of the source's, {number(warping['edited'], 6)}")
    yield row("landmark jitter", f"{number(figures['jitter']['ratio'], 3)} of the source's")
    flicker = figures["flicker"]
    yield row("flicker", f"{number(flicker['ratio'], 3)} of the source's, {number(flicker['levels'], 3)} levels apart")
    yield row("frozen", f"{figures['frozen']} of {figures['steps']} steps")
    yield row("sharpness", f"{number(figures['sharpness'], 3)} of the source's")
    yield row("seam", f"{number(figures['seam'], 3)} levels per pixel")
    beyond = figures["outside"]
    words = f"{beyond['mean']:.3f} levels, {beyond['max']} at most, {beyond['share']:.2%} of pixels not by coding"
    yield row("outside the face's square", words)
    yield row("sound", sound_words(figures["sound"]))
    yield from attribute_lines(figures["attributes"])


def frechet_lines(frechet: dict[str, Any]) -> Iterator[str]:
    """Distances with what they stand on."""
    for kind, name in (("frames", "FID over frames"), ("clips", "FID over clips of 16")):
        used, least = frechet[f"{kind}_used"], frechet[f"min_{kind}"]
        value = frechet[kind]
        why = f"{used} {kind}, {least} at least" if value is None else f"{used} {kind}, {frechet['network']}"
        yield row(name, f"{number(value)} ({why})")


def sound_words(sound: dict[str, Any] | None) -> str:
    if sound is None:
        return MISSING
    if sound["offset"] is None:
        return f"not the source's (correlation {sound['likeness']:.2f})"
    return f"{1000 * sound['offset']:+.1f} ms against the images"


def attribute_lines(attributes: dict[str, Any] | None) -> Iterator[str]:
    """Labels that were asked for, and those that moved all the same."""
    if attributes is None:
        yield row("attributes", MISSING)
        return
    yield row("attributes", f"in standard deviations, by the {attributes['network']}")
    for name, entry in sorted(attributes["labels"].items(), key=lambda item: -abs(item[1]["change_std"])):
        if "asked" in entry:
            follows = f", follows over time {number(entry['follows'], 2)}"
            yield row(f"  {name}", f"{entry['change_std']:+8.2f}, asked {entry['asked']:+.2f}{follows}")
        elif abs(entry["change_std"]) >= MOVED:
            yield row(f"  {name}", f"{entry['change_std']:+8.2f}")

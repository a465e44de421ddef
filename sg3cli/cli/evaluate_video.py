"""`sg3 evaluate video`: edited videos against their sources, whoever edited them, each alone or all as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sg3cli.cli import find_project, setting_sources
from sg3cli.cli.batch_inputs import read_list
from sg3cli.cli.evaluate import Every, Model, rendered, row
from sg3cli.cli.flags import Session
from sg3cli.console import Console
from sg3cli.errors import BatchError, InputError, Sg3Error, UsageError
from sg3cli.evaluation.figure_words import video_rows
from sg3cli.project import Project

if TYPE_CHECKING:
    from sg3cli.evaluation.video_figures import Judged, JudgeStore

Targets = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="PROJECT", help="A project, or its video: the source, the face, the edits. Several: a table.",
        show_default=False,
    ),
]  # fmt: skip
Sources = Annotated[
    list[Path] | None,
    typer.Option("--source", metavar="VIDEO", help="The source, without a project; several with an --edited each."),
]
EditedVideos = Annotated[
    list[Path] | None,
    typer.Option("--edited", metavar="VIDEO", help="The video to judge [default: what the project rendered last]."),
]
From = Annotated[
    str | None,
    typer.Option("--from", metavar="LIST", help="A text file: in each line a project, or SOURCE, a tab, EDITED."),
]
Embedder = Annotated[
    str | None,
    typer.Option("--embedder", metavar="ONNX", help="A face recognition network that says who a face is."),
]


@dataclass(frozen=True)
class ToJudge:
    """A video that is to be judged: of a project (None: all that it rendered last), or with its source."""

    name: str
    project: Project | None
    source: Path | None = None
    edited: Path | None = None


def video(
    session: Session,
    project: Targets = None,
    source: Sources = None,
    edited: EditedVideos = None,
    listed: From = None,
    embedder: Embedder = None,
    every: Every = None,
    model: Model = None,
) -> None:
    """Judge edited videos, of any editor, against their sources: likeness, steadiness, sharpness, seam, sound."""
    pending = asked(session.console, project or [], source or [], edited or [], listed)
    check_embedder(embedder)
    from sg3cli.evaluation.video_figures import JudgeStore

    store, found, failed = JudgeStore(embedder, session.console), [], []
    for one in pending:
        try:
            found += [(one.name, judged) for judged in judged_videos(session.console, one, store, every or 1, model)]
        except Sg3Error as error:
            if len(pending) == 1:
                raise
            session.console.error(f"{one.name}: {error}", error.hint)
            failed.append({"clip": one.name, "error": {"code": error.code, "what": str(error), "hint": error.hint}})
    show(session, found, failed, len(pending))


def check_embedder(embedder: str | None) -> None:
    """Raise before any work when there is none."""
    if embedder is not None and not Path(embedder).is_file():
        raise InputError(f"{embedder} is not there", "give --embedder the path of an ONNX network")


def show(session: Session, found: list[tuple[str, Judged]], failed: list[dict[str, Any]], asked_for: int) -> None:
    """A single clip in words, several as a table; then the object of `--json`. Raises `BatchError` if some failed."""
    console, clips = session.console, [judged.figures for _, judged in found]
    facts: dict[str, Any] = {"clips": clips}
    if len(found) == 1 and not failed:
        for line in video_lines(clips[0]):
            console.data(line)
    elif found:
        facts |= table(console, found)
    if failed:
        error = BatchError(f"{len(failed)} of {asked_for} clips could not be judged", "see the lines above")
        error.facts = facts | {"failed": failed}
        raise error
    console.result("evaluate video", **facts)


def table(console: Console, found: list[tuple[str, Judged]]) -> dict[str, Any]:
    """Print the clips as a table; returns what holds for all of them together."""
    import numpy as np

    from sg3cli.evaluation.clip_table import columns_of, means, table_lines
    from sg3cli.evaluation.video_figures import frechet

    clips = [judged.figures for _, judged in found]
    pooled = frechet([np.array(judged.seen.features) for _, judged in found])
    for line in table_lines([name for name, _ in found], clips, pooled):
        console.data(line)
    return {"mean": means(columns_of(clips), clips), "frechet": pooled}


# ---- what was asked for


def asked(
    console: Console, projects: Sequence[str], sources: Sequence[Path], edited: Sequence[Path], listed: str | None
) -> list[ToJudge]:
    """What is to be judged, all of it there. Raises `UsageError` and `InputError` before any work."""
    check_words(projects, sources, edited)
    if sources:
        pairs = [of_pair(source, video) for source, video in zip(sources, edited, strict=True)]
        return [*pairs, *of_list(console, listed)]
    if edited:
        named = [of_project(console, projects[0] if projects else None, present(edited[0]))]
    else:
        named = [of_project(console, name, None) for name in projects]
    found = [*named, *of_list(console, listed)]
    return found or [of_project(console, None, None)]


def check_words(projects: Sequence[str], sources: Sequence[Path], edited: Sequence[Path]) -> None:
    """Raise `UsageError` for words that do not go together."""
    if sources and projects:
        raise UsageError("a project and --source exclude each other", "the project knows its source")
    if sources and not edited:
        raise UsageError("--source needs the video to judge", "add --edited VIDEO")
    if sources and len(sources) != len(edited):
        words = f"--source stands {len(sources)} times and --edited {len(edited)} times"
        raise UsageError(words, "each source needs the video that was made of it")
    if not sources and edited and (len(edited) > 1 or len(projects) > 1):
        raise UsageError("--edited names the video of one project", "judge them one by one, or give --source as well")


def present(path: Path) -> Path:
    """The path of a file that is there; raises `InputError`."""
    if not path.exists():
        raise InputError(f"{path} is not there", "check the path")
    return path


def of_pair(source: Path, edited: Path) -> ToJudge:
    return ToJudge(edited.name, None, present(source), present(edited))


def of_project(console: Console, name: str | None, edited: Path | None) -> ToJudge:
    """A project that is there; raises `UsageError` otherwise."""
    found = find_project.open_target(find_project.find_target(name, None, console), None)
    if not (found.path / "project.json").is_file():
        raise UsageError(f"{found.path} is not there yet", "run the clip first, or give --source and --edited")
    return ToJudge(found.path.name, found, edited=edited)


def of_list(console: Console, listed: str | None) -> list[ToJudge]:
    """What the lines of `--from` name."""
    found = []
    for line in read_list(listed) if listed is not None else []:
        source, tab, edited = line.partition("\t")
        found.append(of_pair(Path(source), Path(edited)) if tab else of_project(console, line, None))
    return found


# ---- judging


def judged_videos(console: Console, one: ToJudge, store: JudgeStore, every: int, model: str | None) -> list[Judged]:
    """The figures of two files of which nothing else is known, or of what a project rendered last."""
    from sg3cli.evaluation.video_figures import judge, judge_output

    if one.project is None:
        assert one.source is not None and one.edited is not None
        return [judge(one.source, one.edited, store.of(model), console, every)]
    outputs = [str(one.edited)] if one.edited else rendered(one.project, console)
    if not outputs:
        raise InputError("the project has rendered nothing yet", "render it, or give --edited VIDEO")
    flags: setting_sources.Values = {} if model is None else {"invert": {"model": model}}
    judges = store.of(setting_sources.of_project(one.project, flags).invert.model)
    with one.project.lock("evaluate"):
        return [judge_output(one.project, Path(out), judges, console, every) for out in outputs]


def video_lines(figures: dict[str, Any]) -> Iterator[str]:
    """The figures as a table for people."""
    for name, words in video_rows(figures):
        yield row(name, words)

"""Which inputs a batch has, and where each one's project and output go. Everything is known before any work begins."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import string
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sg3cli.cli.flags import Session
from sg3cli.console import Console
from sg3cli.errors import InputError, Sg3Error, UsageError
from sg3cli.files import write_error
from sg3cli.latents.edits import Edit
from sg3cli.project import MANIFEST, SUFFIX, Project, default_path, is_vacant
from sg3cli.video.image_sequence import STILLS, is_pattern, natural_key

VIDEOS = (
    *(".3gp", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf"),
    *(".nut", ".ogv", ".ts", ".vob", ".webm", ".wmv", ".y4m"),
)  # what counts as a video in a folder; a file that is named may end in anything
WILD = re.compile(r"[*?[]")
TEMPLATE = "{stem}_edited{suffix}"
PLACES = ("stem", "suffix", "index", "edit")
NOT_STARTED = "not started"


@dataclass
class Entry:
    """One input of a batch, and what became of it. `project` is None where the input is a project itself."""

    input: str
    project: Path | None
    output: str
    status: str = NOT_STARTED
    seconds: float = 0.0
    error: Sg3Error | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The entry of `--json`."""
        where = self.input if self.project is None else str(self.project)
        plain = {"input": self.input, "status": self.status, "seconds": round(self.seconds, 2), "project": where}
        if self.error is not None:
            plain["error"] = {"code": self.error.code, "what": str(self.error), "hint": self.error.hint}
        return {**plain, "output": self.output, **self.facts}


# ---- which inputs


def gather(given: Sequence[str], listed: str | None, out_dir: Path | None, console: Console) -> list[str]:
    """The inputs in order, each once: folders of videos and quoted patterns are opened up, a list is read.

    A pattern that matches nothing stands for itself, and fails as a file that is not there. Raises `UsageError`.
    """
    texts = [*given, *(read_list(listed) if listed is not None else [])]
    if not texts:
        if listed is not None:
            raise UsageError(f"{listed} names no inputs", "write a path into each line")
        raise UsageError("missing argument 'INPUT'", "sg3 run --help")
    if len(texts) == 1 and listed is None and not _opens(texts[0]):
        return texts  # exactly as it was given
    unique: dict[str, str] = {}
    for text in texts:
        for path in _expand(text, out_dir, console):
            place = os.path.abspath(path)
            if place in unique:
                console.notice(f"{path} is given more than once; it is done once")
            unique.setdefault(place, path)
    if not unique:
        raise UsageError("there is nothing to do: all that is there was made by sg3", "name the inputs one by one")
    if "-" in texts and len(unique) > 1:
        raise UsageError("a video on standard input must be the only input", "write it to a file first")
    return list(unique.values())


def read_list(name: str) -> list[str]:
    """A path a line, blank lines left out; `-` is standard input. Raises `InputError`."""
    try:
        raw = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the list {name}: {error.strerror}", "--from takes a text file") from error
    if b"\0" in raw:
        raise InputError(f"{name} is not a list of paths", "--from takes a text file with a path in each line")
    lines = [line.rstrip("\r") for line in os.fsdecode(raw.removeprefix(b"\xef\xbb\xbf")).split("\n")]
    lines = [line for line in lines if line.strip()]
    if "-" in lines:
        raise UsageError(f"{name} names `-`, standard input", "a list names files")
    return lines


def _opens(text: str) -> bool:
    """Whether the text may stand for several inputs: a folder that is neither pictures nor a project, a pattern."""
    path = Path(text)
    if path.is_dir():
        return not _is_project(path)
    return text != "-" and not os.path.lexists(text) and bool(WILD.search(text))


def _is_project(path: Path) -> bool:
    return path.suffix == SUFFIX or (path / MANIFEST).is_file()


def _expand(text: str, out_dir: Path | None, console: Console) -> list[str]:
    if not _opens(text):
        return [text]
    path = Path(text)
    if path.is_dir():
        return _of_folder(path, text, out_dir, console)
    found = [Path(name) for name in glob.glob(text, recursive=True)]
    named = not WILD.search(Path(text).suffix) and Path(text).suffix != ""
    if not named:  # `clips/*` is not meant to take records and projects that lie there
        found = [p for p in found if (p.is_dir() and not _is_project(p)) or p.suffix.lower() in (*VIDEOS, *STILLS)]
    found = _without_results(sorted(found, key=natural_key), out_dir, console)
    folders = {p: _of_folder(p, str(p), out_dir, console) for p in found if p.is_dir() and not _is_project(p)}
    return [name for p in found for name in folders.get(p, [str(p)])] or [text]


def _of_folder(path: Path, text: str, out_dir: Path | None, console: Console) -> list[str]:
    """The videos of a folder, or the folder itself when it is a video of pictures."""
    try:
        inside = [p for p in path.iterdir() if p.is_file() and not p.name.startswith(".")]
    except OSError as error:
        raise InputError(f"cannot read {text}: {error.strerror}", "check the folder's permissions") from error
    videos = [p for p in inside if p.suffix.lower() in VIDEOS]
    images = [p for p in inside if p.suffix.lower() in STILLS]
    if videos and images and out_dir is not None:
        what = f"{text} holds videos and pictures ({videos[0].name}, {images[0].name})"
        raise UsageError(what, f"say which with a quoted pattern, as in '{text.rstrip('/')}/*{videos[0].suffix}'")
    if images or not videos:
        return [text]
    return [str(p) for p in _without_results(sorted(videos, key=natural_key), out_dir, console)]


def _without_results(paths: list[Path], out_dir: Path | None, console: Console) -> list[Path]:
    """Leave out what an earlier run wrote into the output folder: it must not be edited again and again."""
    from sg3cli.pipeline.provenance import read_sidecar

    if out_dir is None:
        return paths
    folder = out_dir.resolve()
    ours = {p for p in paths if p.is_file() and p.resolve().parent == folder and read_sidecar(str(p)) is not None}
    if ours:
        console.notice(f"{len(ours)} of the files in {out_dir} were made by sg3 and are left out")
    return [p for p in paths if p not in ours]


# ---- where they go


def plan(
    inputs: Sequence[str],
    out_dir: Path,
    template: str,
    edits: Sequence[Edit],
    container: str | None,
    make: bool = True,
) -> list[Entry]:
    """Project and output of every input. `container` is what `--format` asks for; `make` makes the output folder.

    Raises `UsageError` for a template that cannot be used and for two inputs with one output, `InputError` when the
    output folder cannot be made.
    """
    outputs: dict[str, str] = {}
    places = {os.path.abspath(text): text for text in inputs}
    for index, text in enumerate(inputs, start=1):
        values = {"stem": stem_of(text), "suffix": suffix_of(text, container), "index": index, "edit": edit_word(edits)}
        out = str(out_dir / _filled(template, values)) + ("/" if template.endswith("/") else "")
        known = next((other for other, taken in outputs.items() if taken == out), None)
        if known is not None:
            hint = "number them, as in --name '{stem}_{index}{suffix}'"
            raise UsageError(f"{known} and {text} would both be written to {out}", hint)
        outputs[text] = out
    for text, out in outputs.items():
        if (victim := places.get(os.path.abspath(out))) is not None:
            what = f"the output of {text} would replace the input {victim}"
            raise UsageError(what, "choose another --out-dir or --name")
    try:
        if make:
            out_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(out_dir, error) from error
    projects = _projects(inputs, out_dir)
    return [Entry(text, projects[text], out) for text, out in outputs.items()]


def _filled(template: str, values: dict[str, Any]) -> str:
    """The template with its places filled in; `{index:03}` pads. Raises `UsageError`."""
    try:
        fields = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
        unknown = [name for name in fields if name not in PLACES]
        if unknown:
            places = " ".join(f"{{{place}}}" for place in PLACES)
            raise UsageError(f"--name has an unknown place {{{unknown[0]}}}", f"known are: {places}")
        name = template.format(**values)
    except (ValueError, KeyError, IndexError) as error:
        raise UsageError(f"--name is {template!r}: {error}", f"for example --name '{TEMPLATE}'") from None
    if not name.strip("/. ") or Path(name).is_absolute() or ".." in Path(name).parts:
        raise UsageError(f"--name makes {name!r}, which is no name inside the output folder", f"as in '{TEMPLATE}'")
    return name


def stem_of(text: str) -> str:
    """The input's name without suffix; of pictures that of their folder."""
    path = Path(text)
    if text == "-":
        return "stdin"
    if not path.exists() and not is_pattern(path):
        return path.stem or "input"  # it will fail, under its own name
    return path.resolve().stem if path.is_dir() and _is_project(path) else default_path(path).name.removesuffix(SUFFIX)


def suffix_of(text: str, container: str | None) -> str:
    """The input's suffix where sg3 writes such files, that of `--format`, else `.mp4` (`.mkv` for standard input)."""
    from sg3cli.video.output_file import FORMATS

    if container is not None:
        plain = container.lstrip(".")
        return next((suffix for suffix, name in FORMATS.items() if plain in (suffix[1:], name)), ".mp4")
    path = Path(text)
    if path.is_dir() and _is_project(path):
        try:
            path = Project.open(path).source()
        except Sg3Error:
            return ".mp4"  # it fails again, and is reported, at its turn
    if text == "-":
        return ".mkv"
    many = path.is_dir() or is_pattern(path)
    return path.suffix if not many and path.suffix.lower() in FORMATS else ".mp4"


def default_output(source: str, edits: Sequence[Edit], session: Session) -> str:
    """The name of the output of one input where none was given, in the current folder."""
    if source == "-":
        raise UsageError("missing option '--output' / '-o'", "-o OUT.mp4; `-o -` writes to stdout")
    container = session.flags.get("encode", {}).get("format")
    values = {"stem": stem_of(source), "suffix": suffix_of(source, container), "index": 1, "edit": edit_word(edits)}
    name = _filled("{stem}_{edit}{suffix}", values)
    session.console.notice(f"the output is {name}")
    return name


def edit_word(edits: Sequence[Edit]) -> str:
    """`age=2+smile=1@0s..2s` as a part of a file's name."""
    words = [f"{'' if edit.face is None else f'{edit.face}-'}{Path(edit.direction).stem}={edit.text}" for edit in edits]
    return re.sub(r"[^\w.=+@-]+", "-", "+".join(words)) or "unedited"


def _projects(inputs: Sequence[str], out_dir: Path) -> dict[str, Path | None]:
    """A project for each input: `OUT/<stem>.sg3`, with a digest of the input's path where that is another's.

    A project that an earlier run made for this very path is found again, so that adding an input to a batch does not
    move the projects of the others.
    """
    stems = {text: stem_of(text) for text in inputs}
    count = list(stems.values()).count
    chosen: dict[str, Path | None] = {}
    for text, stem in stems.items():
        if Path(text).is_dir() and _is_project(Path(text)):
            chosen[text] = None
            continue
        digest = hashlib.sha256(os.fsencode(os.path.abspath(text))).hexdigest()[:8]
        plain, own = out_dir / f"{stem}{SUFFIX}", out_dir / f"{stem}-{digest}{SUFFIX}"
        known = next((path for path in (plain, own) if _belongs(path, text)), None)
        free = count(stem) == 1 and is_vacant(plain)
        chosen[text] = known or (plain if free else own)
    return chosen


def _belongs(project: Path, text: str) -> bool:
    """Whether the project was made from what lies at this path."""
    try:
        known = json.loads((project / MANIFEST).read_text(encoding="utf8"))["source"]["path"]
        return bool(Path(known) == Path(text).resolve())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def only(inputs: Sequence[str]) -> str:
    """The one input that `-o` is for; raises `UsageError` when there are several."""
    if len(inputs) > 1:
        what = f"-o names one output, and there are {len(inputs)} inputs"
        raise UsageError(what, "give --out-dir OUT, and --name for the names in it")
    return inputs[0]

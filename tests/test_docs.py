"""What README and guides print: each command runs on a short clip with the tiny model, and each option exists.

A fenced block ```sh is run line by line, in a folder of its own. In ```sh network and ```sh long, which need a network
or much time, each `sg3` command is only parsed. The Python of the guides runs too.
"""

from __future__ import annotations

import contextlib
import glob
import io
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from running import ROOT, ended

import sg3cli
from sg3cli import cli
from sg3cli.cli.app import app
from sg3cli.drawing.images import write_png
from sg3cli.video.probe import probe

PAGES = [ROOT / "README.md", *sorted((ROOT / "examples").glob("*.md")), *sorted((ROOT / ".github").rglob("*.md"))]
PACKAGE = str(Path(sg3cli.__file__).parents[1])  # for a script that is run from another folder
GENERATED = "commands.md"  # names every option by itself
FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
NOT_RUN = {"network", "long"}
FOREIGN = {"--nproc-per-node", "--constraint", "--check"}  # of torchrun, pip and ruff


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: its language, the words after it, its text."""

    page: Path
    language: str
    words: frozenset[str]
    text: str

    @property
    def lines(self) -> list[str]:
        """Command lines without comments; a line that ends in a backslash goes on in the next."""
        joined = self.text.replace("\\\n", " ").splitlines()
        return [line for line in joined if line.strip() and not line.lstrip().startswith("#")]


def blocks(page: Path, language: str) -> list[Block]:
    found = FENCE.findall(page.read_text(encoding="utf8"))
    return [Block(page, kind, frozenset(words.split()), text) for kind, words, text in found if kind == language]


def page_name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


SHELL = [(f"{page_name(page)}-{i}", block) for page in PAGES for i, block in enumerate(blocks(page, "sh"), start=1)]
RUN = [pytest.param(block, id=name) for name, block in SHELL if not block.words & NOT_RUN]
PARSED = [pytest.param(block, id=name) for name, block in SHELL if block.words & NOT_RUN]


# ---- commands that run


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory, talk: Path) -> Path:
    """What the commands find: a clip, two more in a folder, a list with one of them, a mask."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "clips").mkdir()
    for name in ("talk.mp4", "clips/one.mp4", "clips/two.mp4"):
        shutil.copy(talk, folder / name)
    (folder / "list.txt").write_text("clips/one.mp4\n", encoding="utf8")
    frame = probe(talk)
    write_png(folder / "matte.png", np.full((frame.height, frame.width, 3), 255, np.uint8))
    return folder


@pytest.fixture
def folder(clip_folder: Path, tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of these files to work in, and settings that make the work short."""
    shutil.copytree(clip_folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("SG3_") and name != "SG3_MODELS"]:
        monkeypatch.delenv(name)
    short = {"SG3_INVERT_MODEL": str(tiny_bundle), "SG3_FINETUNE_STEPS": "2", "SG3_CONFIG": "/nonexistent"}
    for name, value in short.items():
        monkeypatch.setenv(name, value)
    return tmp_path


@pytest.mark.parametrize("block", RUN)
def test_commands_run(block: Block, folder: Path) -> None:
    if "--sign" in block.text and find_spec("c2pa") is None:
        pytest.skip("the extra c2pa is not installed")
    for line in block.lines:
        run_line(line)


def run_line(line: str) -> None:
    """A line of `sg3` commands joined by `|`; `< FILE` and `> FILE` are for the first and the last."""
    given: bytes | Path | None = None
    for command in pieces(line):
        given = run_command(command, given)


def pieces(line: str) -> list[list[str]]:
    """The words of each command of a pipe."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|<>")
    lexer.whitespace_split = True
    commands: list[list[str]] = [[]]
    for word in lexer:
        if word == "|":
            commands.append([])
        else:
            commands[-1].append(word)
    return commands


def run_command(words: list[str], given: bytes | Path | None) -> bytes:
    """Run one command in this process; `given` is what the one before it printed. Returns what it printed."""
    words, files = redirected(words)
    assert words[0] == "sg3", f"{words[0]} is not run here: mark the block"
    out, err = io.StringIO(), io.StringIO()
    with standard_input(files.get("<", given)), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.run(expanded(words[1:]))
    assert code == 0, f"{shlex.join(words)} ended with {code}:\n{err.getvalue()}"
    if ">" in files:
        files[">"].write_text(out.getvalue(), encoding="utf8")
    return out.getvalue().encode()


def redirected(words: list[str]) -> tuple[list[str], dict[str, Path]]:
    files = {sign: Path(name) for sign, name in pairwise(words) if sign in "<>"}
    at = next((i for i, word in enumerate(words) if word in files), len(words))
    return words[:at], files


def expanded(words: list[str]) -> list[str]:
    """As a shell does it: a pattern that meets files stands for them."""
    return [name for word in words for name in (sorted(glob.glob(word)) or [word])]


@contextlib.contextmanager
def standard_input(given: bytes | Path | None) -> Iterator[None]:
    """A file, a real pipe with what was printed, or nothing as stdin."""
    before = sys.stdin
    if isinstance(given, bytes):
        read, write = os.pipe()
        os.write(write, given)
        os.close(write)
        stream = os.fdopen(read)
    else:
        stream = open(given or os.devnull, encoding="latin1")  # noqa: SIM115 (closed below)
    with stream:
        sys.stdin = stream
        try:
            yield
        finally:
            sys.stdin = before


# ---- commands that are parsed


def commands(group: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


COMMANDS = dict(commands(typer.main.get_command(app), "sg3"))


def split_command(words: list[str]) -> tuple[Any, list[str]]:
    """(command, its arguments) of `sg3 ...` or `... -m sg3cli ...`."""
    if "sg3cli" in words:
        words = ["sg3", *words[words.index("sg3cli") + 1 :]]
    for length in (3, 2):
        if (name := " ".join(words[:length])) in COMMANDS:
            return COMMANDS[name], words[length:]
    raise AssertionError(f"there is no command {shlex.join(words)}")


def options_of(command: Any) -> set[str]:
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}


@pytest.mark.parametrize("block", PARSED)
def test_long_commands_parse(block: Block) -> None:
    for line in block.lines:
        words = shlex.split(line, comments=True)
        if words[0] == "sg3" or "sg3cli" in words:
            command, arguments = split_command(words)
            command.make_context(words[0], arguments)  # raises for what it cannot parse
        elif words[0] == "bash":
            assert (ROOT / words[1]).is_file(), line


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_in_a_command_s_help_parses(name: str) -> None:
    for line in re.findall(r"^Example: (sg3 .*)$", COMMANDS[name].epilog or "", re.MULTILINE):
        command, arguments = split_command(shlex.split(line))
        assert command is COMMANDS[name]
        command.make_context(name, arguments)


def test_generators_are_trained_as_printed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that the command itself checks; the training is replaced."""
    begun: list[Any] = []
    monkeypatch.setattr("sg3cli.training.generator.run.train_generator", lambda job, *rest: begun.append(job) or {})
    text = (ROOT / "examples" / "training.md").read_text(encoding="utf8")
    recipes = [span for span in INLINE.findall(text) if span.startswith("train generator ")]
    printed = re.findall(r"^sg3 (train generator .*)$", text, re.MULTILINE)
    assert len(recipes) >= 3 and printed
    for line in [*printed, *(f"{recipe} --work run-g --out my-model" for recipe in recipes)]:
        run_command(["sg3", *shlex.split(line)], None)
    assert len(begun) == len(recipes) + len(printed)


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_commands_in_the_text_exist(page: Path) -> None:
    """`sg3 run --draft` in a sentence or a table: the command is there and has the option."""
    text = FENCE.sub("", page.read_text(encoding="utf8"))
    for span in INLINE.findall(text):
        if span.startswith("sg3 ") and not span.startswith(("sg3 COMMAND", "sg3 bench ...")):
            words = shlex.split(span.replace("...", ""))
            if words[1] in ("--version", "--help") or " ".join(words) in ("sg3 models", "sg3 train"):
                continue
            command, arguments = split_command(words)
            given = {word.partition("=")[0] for word in arguments if OPTION.match(word)}
            assert given <= options_of(command), span


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != GENERATED], ids=page_name)
def test_options_in_the_text_exist(page: Path) -> None:
    known = FOREIGN | {"--help", "--version"}
    for command in COMMANDS.values():
        known |= options_of(command)
    text = page.read_text(encoding="utf8")
    spans = [*INLINE.findall(FENCE.sub("", text)), *(block.text for block in blocks(page, "sh"))]
    named = {option for span in spans if " pip " not in f" {span}" for option in OPTION.findall(span)}
    assert named <= known


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page_name(page)} links to {target}"


# ---- Python


def test_python_of_the_guide_runs(folder: Path) -> None:
    names: dict[str, Any] = {}
    for page in ("python.md", "directions.md"):
        for block in blocks(ROOT / "examples" / page, "python"):
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(block.text, page, "exec"), names)  # noqa: S102 (our own page)
    assert (folder / "older.mp4").is_file()


def test_the_example_script_runs_and_ends_when_its_time_is_over(folder: Path) -> None:
    words = [str(ROOT / "examples" / "edit_video.py"), "talk.mp4", "older.mp4", "--edit", "smile=1", "--draft"]
    stopped = ended([*words, "--minutes", "0"], folder, PYTHONPATH=PACKAGE)
    assert (stopped.code, stopped.out) == (1, "")
    assert "the same command goes on" in stopped.err
    assert not (folder / "older.mp4").exists()
    ran = ended(words, folder, PYTHONPATH=PACKAGE)
    assert (ran.code, ran.out) == (0, "older.mp4\n"), ran.err
    assert (folder / "older.mp4").is_file()

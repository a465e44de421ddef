"""Spoiled sources, model files and projects through whole commands, in processes that may crash.

As a script it is such a process: `fuzz.py JOB PLACE` reads numbers of cases from stdin, and answers a line for each.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import os
import random
import resource
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from hostile_media import SOURCES

PATIENCE = 120.0  # seconds after which a case is taken for one that hangs, on a machine that is shared
STARTING = 600.0  # seconds in which the process has read its imports
STACK = "hang.txt"  # where a process that hangs says what it is at
CPU = 20.0  # seconds of the processor that a case may take
MEMORY = 1_000_000_000
FEW = 4  # images of a source
# files with a face that are spoiled: containers and codecs of every kind
SPOILED = (
    "plain.mp4", "pieces.mp4", "hevc.mp4", "film.mkv", "web.webm", "old.avi", "frames.avi", "broadcast.ts", "disc.mpg",
    "lossless.nut", "loop.apng",
)  # fmt: skip
CONTAINERS = {name: SOURCES[name] for name in SPOILED}
QUICK = ("--no-finetune", "--preset=ultrafast", "--loss=structural", "--json")


@dataclass(frozen=True)
class Outcome:
    """How a case ended; `wrong` says why it must not have."""

    number: int
    name: str
    code: int
    error: str
    wrong: str
    seconds: float  # of the processor
    peak: int  # bytes of the process up to here


# ---- the side that asks ---------------------------------------------------------------------------------------------


def run_all(job: str, place: Path, numbers: range) -> list[Outcome]:
    """The outcome of every case; the process is started again after a crash or a hang."""
    waiting, outcomes = list(numbers), []
    while waiting:
        outcomes += _one_process(job, place, waiting)
    return outcomes


class Lines:
    """Lines of a pipe, each as soon as it is there.

    A file object reads ahead: `select` then waits for the next line while one is in its buffer, and a case that has
    long ended is taken for one that hangs.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._data = descriptor, b""

    def next(self, patience: float) -> str | None:
        """The next line; empty at the end, None when nothing comes for `patience` seconds."""
        while b"\n" not in self._data:
            if not select.select([self._descriptor], [], [], patience)[0]:
                return None
            if not (more := os.read(self._descriptor, 1 << 16)):
                return ""
            self._data += more
        line, self._data = self._data.split(b"\n", 1)
        return line.decode()


def _one_process(job: str, place: Path, waiting: list[int]) -> Iterator[Outcome]:
    from running import environment

    command = ["nice", "-n", "15", sys.executable, __file__, job, str(place)]
    with subprocess.Popen(
        command, env=environment(SG3_MODELS=os.environ.get("SG3_MODELS", "")), stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        assert process.stdin and process.stdout
        process.stdin.write(json.dumps(waiting) + "\n")
        process.stdin.flush()
        lines = Lines(process.stdout.fileno())
        lines.next(STARTING)  # it is ready: imports do not count
        while waiting:
            line = lines.next(PATIENCE)
            number = waiting.pop(0)
            if not line:
                process.kill()
                at = (place / STACK).read_text(encoding="utf8") if (place / STACK).exists() else ""
                yield Outcome(number, job, process.wait(), at, "hang" if line is None else "crash", PATIENCE, 0)
                return
            yield Outcome(**json.loads(line))


# ---- the side that works --------------------------------------------------------------------------------------------


def command(words: list[str]) -> tuple[int, dict[str, Any], str]:
    """`sg3 WORDS` in this process: code, the object of `--json`, stderr."""
    from sg3cli import cli

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.run(words)
    lines = out.getvalue().strip().splitlines()
    with contextlib.suppress(ValueError, IndexError):
        return code, json.loads(lines[-1]), err.getvalue()
    return code, {}, err.getvalue()


def judged(code: int, err: str) -> str:
    """What is wrong with the end of a command by itself."""
    if code == 0:
        return ""
    if code not in (2, 3, 4):
        return f"exit code {code}"
    two = err.strip().splitlines()[-2:]
    tidy = len(two) == 2 and two[0].startswith("error: ") and two[1].startswith("hint: ")
    return "" if tidy and "bug in sg3" not in err else "an error that is not two lines"


def prepare_sources(place: Path, talk: Path, model: Path) -> None:
    """Whole sources of every kind with a face in them, and the model."""
    from clips import make_clip

    from sg3cli.video import VideoReader

    with VideoReader(talk) as reader:
        faces = [frame.rgb for frame in islice(reader.frames(), FEW)]
    height, width = faces[0].shape[:2]
    for name, keywords in CONTAINERS.items():
        make_clip(place / name, frames=FEW, size=(width, height), image=lambda k, *_: faces[k], **keywords)
    shutil.copytree(model, place / "tiny")


def source_case(place: Path, number: int) -> tuple[str, int, str, str]:
    """(name, code, error, wrong) of a run on a spoiled source."""
    from hostile_media import SPOILERS

    rng = np.random.default_rng([18, number])
    names = list(CONTAINERS)
    name = names[number % len(names)]
    spoil = SPOILERS[(number // len(names) + number) % len(SPOILERS)]
    folder = place / f"source-{number}"
    folder.mkdir()
    source = folder / name
    source.write_bytes(spoil(bytearray((place / name).read_bytes()), rng))
    words = ["run", str(source), "-o", str(folder / "out.mkv"), "--edit=age=2", "--model", str(place / "tiny")]
    code, reply, err = command([*words, "--project", str(folder / "p.sg3"), *QUICK])
    wrong = judged(code, err) or (source_difference(source, folder / "out.mkv", reply) if code == 0 else "")
    if code and (folder / "out.mkv").exists():
        wrong = wrong or "a failed run has left an output"
    shutil.rmtree(folder)
    return f"{spoil.__name__} {name}", code, last_error(err), wrong


def source_difference(source: Path, out: Path, reply: dict[str, Any]) -> str:
    """What of a finished run differs from its source and was not said: images, counted by PyAV alone."""
    told, shown, written = reply["stages"]["align"]["frames"], decoded(source), decoded(out)
    if written != told:
        return f"{written} images written, {told} told"
    if written < shown and len(reply["notices"]) < 2:
        return f"{written} of {shown} images, without a word"
    return ""


def decoded(path: Path) -> int:
    """Images that a plain decoder gets out of the best video of a file; what it cannot decode is skipped."""
    import av

    count = 0
    try:
        with av.open(str(path)) as container:
            stream = container.streams.best("video")
            if stream is None:
                return 0
            for packet in container.demux(stream):
                with contextlib.suppress(av.error.FFmpegError):
                    count += len(packet.decode())
    except av.error.FFmpegError:
        pass
    return count


def prepare_models(place: Path) -> None:
    """Whole model files: official ones, and an imported model with the picture that it draws."""
    from official_files import PICKLES, STATE_DICTS, generator_state, golden_bytes, save_encoder_checkpoint

    for name in (*PICKLES.values(), *STATE_DICTS):
        (place / name).write_bytes(golden_bytes(name))
    save_encoder_checkpoint(place / "e.pt")
    import torch

    torch.save(generator_state(), place / "whole.pt")
    os.environ["SG3_MODELS"] = str(place / "store")
    import_words = ["models", "import", str(place / "whole.pt"), "--name", "whole", "--encoder", str(place / "e.pt")]
    assert command(import_words)[0] == 0
    assert command(["generate", "-o", str(place / "whole.png"), "--seeds", "0", "--model", "whole"])[0] == 0


def model_case(place: Path, number: int) -> tuple[str, int, str, str]:
    """An import of a spoiled file, or (every third) a picture of a model of which a part is spoiled."""
    from damage import DAMAGES

    chance = random.Random(1800 + number)
    folder = place / f"model-{number}"
    folder.mkdir()
    os.environ["SG3_MODELS"] = str(folder / "store")
    if number % 3 == 0:
        name, code, err, wrong = _spoiled_bundle(place, folder, number, chance)
    else:
        files = sorted(p for p in place.iterdir() if p.suffix in (".pt", ".pkl"))
        file = files[number % len(files)]
        name = f"import {file.name}"
        (folder / file.name).write_bytes(file.read_bytes())
        for _ in range(chance.choice((1, 1, 1, 5))):
            DAMAGES[chance.choice(("flipped", "flipped", "zeroed", "truncated", "grown"))](folder / file.name, chance)
        code, _, err = command(["models", "import", str(folder / file.name), "--name", "x"])
        wrong = judged(code, err)
        if code == 0 and file.suffix == ".pt":
            wrong = wrong or import_difference(folder / file.name, folder / "store/x/generator.safetensors")
    shutil.rmtree(folder)
    return name, code, last_error(err), wrong


def _spoiled_bundle(place: Path, folder: Path, number: int, chance: random.Random) -> tuple[str, int, str, str]:
    from damage import DAMAGES

    shutil.copytree(place / "store", folder / "store")
    bundle = folder / "store/whole"
    parts = sorted(path for path in bundle.rglob("*") if path.is_file())
    part, damage = parts[number % len(parts)], list(DAMAGES)[number // 3 % len(DAMAGES)]
    DAMAGES[damage](part, chance)
    out = folder / "out.png"
    code, _, err = command(["generate", "-o", str(out), "--seeds", "0", "--model", "whole"])
    wrong = judged(code, err)
    if code == 0 and pixels(out) != pixels(place / "whole.png"):
        wrong = "another picture, without a word"
    return f"{damage} {part.name}", code, err, wrong


def pixels(path: Path) -> bytes:
    import cv2

    return cv2.imread(str(path)).tobytes()


def import_difference(file: Path, stored: Path) -> str:
    """Whether the weights of an import are those that torch's own restricted reader finds in the file."""
    import torch
    from safetensors.torch import load_file

    try:
        truth = torch.load(file, weights_only=True)
    except Exception:  # noqa: BLE001 (it refuses more than we do: names beside the weights)
        return ""
    truth = truth.get("state_dict", truth)
    truth = {name.removeprefix("decoder."): value for name, value in truth.items() if not name.startswith("encoder.")}
    ours = load_file(str(stored))
    other = [
        name for name, value in ours.items() if name in truth and not torch.equal(truth[name].float(), value.float())
    ]
    return f"{other[0]} differs from the file's" if other else ""


def prepare_projects(place: Path, tuned: Path, model: Path) -> None:
    """A rendered project, and one whose render was cut off between two chunks."""
    from running import relocate

    shutil.copytree(tuned, place / "whole")
    relocate(place / "whole/talk.sg3", tuned, place / "whole")
    shutil.copytree(model, place / "tiny")
    with contextlib.chdir(place / "whole"):
        code, _, err = command(_render(place))
        assert code == 0, err


def _render(place: Path) -> list[str]:
    tuning = ("--finetune-steps=3", "--finetune-batch=2", "--loss=structural", "--preset=ultrafast", "--json")
    return ["run", "talk.mp4", "-o", "out.mp4", "--model", str(place / "tiny"), *tuning]


def project_case(place: Path, number: int) -> tuple[str, int, str, str]:
    """A render of a project with one damaged file (every fourth: two)."""
    from damage import DAMAGES, files_of
    from running import relocate

    from sg3cli.files import digest_of

    chance = random.Random(18000 + number)
    folder = place / f"project-{number}"
    shutil.copytree(place / "whole", folder)
    relocate(folder / "talk.sg3", place / "whole", folder)
    (folder / "out.mp4").unlink()
    files = files_of(folder / "talk.sg3")
    hit = {files[number % len(files)], *(chance.sample(files, 1) if number % 4 == 0 else ())}
    damages = [(name, chance.choice(list(DAMAGES))) for name in sorted(hit)]
    for name, damage in damages:
        DAMAGES[damage](folder / "talk.sg3" / name, chance)
    with contextlib.chdir(folder):
        code, _, err = command(_render(place))
    wrong = judged(code, err)
    if code == 0 and digest_of(folder / "out.mp4") != digest_of(place / "whole/out.mp4"):
        wrong = "another video, without a word"
    if code == 3 and not any(str(name) in err for name, _ in damages):
        wrong = wrong or "the error names no file that is damaged"
    shutil.rmtree(folder)
    return ", ".join(f"{damage} {name}" for name, damage in damages), code, last_error(err), wrong


def last_error(err: str) -> str:
    return next((line for line in err.splitlines() if line.startswith("error: ")), "")[:200]


JOBS: dict[str, Callable[[Path, int], tuple[str, int, str, str]]] = {
    "sources": source_case,
    "models": model_case,
    "projects": project_case,
}


def main() -> None:
    """Answer the cases whose numbers stand on standard input."""
    from hostile_media import peak_memory

    import sg3cli.cli.app
    import sg3cli.pipeline.render  # noqa: F401 (imports do not count)

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    job, place, numbers = sys.argv[1], Path(sys.argv[2]), json.loads(sys.stdin.readline())
    print("ready", file=answers, flush=True)
    stack = (place / STACK).open("w")
    faulthandler.enable(stack)  # of a crash
    for number in numbers:
        faulthandler.dump_traceback_later(0.9 * PATIENCE, file=stack)
        began = time.process_time()
        try:
            name, code, error, wrong = JOBS[job](place, number)
        except BaseException as problem:  # noqa: BLE001 (the test is that there is none)
            name, code, error, wrong = job, -1, "", f"{type(problem).__name__}: {problem}"
        outcome = Outcome(number, name, code, error, wrong, time.process_time() - began, peak_memory())
        print(json.dumps(asdict(outcome)), file=answers, flush=True)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()

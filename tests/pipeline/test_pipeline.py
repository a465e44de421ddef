"""The whole chain on a tiny model and a short clip with a face, through the command line and through `Job`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from running import cut, ended, environment, example_clip, halved, relocate, sg3

from sg3cli import cli
from sg3cli.compositing.face_mask import face_mask, landmarks_in_window
from sg3cli.compositing.paste import warp_alpha
from sg3cli.console import Console
from sg3cli.errors import InputError, ModelError
from sg3cli.faces.alignment import ABSENT
from sg3cli.files import digest_of, read_arrays
from sg3cli.latents.edits import parse_edit
from sg3cli.pipeline import Job, presence, render, render_plan
from sg3cli.pipeline.finetune import tuned_generator
from sg3cli.pipeline.invert import load_codes, smoothed_codes
from sg3cli.project import Project
from sg3cli.settings import EncodeConfig, Settings
from sg3cli.video import VideoReader, VideoWriter, packet_digest
from sg3cli.video.probe import probe
from sg3cli.weights.bundle import load_model

TUNING = ["--finetune-steps=6", "--finetune-batch=2", "--loss=structural", "--save-every=2", "--preset=ultrafast"]
ARRAYS = ("align/track.safetensors", "invert/ws.npy", "finetune/delta.safetensors")


@pytest.fixture(scope="module", autouse=True)
def short_blocks() -> Iterator[None]:
    """A clip of twelve frames is inverted in two blocks, so that a signal comes between them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sg3cli.latents.inversion.BLOCK_PIXELS", 128)
        yield


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, talk: Path, tiny_bundle: Path) -> Path:
    """A folder in which `sg3 run` has made `out.mp4` of `talk.mp4`, as an unbroken run does."""
    folder = tmp_path_factory.mktemp("done")
    shutil.copy(talk, folder / "talk.mp4")
    previous = Path.cwd()
    os.chdir(folder)
    try:
        assert cli.run(run_line(tiny_bundle)) == 0
    finally:
        os.chdir(previous)
    return folder


@pytest.fixture
def copy(done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder to work in."""
    folder = tmp_path / "copy"
    shutil.copytree(done, folder)
    relocate(folder / "talk.sg3", done, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def fresh(talk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the clip alone."""
    shutil.copy(talk, tmp_path / "talk.mp4")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_line(bundle: Path) -> list[str]:
    edits = ("--edit", "age=2", "--edit", "smile=1@0s..0.2s")
    return ["run", "talk.mp4", "-o", "out.mp4", "--model", str(bundle), *edits, *TUNING]


def arrays(folder: Path) -> dict[str, str]:
    return {name: digest_of(folder / "talk.sg3" / name) for name in ARRAYS}


# ---- what comes out


def test_frames_timing_and_sound_are_the_source_s(done: Path) -> None:
    source, result = probe(done / "talk.mp4"), probe(done / "out.mp4")
    assert (result.frames, result.width, result.height) == (source.frames, source.width, source.height)
    assert result.duration == pytest.approx(source.duration, abs=1e-6) and result.frames == 12
    with VideoReader(done / "talk.mp4") as before, VideoReader(done / "out.mp4") as after:
        assert (before.times == after.times).all()
    assert len(source.audio) == len(result.audio) == 1
    assert packet_digest(done / "talk.mp4", "audio") == packet_digest(done / "out.mp4", "audio") != []


def test_the_project_holds_open_arrays_with_the_digests_of_their_models(done: Path, tiny_bundle: Path) -> None:
    project, bundle = Project.open(done / "talk.sg3"), load_model(tiny_bundle)
    assert [project.status(stage) for stage in ("align", "invert", "finetune", "render")] == ["done"] * 4
    codes = np.load(done / "talk.sg3/invert/ws.npy", allow_pickle=False)
    assert codes.shape == (12, 8, 32) and codes.dtype == np.float32 and np.isfinite(codes).all()
    assert np.ptp(codes, axis=0).max() > 0  # frames differ
    assert project.record("invert").models["generator"] == bundle.digest
    delta, meta = read_arrays(done / "talk.sg3/finetune/delta.safetensors")
    assert meta["generator"] == bundle.digest and max(np.abs(d).max() for d in delta.values()) > 0
    assert len((done / "talk.sg3/finetune/log.jsonl").read_text().splitlines()) == 6
    assert not list(done.rglob("*.tmp")) and not list(done.rglob("*.part"))


def test_the_output_says_how_it_was_made(done: Path, tiny_bundle: Path) -> None:
    record = json.loads((done / "out.mp4.json").read_text())
    assert [edit["strength"] for edit in record["edits"]] == ["2", "1@0s..0.2s"]
    assert record["source"]["sha256"] == digest_of(done / "talk.mp4")
    assert record["models"]["generator"] == load_model(tiny_bundle).digest
    assert record["output"]["sha256"] == digest_of(done / "out.mp4")
    inside = json.loads(probe(done / "out.mp4").metadata["comment"])["sg3"]
    assert inside == {key: value for key, value in record.items() if key != "output"}


def job_on(folder: Path, bundle: Path, **render_changes: Any) -> Job:
    settings = Settings().having(invert={"model": str(bundle)}, render=render_changes)
    return Job(Project.open(folder / "talk.sg3"), settings)


def composed(job: Job, detail: float = 0.0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(source, result) of every frame, before encoding; the face as the generator draws it unless `detail` is given."""
    project, bundle, config = job.project, job.bundle(), replace(job.settings.render, detail=detail)
    track = project.track()
    codes = smoothed_codes(project, bundle, track, config.smooth)
    G = tuned_generator(project, bundle, True)
    with VideoReader(project.source()) as reader:
        frames = list(reader)
    result = render.compose(iter(frames), render_plan.plan(job, bundle, True).of_face(track, codes), G, config)
    yield from ((before.rgb, after.rgb) for before, after in zip(frames, result, strict=True))


def test_a_mask_that_does_not_fit_is_refused_before_faces_are_inverted(
    fresh: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite("small.png", np.zeros((10, 10), np.uint8))
    assert cli.run([*run_line(tiny_bundle), "--mask", "small.png"]) == 3
    assert "small.png is 10x10" in capsys.readouterr().err
    assert list((fresh / "talk.sg3").glob("invert/*")) == []


def test_pixels_outside_the_mask_keep_their_bits(done: Path, tiny_bundle: Path) -> None:
    job = job_on(done, tiny_bundle)
    track = job.project.track()
    for index, (before, after) in enumerate(composed(job)):
        window = track.windows[index]
        alpha = face_mask(landmarks_in_window(track.landmarks[index], window, 32), 32, 0.08)
        outside = warp_alpha(alpha, window, before.shape[:2]) == 0
        assert 0.3 < outside.mean() < 0.95
        assert (before[outside] == after[outside]).all()
        assert np.abs(before[~outside].astype(int) - after[~outside]).mean() > 10


def test_what_no_edit_touches_is_the_source(done: Path, tiny_bundle: Path) -> None:
    job = job_on(done, tiny_bundle)
    job.project.edits = []
    assert all((before == after).all() for before, after in composed(job, detail=1.0))
    job.project.edits = [parse_edit("smile=8@0s..0.2s")]
    changed = [bool((before != after).any()) for before, after in composed(job, detail=1.0)]
    assert changed == [time < 0.2 for time in job.project.track().times]


def test_an_edit_moves_the_face_only_while_it_is_active(done: Path, tiny_bundle: Path) -> None:
    job = job_on(done, tiny_bundle)
    job.project.edits = []
    plain = [after for _, after in composed(job)]
    job.project.edits = [parse_edit("smile=8@0s..0.2s")]
    edited = [after for _, after in composed(job)]
    changed = [bool((a != b).any()) for a, b in zip(plain, edited, strict=True)]
    assert changed == [time < 0.2 for time in job.project.track().times]


def test_views(copy: Path) -> None:
    for view, size in (("face", (32, 32)), ("compare", (512, 256))):
        assert cli.run(["render", "talk.sg3", "-o", f"{view}.mp4", "--view", view, "--no-finetune", "-q"]) == 0
        info = probe(copy / f"{view}.mp4")
        assert (info.width, info.height, info.frames) == (*size, 12)
    with VideoReader("compare.mp4") as reader, VideoReader("talk.mp4") as source:
        left = next(iter(reader)).rgb[:, :256].astype(int)
        assert np.abs(left - next(iter(source)).rgb).mean() < 3


def test_a_video_on_stdout_is_matroska_and_nothing_else(copy: Path) -> None:
    ran = sg3("render", "talk.sg3", "-o", "-", "--no-finetune", "-q", cwd=copy, binary=True)
    assert ran.code == 0, ran.err
    (copy / "piped.mkv").write_bytes(ran.raw)
    assert probe(copy / "piped.mkv").frames == 12


# ---- what is computed


def outcomes(capsys: pytest.CaptureFixture[str], line: list[str]) -> dict[str, str]:
    capsys.readouterr()
    assert cli.run([*line, "--json"]) == 0
    return {stage: facts["status"] for stage, facts in json.loads(capsys.readouterr().out)["stages"].items()}


def test_a_second_run_computes_nothing_and_says_so(
    copy: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {
        path: path.stat().st_mtime_ns for path in copy.rglob("*") if path.is_file() and path.name != "project.json"
    }
    assert cli.run(run_line(tiny_bundle)) == 0
    err = capsys.readouterr().err
    for stage in ("align", "invert", "finetune"):
        assert f"{stage}: up to date, nothing was computed" in err
    assert "render: out.mp4 is up to date, nothing was computed" in err
    known = {path: path.stat().st_mtime_ns for path in before}
    assert known == before


def test_only_what_depends_on_a_change_is_computed_again(
    copy: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = run_line(tiny_bundle)
    old = {"align": "up to date", "invert": "up to date", "finetune": "up to date", "render": "up to date"}
    assert outcomes(capsys, line) == old
    assert outcomes(capsys, [*line, "--edit", "age=1"]) == {**old, "render": "done"}
    assert outcomes(capsys, [*line, "--seed", "1"]) == {**old, "finetune": "done", "render": "done"}
    assert outcomes(capsys, [*line, "--crop", "fixed"]) == dict.fromkeys(old, "done")
    (copy / "out.mp4").write_bytes(b"not what was written")
    assert outcomes(capsys, [*line, "--crop", "fixed", "--force"])["render"] == "done"


def test_later_commands_keep_what_earlier_ones_were_asked_for(
    fresh: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["invert", "talk.mp4", "--steps", "2", "--crop", "smooth", "--model", str(tiny_bundle)]) == 0
    assert capsys.readouterr().out == "talk.sg3\n"
    assert cli.run(["finetune", "talk.sg3", "--steps", "2", "--smooth", "none", "--loss", "structural"]) == 0
    tuned = outcomes(capsys, ["render", "talk.sg3", "-o", "a.mp4"])
    assert tuned == {"align": "up to date", "invert": "up to date", "finetune": "up to date", "render": "done"}


def test_the_pipe(fresh: Path, tiny_bundle: Path) -> None:
    first = sg3("invert", "talk.mp4", "--model", tiny_bundle, cwd=fresh)
    second = sg3("edit", "--direction", "age", "--strength", "2", cwd=fresh, stdin=first.out)
    third = sg3("render", "-o", "b.mp4", "--no-finetune", cwd=fresh, stdin=second.out)
    assert [ran.out for ran in (first, second, third)] == ["talk.sg3\n"] * 3
    assert json.loads((fresh / "b.mp4.json").read_text())["edits"][0]["strength"] == "2"


def test_edit_inverts_first_and_afterwards_needs_no_torch(fresh: Path, tiny_bundle: Path) -> None:
    edit = ["edit", "talk.mp4", "--direction", "age", "--strength", "0s:0,1s:2", "--preserve", "smile"]
    assert cli.run([*edit, "--model", str(tiny_bundle)]) == 0
    assert Project.open(fresh / "talk.sg3").status("invert") == "done"
    without_torch = (
        "import sys; sys.modules['torch'] = sys.modules['av'] = None; from sg3cli import cli; sys.exit(cli.run({}))"
    )
    again = ended(
        ["-c", without_torch.format(["edit", "talk.sg3", "--direction", "smile", "--strength=-1"])], cwd=fresh
    )
    assert (again.code, again.out) == (0, "talk.sg3\n"), again.err
    edits = Project.open(fresh / "talk.sg3").edits
    assert [(e.direction, e.text, e.preserve) for e in edits] == [
        ("age", "0s:0,1s:2", ("smile",)),
        ("smile", "-1", ()),
    ]
    assert cli.run(["edit", "talk.sg3", "--direction", "age", "--strength", "0"]) == 0
    assert [e.direction for e in Project.open(fresh / "talk.sg3").edits] == ["smile"]
    assert cli.run(["edit", "talk.sg3", "--clear"]) == 0
    assert Project.open(fresh / "talk.sg3").edits == []


def test_an_edit_of_nothing_and_a_repeated_one(copy: Path, tiny_bundle: Path) -> None:
    line = [word for word in run_line(tiny_bundle) if word not in ("--edit", "age=2", "smile=1@0s..0.2s")]
    assert cli.run([*line, "--edit", "age=1", "--edit", "age=3", "--edit", "smile=0", "--no-finetune"]) == 0
    assert [(e.direction, e.text) for e in Project.open(copy / "talk.sg3").edits] == [("age", "3")]
    assert Project.open(copy / "talk.sg3").status("render") == "done"
    assert cli.run(["edit", "talk.sg3", "--clear"]) == 0
    assert Project.open(copy / "talk.sg3").status("render") == "stale"


def test_a_boundary_file_is_a_direction(copy: Path, tiny_bundle: Path) -> None:
    np.save(copy / "hat_boundary.npy", np.ones((1, 32), np.float32))
    assert cli.run(["edit", "talk.sg3", "--clear", "--direction", "hat_boundary.npy", "--strength", "1"]) == 0
    (edit,) = Project.open(copy / "talk.sg3").edits
    assert edit.direction == str(copy / "hat_boundary.npy")
    assert cli.run(["render", "talk.sg3", "-o", "hat.mp4", "--no-finetune"]) == 0
    np.save(copy / "wide_boundary.npy", np.ones((1, 512), np.float32))
    assert cli.run(["edit", "talk.sg3", "--direction", "wide_boundary.npy", "--strength", "1"]) == 4


def test_codes_of_another_generator_are_an_error_by_name(copy: Path, tiny_bundle: Path) -> None:
    described = json.loads((copy / "talk.sg3/invert/ws.json").read_text())
    (copy / "talk.sg3/invert/ws.json").write_text(json.dumps({**described, "generator": "sha256:" + "0" * 64}))
    project = Project.open(copy / "talk.sg3")
    with pytest.raises(InputError, match=r"ws\.json is damaged"):
        load_codes(project, load_model(tiny_bundle).digest)
    project.seal("invert/ws.json")
    with pytest.raises(ModelError, match="belong to another generator"):
        load_codes(project, load_model(tiny_bundle).digest)


# ---- frames without a face


def test_the_face_fades_beside_frames_that_show_none() -> None:
    times = np.arange(20) / 20
    status = np.zeros(20, np.uint8)
    status[[8, 9]] = ABSENT
    opacity = presence.presence(times, status)
    assert opacity[[8, 9]].tolist() == [0, 0] and (opacity[[0, 4, 13, 19]] == 1).all()
    assert opacity[[6, 7, 10, 11]] == pytest.approx([0.5, 0.25, 0.25, 0.5])
    assert (presence.presence(times, np.zeros(20)) == 1).all()


def test_frames_without_a_face_pass_through(
    tmp_path: Path, talk: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    blank = {5, 6, 7}
    with VideoReader(talk) as reader, VideoWriter("talk.mp4", reader.info, EncodeConfig(crf=8)) as writer:
        for frame in reader:
            writer.write(replace(frame, rgb=np.full_like(frame.rgb, 128)) if frame.index in blank else frame)
    line = ["run", "talk.mp4", "-o", "o.mp4", "--model", str(tiny_bundle), "--max-gap", "0.05", *TUNING]
    assert cli.run(line) == 0
    assert "3 of 12 frames show no face" in capsys.readouterr().err
    results = list(composed(job_on(tmp_path, tiny_bundle)))
    assert [bool((before == after).all()) for before, after in results] == [i in blank for i in range(12)]
    codes = np.load("talk.sg3/invert/ws.npy", allow_pickle=False)
    assert (codes[5] == codes[4]).all() and (codes[7] == codes[8]).all()


# ---- interruption


def stop_in(stage: str, after: int, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the process meet a signal when `stage` has done `after` items."""
    progress: Callable[..., Iterator[Any]] = Console.progress

    def interrupted(
        self: Console, items: Iterable[Any], total: int | None, label: str, start: int = 0
    ) -> Iterator[Any]:
        passed = progress(self, items, total, label, start)
        if label != stage:
            yield from passed
            return
        yield from islice(passed, after)
        os.kill(os.getpid(), number)
        yield from passed

    monkeypatch.setattr(Console, "progress", interrupted)


STOPS = {  # stage -> items done before the signal, and what is kept of them
    "align": (9, "align/faces/000000004.safetensors"),
    "invert": (9, "invert/parts/000000000.safetensors"),
    "finetune": (3, "finetune/checkpoint.safetensors"),
    "render": (3, "finetune/delta.safetensors"),
}


@pytest.fixture
def handlers() -> Iterator[None]:
    """The signal handlers of the `sg3` command, for as long as the test runs."""
    before = {number: signal.signal(number, cli._stop) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize(
    ("stage", "number"),
    [("align", signal.SIGINT), ("invert", signal.SIGINT), ("finetune", signal.SIGTERM), ("render", signal.SIGINT)],
)
def test_a_signal_in_any_stage_loses_nothing(
    stage: str,
    number: int,
    done: Path,
    fresh: Path,
    tiny_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The same command continues from the last chunk, and its arrays and video are those of an unbroken run."""
    (fresh / "out.mp4").write_bytes(b"an earlier video")
    monkeypatch.setattr("sg3cli.pipeline.align.CHUNK", 4)
    monkeypatch.setattr("sg3cli.pipeline.invert.CHUNK", 4)
    after, kept = STOPS[stage]
    with monkeypatch.context() as patch:
        stop_in(stage, after, number, patch)
        assert cli.run([*run_line(tiny_bundle), "--force"]) == 128 + number
    what, hint = capsys.readouterr().err.strip().splitlines()[-2:]
    assert what.startswith("error: run was ") and hint.endswith("the same command continues")
    assert (fresh / "out.mp4").read_bytes() == b"an earlier video"
    assert (fresh / "talk.sg3" / kept).is_file()
    assert not list(fresh.rglob("*.tmp")) and not list(fresh.rglob("*.part"))
    assert cli.run([*run_line(tiny_bundle), "--force"]) == 0
    assert arrays(fresh) == arrays(done)
    assert digest_of(fresh / "out.mp4") == digest_of(done / "out.mp4")


def killed_when(line: list[str], folder: Path, pattern: str) -> None:
    """Run a command and kill it (SIGKILL) as soon as a file like `pattern` is there."""
    with subprocess.Popen(
        [sys.executable, "-m", "sg3cli", *line], cwd=folder, env=environment(), stdin=subprocess.DEVNULL
    ) as process:
        while not list(folder.glob(pattern)):
            assert process.poll() is None, f"ended before {pattern} was there"
            time.sleep(0.002)
        process.kill()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_a_kill_in_every_stage_changes_nothing_in_the_end(
    tmp_path: Path, tiny_bundle: Path, face_model: None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    clip = cut(example_clip("woman_talks.mp4"), tmp_path / "talk.mp4", 80)
    whole = tmp_path_factory.mktemp("whole")
    shutil.copy(clip, whole)
    line = [*run_line(tiny_bundle), "--finetune-steps=60", "--save-every=10", "--preset=slow"]
    assert sg3(*line, cwd=whole).code == 0
    for pattern in (
        "talk.sg3/align/faces/000000032.safetensors",
        "talk.sg3/invert/parts/000000032.safetensors",
        "talk.sg3/finetune/checkpoint.safetensors",
        ".out.mp4.*.part",
    ):
        killed_when(line, tmp_path, pattern)
        assert not (tmp_path / "out.mp4").exists()
    assert sg3(*line, cwd=tmp_path).code == 0
    assert arrays(tmp_path) == arrays(whole)
    assert digest_of(tmp_path / "out.mp4") == digest_of(whole / "out.mp4")
    assert not list(tmp_path.rglob("*.tmp")) and not list(tmp_path.rglob("*.part"))


@pytest.mark.slow
def test_rendering_a_long_clip_takes_no_more_memory(tmp_path: Path, tiny_bundle: Path, face_model: None) -> None:
    """Peak memory of `render` on ten times the frames, within five percent."""
    peaks = []
    for name, times in (("short", 1), ("long", 10)):
        repeated(example_clip("woman_talks.mp4"), tmp_path / f"{name}.mp4", times)
        assert sg3("invert", f"{name}.mp4", "--model", tiny_bundle, cwd=tmp_path).code == 0
        script = (
            "import resource; from sg3cli import cli;"
            f"assert cli.run(['render', '{name}.sg3', '-o', '{name}-out.mp4', '--no-finetune', '-q']) == 0;"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        peaks.append(int(ended(["-c", script], cwd=tmp_path).out.splitlines()[-1]))
    assert peaks[1] < 1.05 * peaks[0], peaks


def repeated(source: Path, out: Path, times: int) -> None:
    """The clip's first 60 frames at half size, `times` over."""
    with VideoReader(source) as reader:
        info = reader.info
        frames = [replace(frame, rgb=halved(frame.rgb)) for frame in islice(reader, 60)]
        step = frames[1].pts - frames[0].pts
        with VideoWriter(
            out, replace(info, audio=()), EncodeConfig(preset="veryfast"), (info.width // 2,) * 2
        ) as writer:
            for number in range(60 * times):
                writer.write(replace(frames[number % 60], pts=frames[0].pts + number * step))

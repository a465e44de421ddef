"""`sg3 evaluate`: figures that agree with a computation by hand, notice what is wrong, and are never made up."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from running import cut, relocate
from tiny import make_tiny_bundle

import sg3cli.evaluation.project_metrics as evaluation
from sg3cli import cli
from sg3cli.cli.evaluate import figure_lines, parse_sweep, sweep_lines
from sg3cli.console import Console
from sg3cli.errors import UsageError
from sg3cli.evaluation.figure_words import timing_rows
from sg3cli.evaluation.project_metrics import face_figures, merged, present_jitter, timing
from sg3cli.evaluation.strength_sweep import response
from sg3cli.faces.alignment import ABSENT, Track
from sg3cli.geometry import warp_quad
from sg3cli.latents.codes import Codes
from sg3cli.latents.edits import apply_edits, parse_edit
from sg3cli.latents.inversion import spread
from sg3cli.latents.rendering import render_crops
from sg3cli.manifest import read_manifest, write_manifest
from sg3cli.metrics.reconstruction import psnr, reconstruction_report
from sg3cli.nets.attribute_net import AttributeNet, AttributeNetConfig, load_attribute_net, save_attribute_net
from sg3cli.pipeline import Job
from sg3cli.pipeline.finetune import tuned_generator
from sg3cli.pipeline.load_edits import load_edits
from sg3cli.project import Project
from sg3cli.settings import CONFIGS, Settings
from sg3cli.video import VideoReader
from sg3cli.weights.bundle import Bundle, load_model
from sg3cli.weights.loaded_nets import LoadedNets

LABELS = ("age", "smile", "yaw")
EDITS = ("age=2@0s..0.2s", "smile=1@0s..0.1s")
MOVED = 5  # frames of 25 a second before 0.2 s


def random_attribute_net() -> AttributeNet:
    """A net that knows nothing but answers differently to different images, with labels of different scales."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = AttributeNet(AttributeNetConfig(LABELS, 1, (4, 8, 8, 8), 8)).requires_grad_(False)
        for _ in range(20):  # statistics of the normalisation
            net(torch.nn.functional.interpolate(0.3 * torch.randn(8, 3, 4, 4), size=32, mode="bilinear"))
        net.labels.weight.mul_(10)
        net.mean.copy_(torch.tensor([40.0, 0.5, 0.0]))
        net.std.copy_(torch.tensor([15.0, 0.25, 20.0]))
    return net.eval()


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, talk: Path) -> Path:
    """A folder in which `sg3 run` has made `out.mp4` of seven frames, with a model that has an attribute net."""
    folder = tmp_path_factory.mktemp("evaluate")
    save_attribute_net(make_tiny_bundle(folder / "tiny") / "probe.safetensors", random_attribute_net())
    cut(talk, folder / "talk.mp4", 7)
    previous = Path.cwd()
    os.chdir(folder)
    try:
        tuning = ["--finetune-steps=8", "--finetune-batch=2", "--loss=structural", "--preset=ultrafast"]
        edits = [word for edit in EDITS for word in ("--edit", edit)]
        assert cli.run(["run", "talk.mp4", "-o", "out.mp4", "--model", "tiny", *edits, *tuning]) == 0
    finally:
        os.chdir(previous)
    return folder


@pytest.fixture
def here(done: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(done)
    return done


@pytest.fixture
def copy(done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the folder that a test may spoil."""
    folder = tmp_path / "copy"
    shutil.copytree(done, folder)
    relocate(folder / "talk.sg3", done, folder)
    monkeypatch.chdir(folder)
    return folder


def figures(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    code = cli.run(["evaluate", *words, "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert code == 0, printed
    return printed


def bundle_in(folder: Path) -> Bundle:
    return load_model(folder / "tiny")


def by_hand(folder: Path, tuned: bool, edited: bool = False) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(aligned crop in [-1, 1], render of the smoothed code) of every frame."""
    project, track = Project.open(folder / "talk.sg3"), Project.open(folder / "talk.sg3").track()
    (codes,) = (np.load(path) for path in (folder / "talk.sg3" / "invert").glob("smooth-*.npy"))
    bundle = bundle_in(folder)
    if edited:
        loaded = load_edits([parse_edit(text) for text in EDITS], bundle, LoadedNets())
        codes = apply_edits(Codes(codes), track.times, loaded.edits)
    renders = render_crops(tuned_generator(project, bundle, tuned), codes)
    with VideoReader(project.source()) as reader:
        for frame, render in zip(reader, renders, strict=True):
            yield warp_quad(frame.rgb, track.quads[frame.index], 32) / 127.5 - 1, render


def read(folder: Path, images: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Labels in their units and unit embeddings, one image after the other."""
    net = load_attribute_net(folder / "tiny" / "probe.safetensors")  # as stored, which may be in half precision
    levels = [p.astype(np.float32) / 127.5 - 1 if p.dtype == np.uint8 else p.clip(-1, 1) for p in images]
    batches = [torch.from_numpy(x.astype(np.float32)).permute(2, 0, 1)[None] for x in levels]
    labels, _, embedding = zip(*(net(x) for x in batches), strict=True)
    return (torch.cat(labels) * net.std + net.mean).numpy(), torch.cat(embedding).numpy()


# ---- a finished project


def test_the_figures_are_those_computed_by_hand(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = figures(capsys)
    (output,) = found["timing"]
    assert output["pts_equal"] and output["duration_equal"] and output["audio_equal"]
    assert (output["frames"], output["source_frames"], output["pts_max_difference"]) == (7, 7, 0.0)
    assert output["audio_packets"] == output["source_audio_packets"] > 10
    assert (found["faces"]["found"], found["faces"]["absent"], found["resolution"], found["frames"]) == (7, 0, 32, 7)
    assert 0 < found["faces"]["jitter_smoothed"] < found["faces"]["jitter_raw"]
    scores = {}
    for name, tuned in (("tuned", True), ("untuned", False)):
        scores[name] = [psnr((np.clip(crop, -1, 1) + 1) * 127.5, render) for crop, render in by_hand(here, tuned)]
        report = found["reconstruction"][name]
        assert report["psnr_mean"] == pytest.approx(np.mean(scores[name]), abs=0.02)
        assert report["psnr_min"] == pytest.approx(min(scores[name]), abs=0.02)
        assert report["worst_frame"] == int(np.argmin(scores[name]))
        assert 0 < report["ms_ssim_mean"] < 1 and report["perceptual_mean"] > 0 and report["perceptual"]
    assert abs(np.mean(scores["tuned"]) - np.mean(scores["untuned"])) > 0.05
    assert found["outside"] == {"frames": 7, "max_difference": 0}
    transfer = found["transfer"]
    assert (
        transfer["pairs"] == 6 and 0.5 < transfer["sharpness"] < 1.5 and 0.5 < transfer["flicker"] < 5
    )  # the edit ends within the clip
    assert transfer["motion"] > 0 and 0 <= transfer["new"] < 1
    table = "\n".join(figure_lines(found))
    assert "not computed" not in table and "DIFFERENT" not in table
    assert (
        f"PSNR {found['reconstruction']['tuned']['psnr_mean']:.2f} dB" in table
        and "timestamps              equal\n" in table
    )


def test_identity_and_labels_are_the_probe_s(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = figures(capsys)
    crops, plain = zip(*by_hand(here, True), strict=True)
    edited = [render for _, render in by_hand(here, True, edited=True)]
    (_, source), (before, unedited), (after, changed) = (read(here, list(p)) for p in (crops, plain, edited))
    for name, embedding, count in (("reconstruction", unedited, 7), ("edited", changed, MOVED)):
        cosine = (source * embedding).sum(1)[:count]
        assert found["identity"][name]["frames"] == count
        assert found["identity"][name]["mean"] == pytest.approx(cosine.mean(), abs=1e-3)
        assert found["identity"][name]["min"] == pytest.approx(cosine.min(), abs=1e-3)
    std = np.array([15.0, 0.25, 20.0])
    change = (after - before)[:MOVED].mean(0)
    assert np.abs(change / std).max() > 0.01
    for name, value, unit in zip(LABELS, change, std, strict=True):
        assert found["labels"][name]["change"] == pytest.approx(value, abs=5e-4 * unit)
        assert found["labels"][name]["change_std"] == pytest.approx(value / unit, abs=5e-4)


def test_every_kth_frame(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = figures(capsys, "talk.sg3", "--every", "3")
    assert (found["frames"], found["reconstruction"]["tuned"]["frames"], found["outside"]["frames"]) == (3, 3, 3)
    expected = [psnr((np.clip(crop, -1, 1) + 1) * 127.5, render) for crop, render in by_hand(here, True)][::3]
    assert found["reconstruction"]["tuned"]["psnr_mean"] == pytest.approx(np.mean(expected), abs=0.02)
    assert found["reconstruction"]["tuned"]["worst_frame"] == 3 * int(np.argmin(expected))


def test_what_cannot_be_computed_is_said_and_is_never_zero(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / "tiny" / "probe.safetensors").unlink()
    manifest = read_manifest(copy / "talk.sg3")
    del manifest["stages"]["finetune"], manifest["stages"]["render"]
    write_manifest(copy / "talk.sg3", manifest)
    found = figures(capsys)
    assert found["timing"] == [] and found["labels"] is None and found["reconstruction"]["tuned"] is None
    assert found["identity"] == {"reconstruction": None, "edited": None}
    assert found["reconstruction"]["untuned"]["frames"] == 7
    assert any("finetune is missing" in notice for notice in found["notices"])
    assert any("probe.safetensors" in notice for notice in found["notices"])
    del manifest["stages"]["invert"]
    write_manifest(copy / "talk.sg3", manifest)
    assert cli.run(["evaluate"]) == 0
    lines = {line[:26].strip(): line[26:] for line in capsys.readouterr().out.splitlines()}
    missing = ("timing", "reconstruction, tuned", "reconstruction, untuned", "identity, edited", "labels")
    assert {lines[name] for name in (*missing, "outside the mask", "face against the source")} == {"not computed"}
    assert lines["faces"].startswith("found 7")


def test_a_damaged_probe_is_named(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / "tiny" / "probe.safetensors").write_bytes(b"not a network")
    assert cli.run(["evaluate"]) == 4
    assert "probe.safetensors" in capsys.readouterr().err


def test_without_an_edit_the_face_is_as_sharp_and_as_calm_as_the_source(here: Path) -> None:
    project = Project.open(Path("talk.sg3"))
    job = Job(project, cli_settings(project), Console(quiet=True))
    subject = evaluation.open_subject(job, True)
    face = replace(subject.face, edits=[])
    found = evaluation.transfer_figures(job, face, subject.G, job.settings.render, [0, 3, 6])
    assert found == {"pairs": 2, "sharpness": 1.0, "flicker": 1.0, "motion": 0.0, "new": 0.0}


def test_a_paste_that_leaks_is_seen(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = Project.open(Path("talk.sg3"))
    job = Job(project, cli_settings(project), Console(quiet=True))
    subject = evaluation.open_subject(job, True)
    real = evaluation.compose

    def leaking(*arguments: Any) -> Iterator[Any]:
        for frame in real(*arguments):
            rgb = frame.rgb.copy()
            rgb[0, 0, 1] ^= 4  # a corner of the frame
            yield replace(frame, rgb=rgb)

    with VideoReader(project.source()) as reader:
        frames = list(reader)[:2]
    config = job.settings.render
    assert evaluation.outside_differences(subject, frames, config) == [0, 0]
    monkeypatch.setattr(evaluation, "compose", leaking)
    assert evaluation.outside_differences(subject, frames, config) == [4, 4]


def cli_settings(project: Project) -> Settings:
    from sg3cli.cli import setting_sources

    recorded = {stage: project.record(stage).params for stage in CONFIGS}
    return setting_sources.resolve({}, {}, recorded, ())


# ---- timing and faces


def test_timing_tells_a_shorter_clip_and_other_sound(here: Path, other: Path, tmp_path: Path) -> None:
    short = cut(here / "talk.mp4", tmp_path / "short.mp4", 5)
    found = timing(here / "talk.mp4", short)
    assert (found["frames"], found["source_frames"]) == (5, 7)
    assert "DIFFERENT" in "".join(words for _, words in timing_rows(found))
    assert not found["pts_equal"] and not found["duration_equal"] and found["audio_equal"]
    assert timing(here / "talk.mp4", other)["audio_equal"] is False


def still_track(status: list[int]) -> Track:
    """A face that does not move, but whose square is far away in frames without it."""
    T = len(status)
    absent = np.array(status) == ABSENT
    square = np.array([[0, 0], [0, 9], [9, 9], [9, 0]], np.float64)
    quads = np.where(absent[:, None, None], 500.0, square)
    eye = np.broadcast_to(np.eye(3), (T, 3, 3))
    landmarks = np.zeros((T, 68, 2), np.float32)
    times = np.arange(T) / 25
    kinds, shots = np.array(status, np.uint8), np.zeros(T, np.int32)
    return Track(np.arange(T), times, landmarks, quads, quads, quads, eye, kinds, shots)


def test_faces_are_counted_by_how_they_were_found() -> None:
    found = face_figures(still_track([0, 0, 0, 1, 2, 2, 1, 0, 1, 0, 0]))
    assert (found["found"], found["interpolated"], found["absent"], found["longest_gap"]) == (6, 3, 2, 4)
    assert found["jitter_raw"] == 0.0  # no jump is counted where the face is away
    assert face_figures(still_track([0, 0, 2, 0, 0]))["jitter_raw"] is None


def test_jitter_weighs_stretches_by_their_length() -> None:
    track = still_track([0] * 6 + [2] + [0] * 3)
    quads = track.quads.copy()
    quads[8] += 1.0  # of the second stretch's only acceleration: 2 px in each of x and y, over (1/25 s)^2
    assert present_jitter(quads, track) == pytest.approx(2 * 2**0.5 * 25**2 * 1 / 5)


def test_reports_of_batches_are_those_of_the_whole() -> None:
    rng = np.random.default_rng(0)
    targets = list(rng.uniform(-1, 1, (5, 32, 32, 3)).astype(np.float32))
    renders = list(rng.integers(0, 256, (5, 32, 32, 3), dtype=np.uint8))
    parts = [slice(0, 2), slice(2, 4), slice(4, 5)]
    reports = [replace(reconstruction_report(targets[p], renders[p]), frames=np.arange(5)[p]) for p in parts]
    assert merged(reports) == reconstruction_report(targets, renders).to_dict()
    assert merged([]) is None


def test_spread_keeps_both_ends() -> None:
    assert spread(np.arange(10, 110), 3).tolist() == [10, 60, 109]
    assert spread(np.array([4, 9]), 12).tolist() == [4, 9]
    assert spread(np.empty(0, int), 12).size == 0


# ---- sweep


def test_a_sweep_reads_labels_and_draws_a_grid(here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid = tmp_path / "grid.png"
    found = figures(capsys, "talk.sg3", "--sweep", "age=-2,0,2", "--every", "3", "--grid", str(grid))
    assert (found["direction"], found["strengths"], found["frames"]) == ("age", [-2.0, 0.0, 2.0], 3)
    crops, plain = zip(*list(by_hand(here, True))[::3], strict=True)
    labels, embedding = read(here, list(plain))
    for k, name in enumerate(LABELS):
        entry = found["labels"][name]
        assert entry["means"][1] == pytest.approx(labels[:, k].mean(), abs=0.002 * (15.0, 0.25, 20.0)[k])
        assert entry["slope"] == pytest.approx(np.polyfit([-2, 0, 2], entry["means"], 1)[0], abs=1e-6)
    assert len({round(mean, 4) for mean in found["labels"]["age"]["means"]}) == 3
    assert found["identity"][1] == pytest.approx((read(here, list(crops))[1] * embedding).sum(1).mean(), abs=1e-3)
    rows = [line.split() for line in sweep_lines(found)]
    assert {name for name, *_ in rows} >= set(LABELS) and rows[1][1:4] == ["-2", "0", "2"]
    image = cv2.cvtColor(cv2.imread(str(grid)), cv2.COLOR_BGR2RGB)
    assert image.shape == (4 * 32, 3 * 32, 3)
    assert np.abs(image[:32, 32:64] - np.clip((crops[1] + 1) * 127.5, 0, 255)).max() <= 0.51
    assert np.abs(image[64:96, :32].astype(int) - plain[0]).max() <= 1
    assert np.abs(image[32:64].astype(int) - image[96:]).mean() > 1


def test_response_is_a_line_per_unit_of_strength() -> None:
    line = response([2, -1, 0], np.array([7.0, 1.0, 3.0]), std=4.0)
    assert line["slope"] == pytest.approx(2.0) and line["slope_std"] == pytest.approx(0.5) and line["monotone"]
    assert not response([0, 1, 2], np.array([0.0, 2.0, 1.0]), 1.0)["monotone"]
    single = response([1], np.array([3.0]), 1.0)
    assert single["slope"] is None and single["monotone"] is None


@pytest.mark.parametrize("text", ["age", "age=", "=1,2", "age=1,x", "age=nan", "age=1,inf", "age=1,1"])
def test_a_sweep_that_cannot_be_read_is_named(text: str) -> None:
    with pytest.raises(UsageError, match=text[:3]):
        parse_sweep(text)
    assert parse_sweep("my=dir.npy=-1,2.5") == ("my=dir.npy", (-1.0, 2.5))


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--grid", "a.png"], "--sweep"),
        (["--sweep", "age=1,2", "--grid", "a.mp4"], "a.mp4"),
        (["--sweep", "sage=1,2"], "sage"),
        (["talk.sg3", "gone.mp4"], "gone.mp4"),
        (["nowhere.sg3"], "nowhere.sg3"),
    ],
)
def test_bad_input(here: Path, capsys: pytest.CaptureFixture[str], words: list[str], named: str) -> None:
    assert cli.run(["evaluate", *words]) in (2, 3)
    error, hint = capsys.readouterr().err.strip().splitlines()[-2:]
    assert error.startswith("error: ") and hint.startswith("hint: ") and named in error + hint
    assert not (here / "a.png").exists()

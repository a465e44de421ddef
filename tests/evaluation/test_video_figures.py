"""`sg3 evaluate video`: nothing is found between equal files, and each planted fault moves the figure it belongs to."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from clips import make_clip
from schematic_faces import scene

from sg3cli import cli
from sg3cli.console import Console
from sg3cli.evaluation.video_figures import make_judges, video_figures
from sg3cli.evaluation.video_pass import Judges
from sg3cli.metrics.perceptual import StructuralLoss

FRAMES, SIZE, RATE = 12, (320, 240), 25
PEOPLE = tuple[np.ndarray, np.ndarray]
Images = Callable[[int], np.ndarray]


@pytest.fixture(scope="module")
def judges(face_model: None) -> Judges:
    return replace(make_judges(None, None, Console(quiet=True)), perceptual=StructuralLoss())


@pytest.fixture(scope="module")
def shots(people: PEOPLE) -> Callable[..., np.ndarray]:
    """A frame of a clip in which a face drifts to the right."""

    def shot(index: int, who: int = 0, dx: float = 0.0) -> np.ndarray:
        return scene(people, (who, 145 + 2.0 * index + dx, 120, 0.7, 0), size=SIZE[::-1])[0]

    return shot


def clip(path: Path, images: Images, delay: float = 0.0) -> Path:
    """A file of the images, with noise for a sound that comes `delay` seconds late."""
    plain = make_clip(path.with_name(f"plain-{path.stem}.mkv"), FRAMES, SIZE, RATE, image=lambda k, *_: images(k))
    noise = (np.random.default_rng(1).normal(0, 3000, 24000)).astype(np.int16)
    with av.open(str(plain)) as source, av.open(str(path), "w") as out:
        copy = out.add_stream_from_template(source.streams.video[0])
        sound = out.add_stream("pcm_s16le", rate=48000, layout="mono")
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = copy
                out.mux(packet)
        frame = av.AudioFrame.from_ndarray(noise[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48000, round(delay * 48000), Fraction(1, 48000)
        for packet in [*sound.encode(frame), *sound.encode(None)]:
            out.mux(packet)
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, shots: Callable[..., np.ndarray]) -> Path:
    return clip(tmp_path_factory.mktemp("judged") / "source.mkv", shots)


@pytest.fixture
def judged(tmp_path: Path, source: Path, judges: Judges) -> Callable[..., dict[str, Any]]:
    """Figures of a clip of these images against the source."""

    def of(images: Images, delay: float = 0.0, **words: Any) -> dict[str, Any]:
        return video_figures(source, clip(tmp_path / "edited.mkv", images, delay), judges, Console(quiet=True), **words)

    return of


def test_an_identical_file_has_ratio_1_and_error_0(source: Path, judges: Judges) -> None:
    found = video_figures(source, source, judges, Console(quiet=True))
    assert found["frames"] == found["judged"] == found["source_frames"] == FRAMES
    assert found["faces"] == {"source": FRAMES, "edited": FRAMES}
    ratios = [found["warping"]["ratio"], found["jitter"]["ratio"], found["flicker"]["ratio"], found["sharpness"]]
    ratios += [found["identity"][name] for name in ("mean", "min", "local", "global")]
    assert ratios == pytest.approx([1.0] * 8, abs=1e-6)
    errors = [found["distance"]["max"], found["temporal"]["mean"], found["flicker"]["levels"], found["seam"]]
    assert errors == pytest.approx([0.0] * 4, abs=1e-6)
    assert found["outside"] == {"mean": 0.0, "max": 0, "share": 0.0} and found["frozen"] == 0
    assert found["sound"] == {"offset": 0.0, "likeness": pytest.approx(1.0)}
    assert all(entry["change"] == 0 for entry in found["attributes"]["labels"].values())
    assert found["frechet"]["frames"] is None and found["frechet"]["frames_used"] == FRAMES < 64


def test_frozen_frames(judged: Callable[..., dict[str, Any]], shots: Callable[..., np.ndarray]) -> None:
    found = judged(lambda k: shots(5 if 5 < k < 9 else k))
    assert found["frozen"] == 3
    assert found["temporal"]["mean"] > 0.005 and found["warping"]["ratio"] > 1.5


def test_a_jittered_paste(judged: Callable[..., dict[str, Any]], shots: Callable[..., np.ndarray]) -> None:
    found = judged(lambda k: shots(k, dx=1.5 * (-1) ** k))
    assert found["jitter"]["ratio"] > 2 and found["warping"]["ratio"] > 1.5 and found["frozen"] == 0


def test_a_blurred_face(judged: Callable[..., dict[str, Any]], shots: Callable[..., np.ndarray]) -> None:
    found = judged(lambda k: cv2.GaussianBlur(shots(k), (0, 0), 1.5))
    assert found["sharpness"] < 0.5 and found["distance"]["mean"] > 0.02
    assert found["jitter"]["ratio"] < 2 and found["frozen"] == 0


def test_a_colour_pulse(judged: Callable[..., dict[str, Any]], shots: Callable[..., np.ndarray]) -> None:
    found = judged(lambda k: (shots(k) * np.array([1.0, 0.9, 0.9]) ** (k % 2)).astype(np.uint8))
    assert found["flicker"]["ratio"] > 1.5 and found["flicker"]["levels"] > 1
    assert found["warping"]["ratio"] > 2 and found["outside"]["share"] > 0.1


def test_another_person(judged: Callable[..., dict[str, Any]], shots: Callable[..., np.ndarray]) -> None:
    found = judged(lambda k: shots(k, who=int(k >= 6)))
    assert found["identity"]["min"] < 0.7 < found["identity"]["mean"] + 0.3
    assert found["identity"]["global"] < found["identity"]["local"] < 0.99
    assert found["identity"]["network"] in ("reader", "attribute net")


@pytest.mark.parametrize("delay", [0.08, 0.16])
def test_shifted_sound(source: Path, tmp_path: Path, shots: Callable[..., np.ndarray], delay: float) -> None:
    from sg3cli.evaluation.video_figures import sound

    late = clip(tmp_path / "late.mkv", shots, delay)
    assert sound(source, late)["offset"] == pytest.approx(delay, abs=1e-3)
    assert sound(late, source)["offset"] == pytest.approx(-delay, abs=1e-3)


def test_every_kth_frame_is_judged(
    judged: Callable[..., dict[str, Any]], shots: Callable[..., np.ndarray], source: Path
) -> None:
    found = judged(shots, every=4)
    assert (found["judged"], found["steps"], found["faces"]["source"]) == (3, 2, FRAMES)


def test_the_command(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--source", str(source), "--edited", str(source), "--every", "6"]
    assert cli.run(["evaluate", "video", *words, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["clips"]
    assert found["judged"] == 2 and found["sound"]["offset"] == 0
    assert cli.run(["evaluate", "video", *words]) == 0
    lines = {line[:26].strip(): line[26:] for line in capsys.readouterr().out.splitlines()}
    assert lines["sharpness"] == "1.000 of the source's" and lines["FID over frames"].startswith("not computed (2 ")
    assert cli.run(["evaluate", "video", "--source", str(source)]) == 2
    assert cli.run(["evaluate", "video", "--source", str(source), "--edited", str(tmp_path / "none.mp4")]) == 3
    assert "none.mp4 is not there" in capsys.readouterr().err


@pytest.fixture
def brief(tmp_path: Path, shots: Callable[..., np.ndarray]) -> str:
    """A clip of three frames."""
    return str(make_clip(tmp_path / "brief.mkv", 3, SIZE, RATE, image=lambda k, *_: shots(k)))


def test_pairs_make_a_table(brief: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text(f"{brief}\t{brief}\n")
    words = ["evaluate", "video", "--every", "2", "--source", brief, "--edited", brief, "--from", str(listed)]
    assert cli.run(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["clip", "frames", "likeness"]
    begin = [line.split()[:3] for line in lines[1:4]]
    assert begin == [["brief.mkv", "2", "1.000"], ["brief.mkv", "2", "1.000"], ["mean", "1.000", "1.000"]]
    assert lines[-2] == "FID over frames           not computed (4 frames, 64 at least)"


def test_a_clip_that_cannot_be_judged_does_not_cost_the_others(
    brief: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blank = make_clip(tmp_path / "blank.mkv", 2, SIZE, RATE)
    pairs = ["--source", str(blank), "--edited", str(blank), "--source", brief, "--edited", brief]
    assert cli.run(["evaluate", "video", "--every", "2", *pairs, "--json"]) == 6
    heard = capsys.readouterr()
    told = json.loads(heard.out)
    assert [clip["judged"] for clip in told["clips"]] == [2]
    assert told["mean"]["sharpness"] == pytest.approx(1) and told["frechet"]["frames_used"] == 2
    assert told["failed"][0]["clip"] == "blank.mkv" and told["failed"][0]["error"]["code"] == 3
    assert "error: blank.mkv: no face was found" in heard.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a.sg3", "--source", "b.mp4"], "exclude each other"),
        (["--source", "a", "--source", "b", "--edited", "c"], "--source stands 2 times and --edited 1 times"),
        (["a.sg3", "b.sg3", "--edited", "c"], "--edited names the video of one project"),
    ],
)
def test_words_that_do_not_go_together(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["evaluate", "video", *words]) == 2
    assert said in capsys.readouterr().err

from pathlib import Path

import numpy as np
import pytest
from clips import make_clip
from footage import KINDS, made

from sg3cli.settings import EncodeConfig
from sg3cli.video import Frame, VideoReader, VideoWriter
from sg3cli.video.chroma_siting import shifted
from sg3cli.video.probe import probe

FINE = EncodeConfig(preset="ultrafast", crf=1)
WHERE = {
    "constant rate, sound": "left",
    "10 bits HEVC": "left",
    "Motion JPEG": "center",
    "raw frames on stdin": "center",
    "AV1": "center",
    "folder of PNG": "left",
}


def edges(index: int, width: int, height: int) -> np.ndarray:
    """Smooth colours of the same brightness: what moves is chroma."""
    wave = 60 * np.sin(np.arange(width) / 5 + index)
    rgb = np.stack([128 + wave, 128 - wave * 0.35, np.full(width, 128)], -1)
    return np.broadcast_to(rgb, (height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize("name", WHERE)
def test_where_the_samples_are_is_found_and_kept(tmp_path: Path, name: str) -> None:
    kind = next(kind for kind in KINDS if kind.name == name)
    source = made(kind, tmp_path)
    assert probe(source).chroma == WHERE[name]
    with VideoReader(source) as reader, VideoWriter(tmp_path / "out.mp4", reader.info, FINE) as writer:
        before = [frame.rgb for frame in reader if not writer.write(frame)]
    after = [frame.rgb for frame in VideoReader(tmp_path / "out.mp4")]
    if name != "folder of PNG":  # 4:4:4 became 4:2:0
        assert probe(tmp_path / "out.mp4").chroma == WHERE[name]
        assert max(np.abs(a.astype(int) - b).max() for a, b in zip(before, after, strict=True)) <= 4  # edges as well


@pytest.mark.parametrize("name", ["constant rate, sound", "Motion JPEG"])
def test_edited_colours_stay_where_they_were(tmp_path: Path, name: str) -> None:
    # Every pixel is new, so all of it is converted: the colours must not move against the image.
    source = made(next(kind for kind in KINDS if kind.name == name), tmp_path)
    with VideoReader(source) as reader, VideoWriter(tmp_path / "out.mp4", reader.info, FINE) as writer:
        info = reader.info
        for frame in reader:
            new = edges(frame.index, info.width, info.height)
            writer.write(Frame(frame.index, frame.pts, frame.time_base, new, frame.duration, stored=frame.stored))
    shown = next(iter(VideoReader(tmp_path / "out.mp4"))).rgb[48, 8:-8].astype(float)
    new = edges(0, info.width, info.height)[48].astype(float)
    errors = {shift: np.abs(np.interp(np.arange(8, info.width - 8) + shift, np.arange(info.width), new[:, 0])
                            - shown[:, 0]).mean() for shift in (-0.5, 0.0, 0.5)}  # fmt: skip
    assert errors[0.0] < 1.5 and errors[0.0] < min(errors[-0.5], errors[0.5]) / 2


def test_shifting_by_half_a_pixel() -> None:
    rgb = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert shifted(rgb, "center") is rgb
    assert np.array_equal(shifted(rgb, "left")[:, 1:], (rgb[:, 1:].astype(int) + rgb[:, :-1] + 1) // 2)
    assert (shifted(rgb, "left")[:, 0] == rgb[:, 0]).all() and (shifted(rgb, "topleft")[1:, 1:] < rgb[1:, 1:]).all()


def test_a_flat_image_counts_as_left(tmp_path: Path) -> None:
    flat = make_clip(tmp_path / "a.mp4", frames=1, image=lambda _, w, h: np.full((h, w, 3), 90, np.uint8))
    assert probe(flat).chroma == "left"

"""Images in tiles, as telephones write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pictures import DISPLAY_P3, heic, profile, scene, transparent
from PIL import Image

from sg3cli.errors import InputError
from sg3cli.settings import EncodeConfig
from sg3cli.video import VideoReader, VideoWriter
from sg3cli.video.heif import facts_of


def read(path: Path) -> np.ndarray:
    return next(iter(VideoReader(path))).rgb


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("size", [(200, 150), (128, 128), (64, 64), (300, 70)])
def test_a_grid_of_tiles_is_one_image(tmp_path: Path, size: tuple[int, int], turns: int) -> None:
    path = heic(tmp_path / "a.heic", scene(*size), turns=turns)
    expected = np.rot90(scene(*size), turns)
    rgb = read(path)
    assert rgb.shape == expected.shape
    assert np.abs(rgb.astype(int) - expected).mean() < 3
    seams = [64 * k for k in range(1, size[0] // 64)]
    if not turns and seams:  # nothing is moved where tiles meet
        assert np.abs(rgb[:, seams].astype(int) - expected[:, seams]).mean() < 4


def test_a_grid_is_written_and_its_profile_converted(tmp_path: Path) -> None:
    path = heic(tmp_path / "a.heic", scene(200, 150), profile=profile(DISPLAY_P3, "para", "Display P3"))
    with VideoReader(path) as reader, VideoWriter(tmp_path / "o.png", reader.info, EncodeConfig()) as writer:
        for frame in reader:
            writer.write(frame)
    assert (reader.info.width, reader.info.height) == (200, 150)
    assert any("Display P3" in notice for notice in reader.notices)


def test_what_is_not_understood_is_named(tmp_path: Path) -> None:
    data = heic(tmp_path / "a.heic", scene()).read_bytes()
    (tmp_path / "b.heic").write_bytes(data.replace(b"dimg", b"xxxx"))
    (tmp_path / "c.heic").write_bytes(data.replace(b"grid", b"iovl"))
    for name in ("b", "c"):
        with pytest.raises(InputError, match="composed of others"):
            VideoReader(tmp_path / f"{name}.heic")
    (tmp_path / "d.heic").write_bytes(data[: len(data) * 2 // 3])  # some tiles are missing
    with pytest.raises(InputError, match="not a picture that can be read"):
        VideoReader(tmp_path / "d.heic")


def test_damage_is_no_crash(tmp_path: Path) -> None:
    whole = heic(tmp_path / "a.heic", scene()).read_bytes()
    rng = np.random.default_rng(0)
    for number in range(150):
        data = bytearray(whole)
        for at in rng.integers(0, 900, int(rng.integers(1, 6))):
            data[at] = int(rng.integers(0, 256))
        path = tmp_path / f"{number}.heic"
        path.write_bytes(data)
        facts_of(path)
        try:
            assert read(path).ndim == 3
        except InputError as error:
            assert error.hint
        path.unlink()


def test_transparency_of_a_film_is_said(tmp_path: Path) -> None:
    images = [Image.fromarray(np.dstack([scene(), np.full(scene().shape[:2], 90 + k, np.uint8)])) for k in range(3)]
    images[0].save(tmp_path / "a.avif", save_all=True, append_images=images[1:], duration=40)
    reader = VideoReader(tmp_path / "a.avif")
    assert len(reader) == 3 and sum("transparency of HEIF" in notice for notice in reader.notices) == 1
    plain = [image.convert("RGB") for image in images]
    plain[0].save(tmp_path / "b.avif", save_all=True, append_images=plain[1:], duration=40)
    assert not VideoReader(tmp_path / "b.avif").notices


@pytest.mark.parametrize("name", [b"urn:mpeg:hevc:2015:auxid:1", b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha"])
def test_transparency_has_another_name_beside_hevc(tmp_path: Path, name: bytes) -> None:
    """As telephones write it; an image of depths (`auxid:2`) is none."""
    old = b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha"
    transparent(quality=90)(tmp_path / "a.avif", scene())
    data = (tmp_path / "a.avif").read_bytes()
    assert data.count(old + b"\0") == 1
    for written, said in ((name, True), (b"urn:mpeg:hevc:2015:auxid:2", False)):
        (tmp_path / "b.avif").write_bytes(data.replace(old + b"\0", (written + b"\0").ljust(len(old) + 1, b"\0")))
        assert facts_of(tmp_path / "b.avif").alpha is said


def test_transparency_beside_the_image_is_said(tmp_path: Path) -> None:
    transparent(quality=90)(tmp_path / "a.avif", scene())
    assert any("transparency of HEIF" in notice for notice in VideoReader(tmp_path / "a.avif").notices)

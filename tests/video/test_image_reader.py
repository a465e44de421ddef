"""Images as other programs write them: every kind is read as those programs show it, or refused by name."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import make_clip
from footage import with_hole
from pictures import ADOBE, DISPLAY_P3, FILMS, KINDS, SRGB, animated, by_pillow, exif, profile, scene
from PIL import Image

from sg3cli.errors import InputError
from sg3cli.settings import EncodeConfig
from sg3cli.video import VideoReader, VideoWriter, frame_pts

LOSSLESS = {"jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}, "avif": {"quality": 100}}


def read(path: Path) -> np.ndarray:
    return next(iter(VideoReader(path))).rgb


def shown(path: Path) -> np.ndarray:
    """As the other program shows it."""
    image = Image.open(path)
    if image.mode.startswith("I;16"):
        return cv2.imread(str(path))[..., ::-1]
    return np.asarray(image.convert("RGBA" if image.mode == "P" else image.mode).convert("RGB"))


@pytest.mark.parametrize("name", KINDS)
def test_images_of_every_encoder(tmp_path: Path, name: str) -> None:
    path, (write, most) = tmp_path / name, KINDS[name]
    write(path, scene())
    with VideoReader(path) as reader:
        rgb = next(iter(reader)).rgb
        assert json.loads(json.dumps(reader.info.to_dict()))["frames"] == 1
        assert reader.info.alpha == ("rgba" in name and not name.endswith(".avif"))
        with VideoWriter(tmp_path / "out.png", reader.info) as writer:
            writer.write(next(iter(reader)))
    assert rgb.shape == (128, 192, 3)
    assert np.abs(rgb.astype(int) - shown(path)).mean() <= min(most, 3)
    if "grey" not in name:
        assert np.abs(rgb.astype(int) - scene()).mean() <= most
    if name.endswith((".png", ".bmp", ".tif")) and "of.png" not in name and "cmyk" not in name:
        assert np.array_equal(read(tmp_path / "out.png"), rgb)


@pytest.mark.parametrize(
    ("encoder", "size"),
    [
        *(
            (name, size)
            for name in ("pillow.jpg", "progressive.jpg", "opencv.jpg")
            for size in ((400, 250), (1600, 1200))
        ),
        ("opencv.jpg", (6000, 4000)),
    ],
)
def test_photographs_of_every_size(tmp_path: Path, encoder: str, size: tuple[int, int]) -> None:
    times = size[0] // 1500 or 1
    image = np.tile(scene(size[0] // times, size[1] // times), (times, times, 1))
    KINDS[encoder][0](tmp_path / "a.jpg", image)
    assert np.abs(read(tmp_path / "a.jpg")[::7, ::7].astype(int) - image[::7, ::7]).mean() < 2


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_the_camera_s_turns(tmp_path: Path, orientation: int, suffix: str) -> None:
    extra = {"tiffinfo": {0x112: orientation}} if suffix == "tif" else {"exif": exif(orientation)}
    by_pillow(**LOSSLESS.get(suffix, {}), **extra)(tmp_path / f"a.{suffix}", scene())
    turns = ["FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90"]
    expected = np.asarray(Image.fromarray(scene()).transpose(Image.Transpose[turns[orientation - 2]]))
    rgb = read(tmp_path / f"a.{suffix}")
    assert rgb.shape == expected.shape and np.abs(rgb.astype(int) - expected).mean() < 2


def test_pictures_of_a_folder_may_be_turned_and_coloured_each_in_its_own_way(tmp_path: Path) -> None:
    folder, tall = tmp_path / "in", np.ascontiguousarray(np.rot90(scene(), 1))
    folder.mkdir()
    by_pillow()(folder / "1.png", scene())
    by_pillow(exif=exif(6))(folder / "2.png", tall)  # to be turned right
    by_pillow(exif=exif(3))(folder / "3.png", np.ascontiguousarray(scene()[::-1, ::-1]))
    by_pillow(icc_profile=profile(DISPLAY_P3, "para", "Display P3"))(folder / "4.png", scene())
    by_pillow()(folder / "5.png", scene())
    with VideoReader(folder) as reader:
        frames = [frame.rgb for frame in reader]
    assert all(np.array_equal(frames[k], scene()) for k in (0, 1, 2, 4))
    assert not np.array_equal(frames[3], scene()) and any("Display P3" in notice for notice in reader.notices)
    assert not any("scaled" in notice for notice in reader.notices)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "avif"])
def test_colour_profiles_are_converted_and_said(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    by_pillow(**LOSSLESS.get(suffix, {}), icc_profile=profile(ADOBE, "gamma", "Adobe RGB (1998)"))(path, scene())
    script = "import gc, sys; from sg3cli.video import VideoReader; r = VideoReader(sys.argv[1]); f = list(r)\n"
    script += "del f; gc.collect(); print(r.notices)"
    ran = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=False)
    assert ran.returncode == 0 and "converted from the profile Adobe RGB (1998) to sRGB" in ran.stdout, ran.stderr
    grey, green = np.full((8, 8, 3), 128, np.uint8), np.full((8, 8, 3), (60, 190, 60), np.uint8)
    for colour, expected in ((grey, 128), (green, 2)):  # greys stay; its green is beyond that of sRGB
        by_pillow(**LOSSLESS.get(suffix, {}), icc_profile=profile(ADOBE, "gamma", "A"))(path, colour)
        assert abs(int(read(path)[4, 4, 0]) - expected) <= 3


def test_a_profile_that_says_srgb_changes_nothing_and_one_of_tables_is_named(tmp_path: Path) -> None:
    by_pillow(icc_profile=profile(SRGB, "para", "sRGB"))(tmp_path / "a.png", scene())
    tables = profile(DISPLAY_P3, "para", "Printer 7", A2B0=b"mft2" + bytes(60))
    by_pillow(icc_profile=tables)(tmp_path / "b.png", scene())
    plain, other = VideoReader(tmp_path / "a.png"), VideoReader(tmp_path / "b.png")
    assert not plain.notices and np.array_equal(read(tmp_path / "a.png"), scene())
    assert any("(Printer 7) is of a kind that is not converted" in notice for notice in other.notices)


@pytest.mark.parametrize("name", FILMS)
def test_animated_pictures_are_films(tmp_path: Path, name: str) -> None:
    FILMS[name](tmp_path / name, scene())
    with VideoReader(tmp_path / name) as reader, VideoWriter(tmp_path / "out.mp4", reader.info) as writer:
        json.dumps(reader.info.to_dict())
        frames = [frame.rgb for frame in reader if not writer.write(frame)]
    assert len(frames) == 3 == len(frame_pts(tmp_path / "out.mp4")) and reader.info.duration == pytest.approx(0.3)
    assert np.abs(frames[1][::-1, ::-1].astype(int) - frames[0]).mean() < 6


def test_films_with_alpha_in_rgb(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mov", codec="qtrle", pix_fmt="argb", image=with_hole, size=(128, 96), frames=4)
    holes = [Image.fromarray(scene()).quantize(64).rotate(angle, fillcolor=0) for angle in (9, 20)]
    holes[0].save(tmp_path / "a.gif", save_all=True, append_images=holes[1:], duration=40, transparency=0, disposal=2)
    for path, frames in ((source, 4), (tmp_path / "a.gif", 2)):
        with (
            VideoReader(path) as reader,
            VideoWriter(tmp_path / "out.mkv", reader.info, EncodeConfig("ffv1")) as writer,
        ):
            assert json.loads(json.dumps(reader.info.to_dict()))["alpha"] is True
            assert len([frame for frame in reader if not writer.write(frame)]) == frames


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.webp", animated(), "an animated WebP"),
        ("a.tif", by_pillow(compression="jpeg"), "a TIFF with a JPEG inside"),
        ("b.tif", by_pillow("YCbCr"), "a TIFF in other colours"),
        ("a.jpg", lambda path, _: path.write_bytes(b"8BPS" + bytes(99)), "a Photoshop file"),
        ("a.png", lambda path, _: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"), "git-lfs pointer"),
        ("b.jpg", lambda path, _: path.write_bytes(b"\xff\x0a" + bytes(99)), "JPEG XL"),
        ("c.jpg", lambda path, _: path.write_bytes(b"<!DOCTYPE html>"), "a web page"),
        ("d.jpg", lambda path, _: path.write_bytes(bytes(99)), "not a picture that can be read"),
    ],
)
def test_what_is_not_read_is_named(tmp_path: Path, name: str, content, said: str) -> None:
    content(tmp_path / name, scene())
    with pytest.raises(InputError, match=said):
        VideoReader(tmp_path / name)


def test_a_tiff_in_tiles_is_named(tmp_path: Path) -> None:
    by_pillow()(tmp_path / "a.tif", scene())
    data = bytearray((tmp_path / "a.tif").read_bytes())
    at = data.index((278).to_bytes(2, "little") + b"\x04\0")  # rows per strip become the width of a tile
    data[at : at + 2] = (322).to_bytes(2, "little")
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(InputError, match="a TIFF in tiles"):
        VideoReader(tmp_path / "a.tif")

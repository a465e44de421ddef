"""The user's mask: images, folders and videos, at any frame, and what is wrong with one."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import make_clip

from sg3cli.compositing.user_mask import UserMask
from sg3cli.errors import InputError
from sg3cli.settings import EncodeConfig
from sg3cli.video import VideoReader, VideoWriter


def steps(index: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A mask that is white up to a column that moves with the frame, `[H, W]` uint8."""
    image = np.zeros((height, width), np.uint8)
    image[:, : 8 * (index + 1)] = 255
    return image


def test_an_image_holds_for_every_frame(tmp_path: Path):
    cv2.imwrite(str(tmp_path / "m.png"), steps(2))
    deep = steps(2).astype(np.uint16) * 257
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    for name in ("m.png", "deep.png"):
        user_mask = UserMask(tmp_path / name, 64, 48, 100)
        assert np.array_equal(user_mask.at(99), steps(2) / np.float32(255)) and user_mask.at(0).dtype == np.float32


def test_a_folder_s_images_are_taken_by_name(tmp_path: Path):
    for index in range(3):
        cv2.imwrite(str(tmp_path / f"m{index}.png"), steps(index))
    user_mask = UserMask(tmp_path, 64, 48, 3)
    assert [int(user_mask.at(i)[0].sum()) for i in (2, 0, 1)] == [24, 8, 16]
    with pytest.raises(InputError, match="has 3 frames, the video 4"):
        UserMask(tmp_path, 64, 48, 4)


def test_a_video_is_read_in_order_or_from_anywhere(tmp_path: Path):
    path = mask_clip(tmp_path)
    user_mask = UserMask(path, 64, 48, 5)
    for index in (0, 1, 3, 2, 4):
        seen = user_mask.at(index)
        assert seen[:, : 8 * index + 5].min() == 1  # compression leaves no grey where white and black were meant
        assert seen[:, 8 * index + 12 :].max() == 0
    user_mask.close()


def mask_clip(folder: Path) -> Path:
    source, out = folder / "source.mp4", folder / "mask.mp4"
    make_clip(source, frames=5)
    with VideoReader(source) as reader, VideoWriter(out, reader.info, EncodeConfig(crf=12)) as writer:
        for frame in islice(reader, 5):
            writer.write(replace(frame, rgb=np.repeat(steps(frame.index)[..., None], 3, axis=2)))
    return out


def test_what_does_not_fit_is_named(tmp_path: Path):
    cv2.imwrite(str(tmp_path / "m.png"), steps(0))
    with pytest.raises(InputError, match="is 64x48, the video 640x480"):
        UserMask(tmp_path / "m.png", 640, 480, 1)
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="cannot read the mask"):
        UserMask(tmp_path / "bad.png", 64, 48, 1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no pictures are in"):
        UserMask(tmp_path / "empty", 64, 48, 1)

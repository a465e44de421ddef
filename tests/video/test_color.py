import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sg3cli.video.color import (
    BT709,
    BT709_LIMITED,
    BT2020,
    FULL,
    LIMITED,
    PQ,
    SMPTE170M,
    UNSPECIFIED,
    ColorTags,
    resolve,
    rgb_to_ycbcr,
    ycbcr_to_rgb,
)


@pytest.mark.parametrize("matrix", [BT709, SMPTE170M, BT2020])
@pytest.mark.parametrize("color_range", [LIMITED, FULL])
@given(rgb=st.tuples(*[st.integers(0, 255)] * 3), bits=st.sampled_from([8, 10]))
def test_conversion_is_inverted_by_its_inverse(matrix, color_range, rgb, bits):
    tags = ColorTags(matrix=matrix, range=color_range)
    assert np.allclose(ycbcr_to_rgb(rgb_to_ycbcr(np.array(rgb), tags, bits), tags, bits), rgb, atol=1e-6)


def test_known_code_values():
    # BT.709 limited: white, black, and pure red as every table of colour bars gives it.
    assert np.allclose(rgb_to_ycbcr(np.array([255, 255, 255])), [235, 128, 128])
    assert np.allclose(rgb_to_ycbcr(np.array([0, 0, 0])), [16, 128, 128])
    assert np.round(rgb_to_ycbcr(np.array([255, 0, 0]))).tolist() == [63, 102, 240]
    assert np.round(rgb_to_ycbcr(np.array([255, 0, 0]), ColorTags(SMPTE170M, range=LIMITED))).tolist() == [81, 90, 240]


@pytest.mark.parametrize(
    ("tags", "size", "pix_fmt", "matrix", "color_range"),
    [
        (ColorTags(), (640, 480), "yuv420p", SMPTE170M, LIMITED),  # untagged SD
        (ColorTags(), (720, 576), "yuv420p", SMPTE170M, LIMITED),
        (ColorTags(), (1280, 720), "yuv420p", BT709, LIMITED),  # untagged HD
        (ColorTags(), (480, 854), "yuv420p", BT709, LIMITED),
        (ColorTags(matrix=BT709), (64, 64), "yuv420p", BT709, LIMITED),  # a tag wins
        (ColorTags(matrix=SMPTE170M, range=FULL), (1920, 1080), "yuv420p", SMPTE170M, FULL),
        (ColorTags(), (64, 64), "yuvj420p", SMPTE170M, FULL),  # full by the format's name
        (ColorTags(matrix=14), (1920, 1080), "yuv420p10le", BT709, LIMITED),  # ICtCp has no Kr, Kb
        (ColorTags(), (64, 64), "bgra", 0, FULL),
        (ColorTags(matrix=0), (64, 64), "yuv420p", SMPTE170M, LIMITED),  # a wrong tag: YUV is not RGB
    ],
)
def test_what_is_not_tagged_is_guessed_as_players_do(tags, size, pix_fmt, matrix, color_range):
    resolved = resolve(tags, *size, pix_fmt)
    assert (resolved.matrix, resolved.range) == (matrix, color_range)


def test_tags_in_words():
    assert BT709_LIMITED.to_dict() | {} == {
        "matrix": 1, "primaries": 1, "transfer": 1, "range": 1, "matrix_name": "bt709", "range_name": "limited",
    }  # fmt: skip
    assert ColorTags(transfer=PQ).hdr and not BT709_LIMITED.hdr
    assert ColorTags().matrix == UNSPECIFIED


def test_color_needs_neither_av_nor_torch():
    code = "import sys, sg3cli.video.color; assert not {'av', 'torch'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

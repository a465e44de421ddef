import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sg3cli.video.color import BT709_LIMITED, FULL, RGB_FULL, resolve
from sg3cli.video.pixel_conversion import (
    BLOCK,
    FromRgb,
    Stored,
    full_chroma,
    is_planar,
    planes,
    surrounding,
    turned,
    upright,
)

FORMATS = ["yuv420p", "yuv422p", "yuv444p", "yuv411p", "yuv410p", "yuv420p10le", "yuv422p12le", "yuva420p",
           "yuva444p10le", "gbrp", "gbrp10le", "gray"]  # fmt: skip


def noisy(pix_fmt: str, width: int, height: int, seed: int = 0) -> av.VideoFrame:
    """An image of random values that the format can hold."""
    rng, image = np.random.default_rng(seed), av.VideoFrame(width, height, pix_fmt)
    bits = max(component.bits for component in image.format.components)
    for plane in planes(image):
        plane[...] = rng.integers(16 << (bits - 8), 235 << (bits - 8), plane.shape)
    return image


def stored(pix_fmt: str, width: int, height: int) -> Stored:
    image = noisy(pix_fmt, width, height)
    colors = RGB_FULL if image.format.is_rgb else BT709_LIMITED
    return Stored(image, image.to_ndarray(format="rgb24"), colors)


@pytest.mark.parametrize("pix_fmt", FORMATS)
@pytest.mark.parametrize("size", [(64, 48), (131, 97)])
def test_only_what_is_touched_changes(pix_fmt: str, size: tuple[int, int]) -> None:
    kept = stored(pix_fmt, *size)
    rgb = kept.rgb.copy()
    rgb[20:31, 37:52] = 255 - rgb[20:31, 37:52]
    result = FromRgb(pix_fmt, kept.colors, "left")(rgb, kept)
    whole = FromRgb(pix_fmt, kept.colors, "left")(rgb, None)
    for index, (new, old, all_new) in enumerate(zip(planes(result), planes(kept.image), planes(whole), strict=True)):
        y, x = (-(-a // b) for a, b in zip((size[1], size[0]), new.shape, strict=True))  # pixels per sample
        inside = np.zeros(new.shape, bool)
        inside[20 // y : -(-31 // y), 37 // x : -(-52 // x)] = True
        assert np.array_equal(new[~inside], old[~inside])
        is_alpha = any(c.is_alpha and c.plane == index for c in result.format.components)
        if is_alpha:
            assert np.array_equal(new, old)
        else:
            assert not np.array_equal(new[inside], old[inside])
        if not is_alpha and size == (64, 48):  # of an odd size, swscale spreads the samples over the whole image
            assert np.abs(new[inside].astype(int) - all_new[inside]).max() <= 1 << max(0, _bits(new) - 8)


def _bits(plane: np.ndarray) -> int:
    return 8 if plane.dtype.itemsize == 1 else 12


@pytest.mark.parametrize("pix_fmt", FORMATS)
def test_an_untouched_image_is_copied(pix_fmt: str) -> None:
    kept = stored(pix_fmt, 66, 50)
    for rgb in (kept.rgb, kept.rgb.copy()):
        result = FromRgb(pix_fmt, kept.colors)(rgb, kept)
        assert result is not kept.image and result.format.name == pix_fmt
        assert all(np.array_equal(a, b) for a, b in zip(planes(result), planes(kept.image), strict=True))


def test_an_image_of_another_size_is_converted_whole() -> None:
    kept = stored("yuv420p", 64, 48)
    result = FromRgb("yuv420p", BT709_LIMITED)(np.full((20, 40, 3), 200, np.uint8), kept)
    assert (result.width, result.height) == (40, 20)


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p10le", "yuv422p", "nv12", "rgb24", "yuva420p"])
@pytest.mark.parametrize(
    "orientation", [(True, True, False), (False, True, True), (True, False, False), (True, True, True)]
)
def test_turning_planes_turns_the_image(pix_fmt: str, orientation: tuple[bool, bool, bool]) -> None:
    image = (
        noisy(pix_fmt, 64, 48)
        if is_planar(av.VideoFormat(pix_fmt))
        else noisy("yuv444p", 64, 48).reformat(format=pix_fmt)
    )
    result = upright(image, orientation)
    assert (result.width, result.height) == ((48, 64) if orientation[0] else (64, 48))
    assert is_planar(result.format)
    if result.format.name == pix_fmt:
        pairs = zip(planes(result), planes(image), strict=True)
        assert all(np.array_equal(a, turned(b, orientation)) for a, b in pairs)


RELATIVES = {
    "yuyv422": "yuv444p",
    "yuv422p10le": "yuv444p10le",
    "rgba": "gbrap",
    "pal8": "gbrap",
    "rgb48be": "gbrp16le",
    "p010le": "yuv444p10le",
}


@pytest.mark.parametrize(("pix_fmt", "full"), RELATIVES.items())
def test_relatives_without_subsampling(pix_fmt: str, full: str) -> None:
    assert full_chroma(av.VideoFormat(pix_fmt)) == full


@given(st.integers(0, 199), st.integers(0, 149), st.integers(1, 60), st.integers(1, 60))
def test_the_part_that_is_converted_holds_what_is_touched(x: int, y: int, w: int, h: int) -> None:
    touched = np.zeros((150, 200), bool)
    touched[y : y + h, x : x + w] = True
    box = surrounding(touched)
    assert touched[box].sum() == touched.sum()
    assert all(side.start % BLOCK == 0 and side.start >= 0 for side in box)
    assert all(side.stop % BLOCK == 0 or side.stop == size for side, size in zip(box, touched.shape, strict=True))


def test_full_range_of_a_jpeg_is_copied_under_the_new_name() -> None:
    image = noisy("yuvj420p", 64, 48)
    colors = resolve(BT709_LIMITED.__class__(range=FULL), 64, 48, "yuvj420p")
    kept = Stored(image, image.to_ndarray(format="rgb24"), colors)
    result = FromRgb("yuv420p", colors)(kept.rgb, kept)
    assert all(np.array_equal(a, b) for a, b in zip(planes(result), planes(image), strict=True))

"""Masks that follow the face and pastes that leave the rest alone."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sg3cli.geometry import warp_quad
from sg3cli.masks import (
    convex_distance,
    face_mask,
    face_outline,
    landmarks_in_window,
    smooth_landmarks,
    smoothstep,
)
from sg3cli.stitch import kept_detail, paste, warp_alpha

SIZE = 64


def face(size: float = SIZE, turn: float = 0.0) -> np.ndarray:
    """68 landmarks of a schematic face as FFHQ places it in a crop of `size`, turned by `turn` radians."""
    points = np.zeros((68, 2))
    angle = np.linspace(np.pi, 0, 17)
    points[:17] = np.stack([0.5 + 0.28 * np.cos(angle), 0.45 + 0.38 * np.sin(angle)], axis=1)
    points[17:27] = np.stack([np.linspace(0.3, 0.7, 10), np.full(10, 0.4)], axis=1)
    points[27:] = [0.5, 0.6]
    c, s = np.cos(turn), np.sin(turn)
    return ((points - 0.5) @ np.array([[c, s], [-s, c]]) + 0.5) * size


def square(centre, half: float, angle: float) -> np.ndarray:
    """Corners TL, BL, BR, TR."""
    x = half * np.array([np.cos(angle), np.sin(angle)])
    y = np.array([-x[1], x[0]])
    return np.asarray(centre) + np.array([-x - y, -x + y, x + y, x - y])


windows = st.builds(
    square,
    st.tuples(st.floats(-60, 260), st.floats(-60, 200)),
    st.floats(3, 150),
    st.floats(-np.pi, np.pi),
)


def smooth_frame(height: int = 150, width: int = 200) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width].astype(float)
    waves = [128 + 70 * np.sin(x / 17 + k) + 40 * np.cos(y / 13 - k) for k in range(3)]
    return np.rint(np.stack(waves, axis=-1)).clip(0, 255).astype(np.uint8)


# ---- mask ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turn", [0.0, 0.3, -0.3])
def test_mask_covers_the_face_and_ends_before_the_crop_s_edge(turn):
    landmarks = face(turn=turn)
    alpha = face_mask(landmarks, SIZE, 0.08)
    assert alpha.shape == (SIZE, SIZE) and alpha.dtype == np.float32 and alpha.min() >= 0 and alpha.max() == 1
    x, y = np.floor(landmarks).astype(int).T
    assert (alpha[y, x] == 1).all()  # jaw, chin and brows in full
    forehead = landmarks[17:27].mean(axis=0) * 1.5 - landmarks[8] * 0.5
    assert alpha[int(forehead[1]), int(forehead[0])] == 1
    assert max(alpha[0].max(), alpha[-1].max(), alpha[:, 0].max(), alpha[:, -1].max()) == 0


def test_mask_fades_monotonically_outwards_and_wider_with_feather():
    landmarks = face() * 0.6 + 0.2 * SIZE
    centre = np.array([SIZE // 2, SIZE // 2])
    masks = {f: face_mask(landmarks, SIZE, f) for f in (0.04, 0.1, 0.16)}
    for alpha in masks.values():
        for step in [(0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1)]:
            ray = centre + np.arange(SIZE)[:, None] * step
            row, column = ray[(ray >= 0).all(axis=1) & (ray < SIZE).all(axis=1)].T
            assert (np.diff(alpha[row, column]) <= 1e-6).all()
    soft = [np.count_nonzero((a > 0) & (a < 1)) for a in masks.values()]
    assert soft == sorted(soft) and soft[2] > 2 * soft[0]


def test_mask_moves_continuously_with_the_landmarks():
    """A face that creeps by a hundredth of a pixel changes no opacity by more than the slope of the edge."""
    landmarks = face()
    creep = [face_mask(landmarks + np.array([0.01 * k, 0]), SIZE, 0.08) for k in range(5)]
    steps = [np.abs(b - a).max() for a, b in pairwise(creep)]
    assert 0 < max(steps) < 0.01 * 1.5 / (0.08 * SIZE) * 1.1


def test_mask_is_the_same_at_every_size():
    small, large = face_mask(face(128), 128, 0.08), face_mask(face(512), 512, 0.08)
    shrunk = large.reshape(128, 4, 128, 4).mean(axis=(1, 3))
    assert np.abs(shrunk - small).max() < 0.02


@pytest.mark.parametrize("landmarks", [np.full((68, 2), np.nan), np.full((68, 2), 20.0)])
def test_no_landmarks_no_mask(landmarks):
    assert face_mask(landmarks, SIZE, 0.08).max() == 0


def test_outline_is_convex_and_holds_the_face():
    outline = face_outline(face(turn=0.2))
    assert convex_distance(outline, face(turn=0.2)[:27]).max() < 1e-4
    edges = np.roll(outline, -1, axis=0) - outline
    turns = edges[:, 0] * np.roll(edges, -1, axis=0)[:, 1] - edges[:, 1] * np.roll(edges, -1, axis=0)[:, 0]
    assert (turns > -1e-6).all() or (turns < 1e-6).all()


def test_convex_distance_of_a_square():
    box = np.array([[0, 0], [0, 4], [4, 4], [4, 0]], dtype=float)
    points = np.array([[2, 2], [1, 2], [6, 2], [2, -3]], dtype=float)
    for outline in (box, box[::-1]):
        assert convex_distance(outline, points).tolist() == pytest.approx([-2, -1, 2, 3])


def test_smoothstep():
    assert smoothstep(np.array([-1, 0, 0.5, 1, 3])).tolist() == [0, 0, 0.5, 1, 1]


@given(windows)
def test_landmarks_in_window_puts_the_corners_at_the_corners(window):
    inside = landmarks_in_window(window, window, SIZE)
    assert inside == pytest.approx(np.array([[0, 0], [0, SIZE], [SIZE, SIZE], [SIZE, 0]]), abs=1e-6)


def test_smoothed_landmarks_tremble_less_and_gaps_stay():
    rng = np.random.default_rng(0)
    times = np.arange(30) / 25
    moving = face() + 40 * times[:, None, None]
    seen = (moving + rng.normal(size=moving.shape)).astype(np.float32)
    seen[12:15] = np.nan
    smooth = smooth_landmarks(seen, times)
    assert np.array_equal(np.isnan(smooth), np.isnan(seen))
    kept = np.isfinite(smooth).all(axis=(1, 2))
    assert np.abs(smooth - moving)[kept].mean() < 0.6 * np.abs(seen - moving)[kept].mean()
    assert np.array_equal(smooth_landmarks(seen[:12], times[:12]), smooth[:12])  # nothing crosses the gap


# ---- paste ---------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(windows, st.integers(0, 99), st.booleans())
def test_pixels_where_alpha_is_zero_keep_their_bits(window, seed, match_ring):
    rng = np.random.default_rng(seed)
    frame = rng.integers(0, 256, (150, 200, 3), dtype=np.uint8)
    before = frame.copy()
    crop = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    alpha = face_mask(face(), SIZE, 0.08)
    result = paste(frame, crop, window, alpha, match_ring=match_ring)
    opacity = warp_alpha(alpha, window, frame.shape[:2])
    assert result.dtype == np.uint8 and result.shape == frame.shape
    assert np.array_equal(result[opacity == 0], frame[opacity == 0])
    assert np.array_equal(frame, before)  # the input is left alone
    y, x = np.mgrid[0:150, 0:200]
    outside = convex_distance(window, np.stack([x, y], axis=-1) + 0.5) > 0
    assert opacity[outside].max(initial=0) == 0


@pytest.mark.parametrize("half", [20, 32, 47, 90])
@pytest.mark.parametrize("angle", [0.0, 0.35])
def test_pasting_what_was_cropped_gives_the_frame_back(half, angle):
    frame = smooth_frame(240, 320)
    window = square((150.3, 121.7), half, angle)
    crop = warp_quad(frame, window, 128)
    alpha = face_mask(face(128), 128, 0.08)
    result = paste(frame, crop, window, alpha)
    assert np.abs(result.astype(int) - frame).max() <= 3


def test_paste_puts_the_crop_where_the_window_is():
    """A dot in the crop lands on the matching place of the frame, within a tenth of a pixel."""
    window = square((80, 60), 45, 0.4)
    y, x = np.mgrid[0:SIZE, 0:SIZE] + 0.5
    dot = np.array([20.0, 41.0])
    crop = 255 * np.exp(-((x - dot[0]) ** 2 + (y - dot[1]) ** 2) / 18)[..., None].repeat(3, axis=2)
    result = paste(np.zeros((130, 170, 3), np.uint8), crop, window, np.ones((SIZE, SIZE), np.float32))[..., 0]
    rows, columns = np.mgrid[0:130, 0:170] + 0.5
    found = np.array([(result * columns).sum(), (result * rows).sum()]) / result.sum()
    corner, right, down = window[0], window[3] - window[0], window[1] - window[0]
    expected = corner + right * dot[0] / SIZE + down * dot[1] / SIZE
    assert found == pytest.approx(expected, abs=0.1)


def test_minified_crop_is_filtered_before_it_is_sampled():
    """Stripes of one pixel, pasted four times smaller, turn grey instead of aliasing."""
    crop = np.zeros((128, 128, 3), np.uint8)
    crop[:, ::2] = 255
    window = square((50, 50), 16.37, 0.1)
    result = paste(np.full((100, 100, 3), 128, np.uint8), crop, window, face_mask(face(128), 128, 0.08))
    assert np.abs(result.astype(int) - 128).max() < 25


def test_half_opacity_is_half_way():
    frame, crop = np.full((40, 40, 3), 50, np.uint8), np.full((SIZE, SIZE, 3), 150, np.uint8)
    alpha = np.full((SIZE, SIZE), 0.5, np.float32)
    assert (paste(frame, crop, square((20, 20), 30, 0.2), alpha) == 100).all()


def test_match_ring_removes_a_constant_colour_cast():
    frame = smooth_frame()
    window = square((100, 75), 50, 0)
    crop = warp_quad(frame, window, SIZE) + np.array([12.0, -7, 4])
    alpha = face_mask(face(), SIZE, 0.08)
    plain = np.abs(paste(frame, crop, window, alpha).astype(int) - frame).mean()
    matched = np.abs(paste(frame, crop, window, alpha, match_ring=True).astype(int) - frame).mean()
    assert matched < 0.15 * plain


def test_window_outside_the_frame_changes_nothing():
    frame = smooth_frame()
    alpha = np.ones((SIZE, SIZE), np.float32)
    result = paste(frame, np.zeros((SIZE, SIZE, 3), np.uint8), square((-200, 50), 40, 0.1), alpha)
    assert np.array_equal(result, frame)


def blurred_world(seed: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A frame [120,120,3] full of grain, its window, and the flat grey crop that a generator made of it."""
    frame = np.random.default_rng(seed).integers(60, 180, (120, 120, 3), dtype=np.uint8)
    return frame, square((60, 60), 40, 0.2), np.full((SIZE, SIZE, 3), 120, np.uint8)


def test_an_edit_that_changes_nothing_gives_the_frame_itself():
    frame, window, plain = blurred_world()
    opaque = np.ones((SIZE, SIZE), np.float32)
    np.testing.assert_array_equal(paste(frame, plain, window, opaque, plain=plain), frame)
    without = paste(frame, plain, window, opaque, plain=plain, detail=0.0)
    np.testing.assert_array_equal(without, paste(frame, plain, window, opaque))
    assert np.ptp(without[50:70, 50:70]) == 0  # the generator's grey, no grain


def test_a_change_of_colour_keeps_the_grain_and_moves_its_level():
    frame, window, plain = blurred_world()
    result = paste(frame, plain + np.uint8(30), window, np.ones((SIZE, SIZE), np.float32), plain=plain)
    np.testing.assert_allclose(result[45:75, 45:75].astype(int) - frame[45:75, 45:75], 30, atol=1)


def test_where_edges_moved_no_ghost_of_the_source_stays():
    plain = np.full((SIZE, SIZE, 3), 120, np.uint8)
    plain[40:44, 20:44] = 20  # a mouth
    edited = np.full((SIZE, SIZE, 3), 120, np.uint8)
    edited[44:48, 20:44] = 20  # moved
    kept = kept_detail(edited, plain)
    assert kept[42:46, 26:38].max() < 0.01
    assert kept[:20].min() > 0.99
    assert kept_detail(plain, plain).min() == 1

"""Masks that follow the face and pastes that leave the rest alone."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from schematic_faces import crop_face as face
from scipy.sparse import lil_matrix
from scipy.sparse.linalg import spsolve

from sg3cli.compositing.face_mask import (
    convex_distance,
    edge_mask,
    face_mask,
    face_outline,
    landmarks_in_window,
    smooth_landmarks,
    smoothstep,
)
from sg3cli.compositing.paste import kept_detail, membrane, paste, warp_alpha
from sg3cli.geometry import expanded_quad, warp_quad

SIZE = 64


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


def test_smoothed_landmarks_jitter_less_and_gaps_stay():
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


# ---- colour at the seam --------------------------------------------------------------------------------------------


def laplace(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The membrane by a direct solution: every pixel inside is the mean of its neighbours."""
    count, (height, width) = int(inside.sum()), inside.shape
    number = np.full(inside.shape, -1)
    number[inside] = np.arange(count)
    matrix, right = lil_matrix((count, count)), np.zeros((count, values.shape[2]))
    for y, x in np.argwhere(inside):
        for j, i in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if 0 <= j < height and 0 <= i < width:
                matrix[number[y, x], number[y, x]] += 1
                if inside[j, i]:
                    matrix[number[y, x], number[j, i]] -= 1
                else:
                    right[number[y, x]] += values[j, i]
    result = values.astype(float).copy()
    result[inside] = spsolve(matrix.tocsr(), right).reshape(count, -1)
    return result


def test_membrane_is_the_solution_of_laplace_s_equation():
    values = smooth_frame(61, 83).astype(np.float32)
    y, x = np.mgrid[0:61, 0:83]
    inside = (x - 40) ** 2 / 30**2 + (y - 28) ** 2 / 33**2 < 1  # reaches the upper edge
    found = membrane(values, inside)
    assert np.array_equal(found[~inside], values[~inside])
    scale = np.ptp(values)
    assert np.abs(found - laplace(values, inside)).max() < 0.03 * scale
    assert np.abs(membrane(np.full((40, 50, 3), 7.0, np.float32), np.ones((40, 50), bool))).max() == 0


@pytest.mark.parametrize("plain", [False, True])
def test_gradient_blend_removes_a_constant_offset_and_meets_the_seam(plain):
    """By opacity alone a cast stays in the face; with gradients the face takes the colour around it."""
    frame, window = smooth_frame(), square((100, 75), 50, 0.1)
    true = warp_quad(frame, window, SIZE)
    crop = true + np.array([12.0, -7, 4])
    alpha = face_mask(face(), SIZE, 0.08)
    base = true if plain else None
    mixed = paste(frame, crop, window, alpha, plain=base).astype(int)
    result = paste(frame, crop, window, alpha, plain=base, blend="gradient").astype(int)
    assert np.abs(mixed - frame)[60:90, 85:115].mean() > 6
    assert np.abs(result - frame).max() <= 3


def test_gradient_blend_takes_over_structure_and_fades_a_slope():
    """What differs at the seam goes, what is in the face stays."""
    frame = np.full((120, 120, 3), 100, np.uint8)
    window = square((60, 60), 40, 0.0)
    crop = np.full((SIZE, SIZE, 3), 140, np.float32)
    crop[28:36, 28:36] = 200  # 60 above the crop's own level
    result = paste(frame, crop, window, face_mask(face(), SIZE, 0.08), blend="gradient").astype(int)
    assert abs(result[60, 60, 0] - 160) <= 3 and abs(result[75, 60, 0] - 100) <= 3
    assert np.abs(np.diff(result[:, 60, 0])).max() <= 60


def test_hair_at_the_mask_s_edge_does_not_colour_the_face():
    """Where the source is kept the crop's difference from it says nothing about skin."""
    frame = np.full((120, 120, 3), 150, np.uint8)
    frame[:45] = 20
    window = square((60, 60), 40, 0.0)
    crop = np.full((SIZE, SIZE, 3), 150, np.float32)
    seen = np.ones((SIZE, SIZE), np.float32)
    seen[:22] = 0
    alpha = face_mask(face(), SIZE, 0.08)
    result = paste(frame, crop, window, alpha, visible=seen, blend="gradient").astype(int)
    assert np.abs(result[55:90, 45:75] - 150).max() <= 3
    assert np.array_equal(result[:40], frame[:40])


# ---- what may change -----------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(windows, st.integers(0, 99), st.sampled_from(["alpha", "gradient"]), st.sampled_from([0.0, 1.0]), st.booleans())
def test_pixels_outside_keep_their_bits_in_every_mode(window, seed, blend, match, plain):
    rng = np.random.default_rng(seed)
    frame = rng.integers(0, 256, (150, 200, 3), dtype=np.uint8)
    crop, base = rng.integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)
    seen = (rng.random((24, 24)) > 0.5).astype(np.float32)
    user_mask = (rng.random((150, 200)) > 0.5).astype(np.float32)
    alpha = face_mask(face(), SIZE, 0.08)
    before = base if plain else None
    result = paste(frame, crop, window, alpha, match, before, visible=seen, user_mask=user_mask, blend=blend)
    opacity = warp_alpha(alpha, window, frame.shape[:2]) * warp_alpha(seen, window, frame.shape[:2]) * user_mask
    assert np.array_equal(result[opacity == 0], frame[opacity == 0])
    black = paste(frame, crop, window, alpha, match, user_mask=np.zeros((150, 200), np.float32), blend=blend)
    assert np.array_equal(black, frame)


@pytest.mark.parametrize("shares", [(0.25, 0.0, 0.5, 0.0), (0.0, 0.25, 0.25, 0.25)])
def test_an_expanded_crop_lands_where_it_was_seen(shares):
    """A crop of the grown window is pasted back onto itself, and its mask reaches where the square's ends."""
    frame = smooth_frame(240, 320)
    window = square((150, 120), 40, 0.2)
    grown = expanded_quad(window, shares)
    left, right, top, bottom = shares
    size = (round(64 * (1 + top + bottom)), round(64 * (1 + left + right)))
    np.testing.assert_allclose(expanded_quad(grown, (0, 0, 0, 0)), grown)
    crop = warp_quad(frame, grown, size)
    opaque = np.ones(size, np.float32)
    assert np.abs(paste(frame, crop, grown, opaque).astype(int) - frame)[60:180, 90:210].max() <= 3
    inner = crop[round(64 * top) : round(64 * (1 + top)), round(64 * left) : round(64 * (1 + left))]
    assert np.abs(inner - warp_quad(frame, window, 64))[2:-2, 2:-2].max() < 2
    points = landmarks_in_window(window, grown, size)
    assert points[0] == pytest.approx([64 * left, 64 * top]) and points[2] == pytest.approx(
        [64 * (1 + left), 64 * (1 + top)]
    )
    assert face_mask(points[[0] * 68], size, 0.1).shape == size


def test_mask_of_a_face_at_the_crop_s_edge_goes_on_in_the_wider_view():
    landmarks = face() - np.array([14, 0])  # the jaw leaves the square on the left
    cut = face_mask(landmarks, SIZE, 0.08)
    wide = face_mask(landmarks + np.array([16, 0]), (SIZE, SIZE + 16), 0.08)
    assert np.abs(wide[:, 26:-8] - cut[:, 10:-8]).max() < 0.02
    assert cut[32, 3] < 0.5 and wide[32, 16 + 3] == 1
    assert edge_mask((SIZE, 2 * SIZE), 0.08)[SIZE // 2, 8:-8].min() == 1 and edge_mask(SIZE, 0.08)[0].max() == 0

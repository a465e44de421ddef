"""Aligned squares, transforms between squares, smoothing in time, warps, and the track built from observations."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from running import GOLDEN
from schematic_faces import frontal_face as face
from scipy.ndimage import gaussian_filter1d

from sg3cli import geometry
from sg3cli.errors import InputError, UsageError
from sg3cli.faces.alignment import ABSENT, FOUND, INTERPOLATED, Track, build_track
from sg3cli.geometry import (
    analytic_transform,
    ffhq_quad,
    quad_from_axes,
    quad_matrix,
    quad_to_params,
    rotation_degrees,
    similarity,
    warp_quad,
)
from sg3cli.settings import AlignConfig
from sg3cli.smoothing import smooth_paper, smooth_zero_phase

GOLDEN = GOLDEN / "E_geometry.npz"


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as arrays:
        return {name: arrays[name] for name in arrays.files}


def clip_of(landmarks, config=None, rate=25.0):
    count = len(landmarks)
    return build_track(landmarks, np.arange(count), np.arange(count) / rate, config or AlignConfig())


# --- Squares -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rule", "suffix"), [("eyes", ""), ("ffhq", "_ffhq")])
def test_quads_match_the_reference(golden, rule, suffix):
    centre, x = geometry.axes_of(ffhq_quad(golden["landmarks"], rule))
    np.testing.assert_allclose(centre, golden[f"pos__c{suffix}"], rtol=1e-9)
    np.testing.assert_allclose(x, golden[f"pos__x{suffix}"], rtol=1e-9, atol=1e-9)


def test_corner_order_and_size_match_the_reference(golden):
    quad = ffhq_quad(golden["landmarks"], "eyes")
    np.testing.assert_allclose(quad, golden["pos__align_quad"], rtol=1e-9, atol=1e-9)
    side = np.linalg.norm(quad[:, 3] - quad[:, 0], axis=-1)
    np.testing.assert_allclose(side, golden["pos__align_qsize"], rtol=1e-9)


def test_profile_is_sized_by_the_mouth_with_the_ffhq_rule_only():
    profile = face(size=60) * (0.3, 1) + (140, 0)
    ratio = np.exp(np.subtract(*(quad_to_params(ffhq_quad(profile, rule))[3] for rule in ("ffhq", "eyes"))))
    assert ratio == pytest.approx(1.8 * 1.05 / (2.0 * 0.3), rel=0.01)


def test_unknown_rule_is_a_usage_error():
    with pytest.raises(UsageError):
        ffhq_quad(face(), "dlib")


@settings(deadline=None, max_examples=50)
@given(st.tuples(*[st.floats(-300, 300)] * 2), st.floats(-3.1, 3.1), st.floats(2, 6))
def test_quad_parameters_round_trip(centre, angle, log_half):
    params = np.array([*centre, angle, log_half])
    np.testing.assert_allclose(quad_to_params(geometry.params_to_quad(params)), params, atol=1e-9)


# --- Transforms --------------------------------------------------------------------------------------------


def test_similarity_table_matches_the_reference(golden):
    for (tx, ty, degrees), M, inverse in zip(
        golden["mt__args_tx_ty_angle"], golden["mt__m"], golden["mt__inv"], strict=True
    ):
        np.testing.assert_allclose(similarity(tx, ty, degrees), M, atol=1e-12)
        np.testing.assert_allclose(np.linalg.inv(similarity(tx, ty, degrees)), inverse, atol=1e-12)


def test_rotation_between_reference_faces_is_the_reference_angle(golden):
    """The reference measures the angle between the eye lines; squares on the eyes turn by the same."""

    def on_the_eyes(points):  # landmarks 36..54
        left, right = points[:, 0:6].mean(1), points[:, 6:12].mean(1)
        return quad_from_axes((left + right) / 2, (right - left) / 2)

    aligned, unaligned = on_the_eyes(golden["lt__lm_aligned"]), on_the_eyes(golden["lt__lm_unaligned"])
    canvas = quad_from_axes(np.array([512.0, 512.0]), np.array([512.0, 0.0]))
    M = analytic_transform(unaligned, canvas) @ np.linalg.inv(analytic_transform(aligned, canvas))
    difference = (rotation_degrees(M) - golden["lt__angle"] + 180) % 360 - 180
    # Where the eyes of both images are almost level the reference loses the sign of the angle.
    kept = np.abs(rotation_degrees(M)) > 1
    assert kept.sum() >= 12
    np.testing.assert_allclose(difference[kept], 0, atol=1e-5)
    np.testing.assert_allclose(np.linalg.inv(golden["lt__transform"]), golden["lt__inverse"], atol=1e-12)


@settings(deadline=None, max_examples=50)
@given(st.floats(-60, 60), st.floats(0.5, 2), st.floats(-80, 80), st.floats(-80, 80))
def test_analytic_transform_recovers_turn_scale_and_shift(degrees, scale, dx, dy):
    window = ffhq_quad(face((200, 150), 60))
    quad = ffhq_quad(face((200 + dx, 150 + dy), 60 * scale, degrees))
    M = analytic_transform(quad, window)
    assert rotation_degrees(M) == pytest.approx(-degrees, abs=1e-6)  # clockwise pixels, counter-clockwise angle
    assert np.linalg.det(M[:2, :2]) ** 0.5 == pytest.approx(scale, rel=1e-9)
    inside = quad_matrix(window, 1) @ (M @ [0.1, -0.2, 1] + [0.5, 0.5, 0])
    np.testing.assert_allclose(inside, quad_matrix(quad, 1) @ [0.6, 0.3, 1], atol=1e-6)


def test_transform_says_where_the_aligned_content_lies_in_the_window():
    """`Track.transforms` maps the window to the face: resampling the aligned crop with it gives the window's view."""
    rng = np.random.default_rng(1)
    scene = cv2.GaussianBlur(rng.uniform(0, 255, (400, 400, 3)).astype(np.float32), (0, 0), 6)
    window, quad = ffhq_quad(face((200, 190), 45)), ffhq_quad(face((207, 186), 48, 12))
    to_aligned = np.linalg.inv(analytic_transform(quad, window))
    size = 160
    aligned, seen = warp_quad(scene, quad, size), warp_quad(scene, window, size)
    canvas = np.array([[1 / size, 0, 0.5 / size - 0.5], [0, 1 / size, 0.5 / size - 0.5], [0, 0, 1]])
    pixels = np.linalg.inv(canvas) @ to_aligned @ canvas
    again = cv2.warpAffine(aligned, pixels[:2], (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    middle = slice(40, 120)
    error, unmoved = (np.abs(view - seen)[middle, middle].mean() for view in (again, aligned))
    assert error < 0.1 and unmoved > 20 * error


# --- Warps -------------------------------------------------------------------------------------------------


def test_warp_of_an_upright_square_is_the_crop():
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    quad = np.array([[20, 10], [20, 42], [52, 42], [52, 10]], float)
    crop = warp_quad(image, quad, 32)
    assert crop.dtype == np.float32
    np.testing.assert_allclose(crop, image[10:42, 20:52], atol=1e-3)
    np.testing.assert_allclose(
        warp_quad(image, quad, 16), cv2.resize(image[10:42, 20:52].astype(np.float32), (16, 16), interpolation=3),
        atol=1e-3,
    )  # fmt: skip


def test_warp_follows_a_turned_square():
    y, x = np.mgrid[0:300, 0:300] + 0.5
    image = np.stack([x * 0.5, y * 0.5, x * 0.25 + y * 0.25], -1)
    quad = ffhq_quad(face((150, 150), 35, 25))
    crop = warp_quad(image, quad, 64)
    grid = np.stack(np.meshgrid(np.arange(64) + 0.5, np.arange(64) + 0.5), -1)
    places = grid @ quad_matrix(quad, 64)[:2, :2].T + quad_matrix(quad, 64)[:2, 2]
    np.testing.assert_allclose(crop[..., 0], places[..., 0] * 0.5, atol=0.05)
    np.testing.assert_allclose(crop[..., 1], places[..., 1] * 0.5, atol=0.05)


def test_warp_does_not_alias():
    """Stripes finer than a crop pixel average to grey; plain bilinear sampling would show a false pattern."""
    image = np.zeros((512, 512, 3), np.uint8)
    image[:, ::2] = 255
    quad = quad_from_axes(np.array([256.0, 256.0]), np.array([200.0, 30.0]))
    assert np.abs(warp_quad(image, quad, 64) - 127.5).max() < 20


def test_warp_mirrors_beyond_the_frame():
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    quad = np.array([[-16, 0], [-16, 32], [16, 32], [16, 0]], float)
    crop = warp_quad(image, quad, 32)
    np.testing.assert_allclose(crop[:, :16], crop[:, :15:-1], atol=1e-3)
    far = warp_quad(image, quad + 500, 32)
    assert np.isfinite(far).all() and far.std() > 10


# --- Smoothing ---------------------------------------------------------------------------------------------

VALUES = hnp.arrays(np.float64, st.tuples(st.integers(2, 30), st.integers(1, 3)), elements=st.floats(-100, 100))


def irregular(count, seed=0):
    return np.cumsum(np.random.default_rng(seed).uniform(0.01, 0.09, count))


def test_smoothing_is_the_gaussian_filter_away_from_the_ends():
    values = np.random.default_rng(0).normal(size=(80, 3))
    smooth = smooth_zero_phase(values, np.arange(80) / 25, 0.08)
    np.testing.assert_allclose(smooth[10:-10], gaussian_filter1d(values, 2.0, axis=0)[10:-10], atol=1e-3)


@settings(deadline=None, max_examples=50)
@given(st.floats(-1e3, 1e3), st.floats(0.001, 2), st.integers(1, 40))
def test_smoothing_keeps_constants_to_the_bit(value, sigma, count):
    values = np.full((count, 2), value)
    assert np.array_equal(smooth_zero_phase(values, irregular(count), sigma), values)


@settings(deadline=None, max_examples=50)
@given(st.floats(-10, 10), st.floats(-10, 10), st.floats(0.05, 1), st.integers(3, 40))
def test_smoothing_keeps_straight_lines_at_irregular_times_up_to_the_ends(start, slope, sigma, count):
    times = irregular(count)
    line = (start + slope * times)[:, None]
    np.testing.assert_allclose(smooth_zero_phase(line, times, sigma), line, atol=1e-8)


@settings(deadline=None, max_examples=50)
@given(VALUES, st.floats(0.02, 0.5))
def test_smoothing_has_no_direction_in_time(values, sigma):
    times = irregular(len(values))
    forward = smooth_zero_phase(values, times, sigma)
    backward = smooth_zero_phase(values[::-1], -times[::-1], sigma)[::-1]
    assert forward.shape == values.shape
    np.testing.assert_allclose(forward, backward, atol=1e-9)


@settings(deadline=None, max_examples=50)
@given(VALUES)
def test_paper_kernel_is_linear_keeps_length_and_constants(values):
    smooth = smooth_paper(values)
    assert smooth.shape == values.shape
    np.testing.assert_allclose(smooth_paper(2 * values + 1), 2 * smooth + 1, atol=1e-9)
    np.testing.assert_allclose(smooth_paper(values[::-1])[::-1], smooth, atol=1e-9)
    np.testing.assert_allclose(smooth_paper(values.T, axis=1), smooth.T, atol=1e-9)


def test_paper_kernel_matches_the_reference_inside(golden):
    codes = golden["smooth__latents_fine_averaged"]
    np.testing.assert_allclose(smooth_paper(codes)[2:-2], golden["smooth__out_latents"], atol=2e-6)
    transforms = smooth_paper(golden["smooth__transforms"])
    np.testing.assert_allclose(transforms[2:-2], golden["smooth__out_transforms"], atol=1e-9)


# --- Tracks ------------------------------------------------------------------------------------------------


def walk(count=60, noise=0.3, seed=0):
    """A face that moves to the right, turns and comes nearer, with jitter."""
    rng = np.random.default_rng(seed)
    t = np.linspace(0, 1, count)
    clean = [face((150 + 60 * k, 150), 50 + 8 * k, 10 * k) for k in t]
    return np.array(clean), np.array(clean) + rng.normal(0, noise, (count, 68, 2))


@pytest.mark.parametrize("crop", ["fixed", "smooth", "hybrid"])
def test_track_follows_the_face_and_its_transforms_are_inverse_motion(crop):
    clean, noisy = walk()
    track = clip_of(noisy, AlignConfig(crop=crop))
    truth = ffhq_quad(clean)
    raw_error, error = (np.abs(quads - truth).mean() for quads in (track.quads_raw, track.quads))
    assert error < raw_error / 2
    assert (track.status == FOUND).all() and len(track) == 60
    forward = np.linalg.inv(track.transforms)
    np.testing.assert_allclose(forward, analytic_transform(track.quads, track.windows), atol=1e-9)
    if crop == "fixed":
        assert np.array_equal(track.windows, np.tile(track.quads[0], (60, 1, 1)))
    if crop == "smooth":
        np.testing.assert_allclose(track.transforms, np.tile(np.eye(3), (60, 1, 1)), atol=1e-9)
    if crop == "hybrid":
        assert np.abs(track.transforms - np.eye(3)).max() < 0.2


def test_hybrid_window_is_calmer_than_the_face():
    _, noisy = walk(100)
    noisy += (3 * np.sin(np.arange(100) * 0.8))[:, None, None]  # a nod at about 3 Hz
    track = clip_of(noisy)

    def acceleration(quads):
        return np.abs(np.diff(quads.mean(1), 2, axis=0)).mean()

    assert acceleration(track.windows) < 0.2 * acceleration(track.quads)


def test_short_gap_is_interpolated_long_gap_is_absent():
    clean, landmarks = walk(80, noise=0)
    landmarks[20:30] = np.nan  # 0.4 s
    landmarks[45:65] = np.nan  # 0.8 s
    landmarks[:3] = np.nan
    track = clip_of(landmarks)
    assert (track.status[20:30] == INTERPOLATED).all()
    assert (track.status[45:65] == ABSENT).all() and (track.status[:3] == ABSENT).all()
    assert np.count_nonzero(track.status == FOUND) == 80 - 10 - 20 - 3
    assert np.abs(track.quads[20:30] - ffhq_quad(clean)[20:30]).max() < 2
    assert np.isfinite(track.landmarks[20:30]).all() and np.isnan(track.landmarks[45:65]).all()
    held = np.concatenate([track.quads, track.windows, track.transforms.reshape(80, -1)[:, :8].reshape(80, 4, 2)])
    assert np.isfinite(held).all()
    assert np.array_equal(track.quads[46], track.quads[44]) and np.array_equal(track.quads[63], track.quads[65])
    assert np.array_equal(track.quads[0], track.quads[3])


def test_gap_limit_is_in_seconds():
    _, landmarks = walk(80)
    landmarks[20:30] = np.nan
    assert (clip_of(landmarks, rate=12.5).status[20:30] == ABSENT).all()  # 0.8 s
    assert (clip_of(landmarks, AlignConfig(max_gap=0), rate=25).status[20:30] == ABSENT).all()


def test_one_wrong_frame_does_not_move_the_track():
    clean, landmarks = walk(60, noise=0)
    landmarks[30] += (80, -40)
    track = clip_of(landmarks)
    assert track.status[30] == INTERPOLATED
    assert np.abs(track.quads - ffhq_quad(clean)).max() < 2
    assert np.abs(track.landmarks[30] - clean[30]).max() < 1


def test_a_fast_move_is_no_outlier():
    landmarks = np.array([face((100 + 12 * k, 150), 40) for k in range(8)] + [face((184, 150), 40)] * 20)
    assert (clip_of(landmarks).status == FOUND).all()


def test_track_of_a_single_frame():
    track = clip_of(face()[None])
    np.testing.assert_allclose(track.quads[0], ffhq_quad(face()), atol=1e-3)
    np.testing.assert_allclose(track.transforms[0], np.eye(3), atol=1e-9)


def test_rolling_past_180_degrees_does_not_unwind():
    landmarks = np.array([face(degrees=k * 9) for k in range(40)])
    track = clip_of(landmarks)
    assert np.abs(track.quads - ffhq_quad(landmarks)).max() < 3


def test_track_arrays_round_trip():
    track = clip_of(walk(12)[1])
    again = Track.from_arrays(track.to_arrays())
    for name, array in track.to_arrays().items():
        assert np.array_equal(getattr(again, name), array) and array.flags.c_contiguous
    assert (track.pts.dtype, track.status.dtype, track.shots.dtype) == (np.int64, np.uint8, np.int32)


def test_bad_policy_and_absent_column_are_errors():
    with pytest.raises(UsageError):
        clip_of(walk(10)[1], replace(AlignConfig(), crop="wide"))
    with pytest.raises(InputError):
        clip_of(np.full((5, 68, 2), np.nan))


# --- Shots, blinks, jitter ---------------------------------------------------------------------------------


def at_rest(count=150, noise=0.5, seed=3):
    """A face that does not move, with noise on each landmark and on all of them together."""
    rng = np.random.default_rng(seed)
    return face((200, 150), 50) + rng.normal(0, noise, (count, 68, 2)) + rng.normal(0, noise, (count, 1, 2))


def test_jitter_of_a_resting_face_falls_tenfold():
    track = clip_of(at_rest())
    raw, smooth = track.jitter
    assert raw > 1 and smooth < raw / 10


def test_a_moving_face_does_not_lag():
    """The smoothed centre of a face that sways at 1 Hz and jumps aside at once fits the truth best with no shift."""
    t = np.arange(200) / 25
    x = 200 + 30 * np.sin(2 * np.pi * t) + 40 / (1 + np.exp(-(t - 4) * 12))
    clean = np.array([face((cx, 150), 50) for cx in x])
    noisy = clean + np.random.default_rng(0).normal(0, 0.5, clean.shape)
    centre, truth = (axes_x(quads) for quads in (clip_of(noisy).quads, ffhq_quad(clean)))
    inside = slice(20, -20)
    errors = [np.square(np.roll(centre, -k)[inside] - truth[inside]).mean() for k in (-2, -1, 0, 1, 2)]
    assert np.argmin(errors) == 2
    a, b, c = errors[1:4]
    assert abs((a - c) / (2 * (a - 2 * b + c))) < 0.05  # the parabola's lowest point, in frames
    assert np.sqrt(errors[2]) < 1.0


def axes_x(quads):
    return geometry.axes_of(quads)[0][:, 0]


def test_a_blink_does_not_move_the_square():
    landmarks = at_rest(100, noise=0.02)
    still = clip_of(landmarks).quads
    shut = landmarks.copy()
    for frames in (slice(30, 36), slice(70, 75)):
        for lid in (37, 38, 43, 44):
            shut[frames, lid, 1] += 9
    moved = np.abs(ffhq_quad(shut) - ffhq_quad(landmarks)).max()
    assert moved > 1.5
    assert np.abs(clip_of(shut).quads - still).max() < 0.1 * moved


def shots_of(landmarks, shots, config=None, trusted=None):
    count = len(landmarks)
    return build_track(landmarks, np.arange(count), np.arange(count) / 25, config or AlignConfig(), shots, trusted)


@pytest.mark.parametrize("crop", ["fixed", "smooth", "hybrid"])
def test_nothing_crosses_a_cut(crop):
    """Each half of a clip with a cut is what it is alone, whatever the other half holds."""
    _, left = walk(40)
    right = walk(40, seed=5)[1] + (90, -30)
    shots = np.repeat([0, 1], 40).astype(np.int32)
    track = shots_of(np.concatenate([left, right]), shots, AlignConfig(crop=crop))
    for half, alone in ((slice(0, 40), left), (slice(40, 80), right)):
        single = clip_of(alone, AlignConfig(crop=crop))
        np.testing.assert_allclose(track.quads[half], single.quads, atol=1e-3)
        np.testing.assert_allclose(track.windows[half], single.windows, atol=1e-3)
    assert track.shots.tolist() == shots.tolist()
    assert track.jitter[1] < track.jitter[0] < 10  # the jump at the cut is no jitter


def test_a_gap_at_a_cut_is_not_bridged():
    _, landmarks = walk(40)
    landmarks[18:22] = np.nan
    assert (clip_of(landmarks).status[18:22] == INTERPOLATED).all()
    track = shots_of(landmarks, np.repeat([0, 1], 20).astype(np.int32))
    assert (track.status[18:22] == ABSENT).all()


def test_untrusted_frames_are_left_out_and_not_bridged():
    _, landmarks = walk(40)
    trusted = np.ones(40, bool)
    trusted[20:25] = False
    track = shots_of(landmarks, None, trusted=trusted)
    assert (track.status[20:25] == ABSENT).all() and (np.delete(track.status, range(20, 25)) == FOUND).all()


def test_on_no_face():
    _, landmarks = walk(60)
    landmarks[:5] = landmarks[20:45] = np.nan
    assert np.count_nonzero(clip_of(landmarks).status == ABSENT) == 30
    held = clip_of(landmarks, AlignConfig(on_no_face="hold"))
    assert (held.status != ABSENT).all() and np.array_equal(held.landmarks[0], held.landmarks[4])
    with pytest.raises(InputError, match=r"30 of 60 frames .* frame 0 at 0.00 s"):
        clip_of(landmarks, AlignConfig(on_no_face="fail"))
    with pytest.raises(UsageError):
        clip_of(landmarks, AlignConfig(on_no_face="guess"))

"""Inversion: aligned feedback, frames without a face, exact resume; smoothing over time."""

from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from running import GOLDEN
from tiny import RESOLUTION, tiny_encoder, tiny_generator

from sg3cli.errors import InputError, UsageError
from sg3cli.faces.crops import aligned_crops, window_crops
from sg3cli.latents.inversion import GROUP, block_frames, fill_absent, find_leaders, invert, smooth_codes
from sg3cli.nets.restyle import restyle_codes
from sg3cli.settings import InvertConfig

CONFIG = InvertConfig(batch=3, steps=2)


def faces(count: int, absent: tuple[int, ...] = ()) -> list[np.ndarray | None]:
    rng = np.random.default_rng(0)
    crops = rng.uniform(-1, 1, (count, RESOLUTION, RESOLUTION, 3)).astype(np.float32)
    return [None if i in absent else crop for i, crop in enumerate(crops)]


# ---- codes ---------------------------------------------------------------------------------------------------------


def test_codes_are_those_of_the_restyle_loop():
    G, encoder = tiny_generator(), tiny_encoder()
    crops = faces(4)
    codes = list(invert(crops, G, encoder, CONFIG))
    assert len(codes) == 4 and codes[0].shape == (G.num_ws, G.w_dim) and codes[0].dtype == np.float32
    x = torch.from_numpy(crops[3]).permute(2, 0, 1)[None]
    assert np.abs(codes[3] - restyle_codes(encoder, G, x, steps=2)[0].numpy()).max() < 1e-4
    more = next(invert(crops, G, encoder, replace(CONFIG, steps=3)))
    assert np.abs(more - codes[0]).max() > 1e-4


def test_frames_without_a_face_are_not_encoded():
    G, encoder = tiny_generator(), tiny_encoder()
    seen: list[int] = []
    encoder.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    codes = np.stack(list(invert(faces(8, absent=(1, 3, 4, 5)), G, encoder, replace(CONFIG, steps=1))))
    assert seen == [3, 1]  # frames 0, 2, 6 and 7, three at once
    assert np.isfinite(codes).all()
    w_avg = G.mapping.w_avg.numpy()
    assert [bool((code == w_avg).all()) for code in codes] == [i in (1, 3, 4, 5) for i in range(8)]


def still_life(count: int, cut: int | None = None) -> list[np.ndarray]:
    """A face that hardly changes from frame to frame; from the frame `cut` on another one."""
    one, other = faces(2)
    return [(one if cut is None or i < cut else other) + np.float32(1e-3 * i) for i in range(count)]


def test_resume_at_the_end_of_a_block_gives_the_same_bytes():
    G, encoder = tiny_generator(), tiny_encoder()
    block = block_frames(G.img_resolution)
    crops: list[np.ndarray | None] = [*still_life(block), *faces(GROUP), *still_life(2 * GROUP)]
    crops[3] = crops[block + 1] = None
    whole = np.stack(list(invert(crops, G, encoder, CONFIG)))
    resumed = np.stack(list(invert(crops[block:], G, encoder, CONFIG, first=block)))
    assert np.array_equal(whole[block:], resumed)


def test_the_batch_changes_no_code():
    G, encoder = tiny_generator(), tiny_encoder()
    crops = [*still_life(GROUP + 3), *faces(4)]
    three, all_at_once = (list(invert(crops, G, encoder, replace(CONFIG, batch=batch))) for batch in (3, 64))
    assert np.abs(np.stack(three) - np.stack(all_at_once)).max() < 1e-5


def test_a_frame_that_looks_like_its_neighbour_takes_one_pass_from_its_code():
    G, encoder = tiny_generator(), tiny_encoder()
    crops = still_life(GROUP)
    codes = np.stack(list(invert(crops, G, encoder, replace(CONFIG, steps=3))))
    x = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)
    led = restyle_codes(encoder, G, x[GROUP // 2 :][:1], steps=2)
    image = G.synthesis(led, transform=torch.eye(3))
    expected = led + encoder(torch.cat([x, image.expand(GROUP, -1, -1, -1)], dim=1))
    assert np.abs(codes - expected.numpy()).max() < 1e-5
    alone = np.stack(list(invert(crops, G, encoder, replace(CONFIG, steps=3, start="average"))))
    assert np.abs(alone - restyle_codes(encoder, G, x, steps=3).numpy()).max() < 1e-4
    others = np.arange(GROUP) != GROUP // 2
    assert np.abs(alone - codes)[others].max() > 1e-4 > np.abs(alone - codes)[~others].max()


def test_only_leaders_are_drawn():
    G, encoder = tiny_generator(), tiny_encoder()
    drawn: list[int] = []
    G.synthesis.register_forward_pre_hook(lambda _, args: drawn.append(len(args[0])))
    list(invert(still_life(2 * GROUP, cut=GROUP + 2), G, encoder, replace(CONFIG, steps=3)))
    assert drawn == [1, 3, 3]  # the average face; then the leader of the first group and two beside the cut, twice


def test_leaders_are_of_the_same_group_and_look_alike():
    crops = np.stack(still_life(20, cut=11))
    leaders = find_leaders(crops, np.arange(100, 120), limit=0.03)  # groups 96-103, 104-111, 112-119
    assert leaders[:4].tolist() == [0] * 4  # 100 is the middle of its group
    assert leaders[4:11].tolist() == [8] * 7 and leaders[11] == 11  # 108 leads up to the cut
    assert leaders[12:].tolist() == [16] * 8
    gap = np.array([100, 101, 102, 103, 104, 111])  # 111 is nearer to 107.75 than 104; who is absent leads nobody
    assert find_leaders(crops[:6], gap, limit=0.03).tolist() == [0, 0, 0, 0, 5, 5]
    assert find_leaders(crops, np.arange(20), limit=-1).tolist() == list(range(20))
    assert find_leaders(crops[:3] * [[[[1]]], [[[2]]], [[[3]]]], np.arange(3), 0.03).tolist() == [0, 1, 2]


def test_crops_are_taken_lazily():
    def endless():
        while True:
            yield faces(1)[0]

    stream = invert(endless(), tiny_generator(), tiny_encoder(), CONFIG)
    assert all(next(stream) is not None for _ in range(4))


def test_crops_follow_the_track():
    """Frames carry their index; aligned crops use `quads`, window crops `windows`, and absent frames give None."""
    quad = np.array([[2, 2], [2, 10], [10, 10], [10, 2]], dtype=float)
    track = SimpleNamespace(
        status=np.array([0, 2, 1]), quads=np.stack([quad] * 3), windows=np.stack([quad + np.array([8, 0])] * 3)
    )
    rgb = np.zeros((16, 24, 3), np.uint8)
    rgb[:, 10:18] = 255
    frames = [SimpleNamespace(index=i, pts=i, time_base=Fraction(1, 25), rgb=rgb) for i in range(3)]
    aligned, windows = list(aligned_crops(frames, track, 8)), list(window_crops(frames[1:], track, 8))
    assert aligned[1] is None and windows[0] is None
    assert aligned[0].dtype == np.float32 and aligned[0].shape == (8, 8, 3)
    assert aligned[0][:, :7].max() == pytest.approx(-1) and windows[1][:, 1:7].min() == pytest.approx(1)


# ---- smoothing -----------------------------------------------------------------------------------------------------


def random_codes(seed: int, frames: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(frames, 16, 3))


MODES = ("none", "paper", "gauss:0.08")


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(MODES), st.integers(1, 30), st.integers(0, 99), st.floats(-3, 3))
def test_smoothing_is_linear_and_keeps_the_length(mode, frames, seed, k):
    times, shots = np.arange(frames) / 25, np.zeros(frames, int)
    a, b = random_codes(seed, frames), random_codes(seed + 100, frames)
    together = smooth_codes(a + k * b, times, shots, mode)
    apart = smooth_codes(a, times, shots, mode) + k * smooth_codes(b, times, shots, mode)
    assert together.shape == a.shape and together == pytest.approx(apart, abs=1e-6)


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(MODES), st.integers(1, 15), st.integers(1, 15), st.integers(0, 99))
def test_shots_are_smoothed_apart(mode, first, second, seed):
    times, shots = np.arange(first + second) / 25, np.repeat([0, 1], [first, second])
    ws = random_codes(seed, first + second)
    whole = smooth_codes(ws, times, shots, mode)
    part = smooth_codes(ws[first:], times[first:], shots[first:], mode)
    assert whole[first:] == pytest.approx(part, abs=1e-9)


@pytest.mark.parametrize("mode", MODES)
def test_a_constant_stays_a_constant(mode):
    ws = np.repeat(random_codes(1, 1).astype(np.float32), 12, axis=0)
    assert smooth_codes(ws, np.arange(12) / 25, np.zeros(12, int), mode) == pytest.approx(ws, abs=1e-6)


def test_paper_smoothing_against_the_reference_numbers():
    """The reference drops two frames at each end; the rest must agree."""
    golden = np.load(GOLDEN / "smooth_codes.npz")
    ws = golden["latents"]
    smoothed = smooth_codes(ws, np.arange(len(ws)) / 25, np.zeros(len(ws), int), "paper")
    assert smoothed.dtype == ws.dtype
    assert np.abs(smoothed[2:-2] - golden["smoothed"]).max() < 1e-5 * np.abs(golden["smoothed"]).max()


def test_fine_rows_scale_with_the_number_of_rows():
    ws = np.random.default_rng(0).normal(size=(9, 12, 4))  # 12 rows: the last 5 are fine
    smoothed = smooth_codes(ws, np.arange(9) / 25, np.zeros(9, int), "paper")
    spread = np.ptp(smoothed, axis=0).max(axis=1)
    assert (spread[:7] > 0.01).all() and (spread[7:] < 1e-9).all()


@pytest.mark.parametrize(
    "mode", ["median", "gauss", "gauss:", "gauss:x", "gauss:-1", "gauss:nan", "gauss:inf", "paper:2"]
)
def test_unknown_smoothing_is_a_usage_error(mode):
    with pytest.raises(UsageError, match="unknown smoothing"):
        smooth_codes(random_codes(0, 3), np.arange(3) / 25, np.zeros(3, int), mode)


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_absent_frames_take_the_nearest_code(present):
    mask, ws = np.array(present), np.arange(len(present), dtype=np.float32)[:, None]
    if not mask.any():
        with pytest.raises(InputError, match="no frame has a face"):
            fill_absent(ws, mask)
        return
    filled = fill_absent(ws, mask)[:, 0]
    known = np.flatnonzero(mask)
    assert np.array_equal(filled[mask], known)
    for frame, source in enumerate(filled):
        assert mask[int(source)] and abs(source - frame) == np.abs(known - frame).min()

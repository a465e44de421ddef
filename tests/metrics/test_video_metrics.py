"""Warping error, the shift of a sound and Frechet distances against what is known by construction."""

from __future__ import annotations

import numpy as np
import pytest

from sg3cli.metrics.frechet import clip_features, frechet_from
from sg3cli.metrics.sound_shift import sound_shift
from sg3cli.metrics.warping import visible, warping_error


def test_what_moves_with_the_flow_has_no_warping_error() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    moved = np.roll(image, 3, axis=1)
    flow = np.zeros((40, 60, 2), np.float32)
    flow[..., 0] = -3
    inside = np.zeros((40, 60), bool)
    inside[:, 5:] = True
    assert warping_error(image, moved, flow, inside) == 0
    brighter = np.clip(image.astype(int) // 2 + 51, 0, 255)
    assert warping_error(image // 2, np.roll(brighter, 3, axis=1), flow, inside) == pytest.approx(0.04)
    assert np.isnan(warping_error(image, moved, flow, ~inside & inside))


def test_what_came_into_view_is_not_visible() -> None:
    flow, back = np.zeros((8, 8, 2), np.float32), np.zeros((8, 8, 2), np.float32)
    flow[..., 0], back[..., 0] = 2, -2
    flow[:, :3, 0] = -3  # nothing leads back from there
    seen = visible(flow, back)
    assert seen[:, 3:].all() and not seen[:, :3].any()


def test_shift_of_a_sound() -> None:
    noise = np.random.default_rng(0).normal(size=8000).astype(np.float32)
    late = np.concatenate([np.zeros(400, np.float32), noise])
    assert sound_shift(noise, late, 8000) == (0.05, pytest.approx(1.0))
    assert sound_shift(late, noise, 8000)[0] == -0.05
    tone = np.sin(np.arange(8000) * 2 * np.pi / 40).astype(np.float32)
    assert sound_shift(tone, tone, 8000)[0] == 0
    assert sound_shift(noise, np.random.default_rng(1).normal(size=8000), 8000)[0] is None
    assert sound_shift(noise, np.zeros(8000), 8000) == (None, 0.0)


def test_frechet_distance_needs_its_minimum_and_clips_tell_motion() -> None:
    features = np.random.default_rng(0).normal(size=(70, 4))
    assert frechet_from(features, features, 64) == pytest.approx(0, abs=1e-9)
    assert frechet_from(features, features + 2, 64) == pytest.approx(16)
    assert frechet_from(features[:63], features, 64) is None
    clips = clip_features(features, 16)
    assert clips.shape == (4, 8) and clip_features(features[:15], 16).shape == (0, 8)
    assert clips[1, :4] == pytest.approx(features[16:32].mean(0))
    backwards = clip_features(np.sort(features, axis=0), 16)
    assert (backwards[:, 4:] < clips[:, 4:]).all()

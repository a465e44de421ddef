"""Refinement: closer in every space, the right correction, warm starts, and nothing worse."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tiny import tiny_generator

from sg3cli.geometry import similarity
from sg3cli.latents.codes import Codes
from sg3cli.latents.refinement import RefineConfig, Refined, Refiner, pose_matrices, refined
from sg3cli.latents.rendering import draw
from sg3cli.metrics.perceptual import StructuralLoss
from sg3cli.nets.generator import Generator


def some_codes(G: Generator, count: int = 2, seed: int = 3) -> np.ndarray:
    noise = torch.Generator().manual_seed(seed)
    return G.mapping(torch.randn(count, G.config.z_dim, generator=noise)).numpy()


def crops_of(G: Generator, codes: Codes, transforms: np.ndarray | None = None) -> np.ndarray:
    """Aligned crops `[n, 32, 32, 3]` that codes give."""
    return draw(G, codes, transforms).permute(0, 2, 3, 1).numpy()


def alone(count: int) -> np.ndarray:
    return np.arange(count)


@pytest.fixture(scope="module")
def G() -> Generator:
    return tiny_generator()


@pytest.mark.parametrize("space", ["w", "w+", "s"])
def test_each_space_comes_closer_and_only_it_moves(G: Generator, space: str) -> None:
    """Halfway between two faces is where it starts, one of them is where it shall go; the generator stays."""
    before = {name: value.clone() for name, value in G.state_dict().items()}
    first, second = some_codes(G, 1), some_codes(G, 1, 8)
    start = ((first + second) / 2).astype(np.float32)
    x = crops_of(G, Codes(first))
    found = Refiner(G, RefineConfig(30, space, keep=0.0), None)(start, x, alone(1))
    error = [float(np.square(crops_of(G, codes) - x).mean()) for codes in (Codes(start), found.codes)]
    assert error[1] < 0.5 * error[0]
    assert found.before[0] == pytest.approx(error[0], rel=1e-3) and found.after[0] == pytest.approx(error[1], rel=1e-3)
    assert all(torch.equal(before[name], value) for name, value in G.state_dict().items())
    moved = found.codes.ws - start
    if space == "s":
        assert not moved.any() and found.codes.shift is not None and not found.codes.shift[:, :4].any()
    else:
        alike = np.abs(moved - moved[:, :1]).max() < 1e-6
        assert found.codes.shift is None and moved.any() and alike == (space == "w")
    assert found.codes.pose is None


def test_the_pose_that_was_missed_is_found(G: Generator) -> None:
    """A face a little to the right, lower, turned and larger: the correction is the inverse of that motion."""
    ws = some_codes(G)
    truth = np.linalg.inv(similarity(0.03, 0.02, 3.0, 1.03))
    x = crops_of(G, Codes(ws), np.repeat(truth[None], 2, axis=0))
    found = Refiner(G, RefineConfig(60, "pose", keep=0.0), None)(ws, x, alone(2))
    assert (found.codes.ws == ws).all() and found.codes.pose is not None
    assert found.codes.pose == pytest.approx(np.repeat(truth[None], 2, axis=0), abs=0.01)
    assert (found.after < 0.05 * found.before).all()
    motion = np.linalg.inv(similarity(-0.1, 0.05, 20.0, 1.0))
    twice = crops_of(G, found.codes, np.repeat(motion[None], 2, axis=0))  # before a frame's transform, not after it
    assert np.abs(twice - crops_of(G, Codes(ws), np.repeat((truth @ motion)[None], 2, axis=0))).mean() < 0.01


def test_the_pose_is_a_motion_of_the_image() -> None:
    values = torch.tensor([[0.1, -0.2, math.radians(30), math.log(2.0)]])
    moved = similarity(0.1, -0.2, 30.0, 2.0)  # counter-clockwise, as everywhere
    found = pose_matrices(values)[0].numpy()
    assert found[:2, :2] == pytest.approx(np.linalg.inv(moved)[:2, :2], abs=1e-6)
    assert pose_matrices(torch.zeros(1, 4))[0].numpy() == pytest.approx(np.eye(3))


def test_nothing_gets_worse_and_keep_holds_back(G: Generator) -> None:
    ws = some_codes(G)
    x = crops_of(G, Codes(ws))
    already = Refiner(G, RefineConfig(5, "w+", lr=5.0), None)(ws, x, alone(2))
    assert (already.codes.ws == ws).all() and (already.after <= already.before).all()
    other = crops_of(G, Codes(some_codes(G, 2, 9)))
    moves = [Refiner(G, RefineConfig(15, "w+", keep=keep), None)(ws, other, alone(2)).codes.ws - ws for keep in (0, 1)]
    assert np.square(moves[1]).sum() < 0.3 * np.square(moves[0]).sum()


def test_a_follower_starts_from_its_leader_s_correction(G: Generator) -> None:
    """With no step of its own it has that correction already."""
    ws, x = np.repeat(some_codes(G, 1), 2, axis=0), np.repeat(crops_of(G, Codes(some_codes(G, 1, 8))), 2, axis=0)
    refiner, seen = Refiner(G, RefineConfig(12, "w+"), None), []
    descend = refiner.descend

    def watched(codes: torch.Tensor, target: torch.Tensor, start: torch.Tensor, steps: int) -> object:
        seen.append((float(start.abs().max()), steps))
        return descend(codes, target, start, steps)

    refiner.descend = watched  # type: ignore[method-assign]
    found = refiner(ws, x, np.array([0, 0]))
    assert seen[0] == (0.0, 12) and seen[1][0] > 0.05 and seen[1][1] == 6
    assert found.after[1] <= found.after[0] * 1.001 < found.before[0]


def test_frames_are_refined_for_themselves_and_a_perceptual_loss_counts(G: Generator) -> None:
    ws, x = some_codes(G, 3), crops_of(G, Codes(some_codes(G, 3, 8)))
    config = RefineConfig(4, "w+")
    together: Refined = Refiner(G, config, StructuralLoss())(ws, x, alone(3))
    single = Refiner(G, config, StructuralLoss())(ws[1:2], x[1:2], alone(1))
    assert together.codes.ws[1] == pytest.approx(single.codes.ws[0], abs=1e-4)
    image, target = draw(G, Codes(ws)), torch.from_numpy(x).permute(0, 3, 1, 2)
    expected = (image - target).square().mean((1, 2, 3)) + StructuralLoss()(image, target)
    assert together.before == pytest.approx(expected.numpy(), rel=1e-4)


@pytest.mark.parametrize("space", ["s", "pose"])
def test_frames_without_a_face_pass_and_blocks_do_not_depend_on_each_other(G: Generator, space: str) -> None:
    ws = some_codes(G, 40)
    crops = list(crops_of(G, Codes(some_codes(G, 40, 8))))
    frames = [(None if k % 7 == 3 else crop, code) for k, (crop, code) in enumerate(zip(crops, ws, strict=True))]
    refiner = Refiner(G, RefineConfig(1, space), None)
    whole = list(refined(frames, refiner))
    assert len(whole) == 40 and all(set(parts) == set(whole[0]) for parts in whole)
    part = "shift" if space == "s" else "pose"
    assert np.isnan(whole[3]["loss"]).all() and (whole[3]["ws"] == ws[3]).all()
    neutral = np.zeros_like(whole[3][part]) if space == "s" else np.eye(3)
    assert (whole[3][part] == neutral).all() and (whole[4][part] != neutral).any()
    resumed = list(refined(frames[32:], refiner, first=32))
    for a, b in zip(whole[32:], resumed, strict=True):
        assert all(a[name].tobytes() == b[name].tobytes() for name in a)

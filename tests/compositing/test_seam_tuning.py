"""The seam-tuned generator: its border meets the frame, its inside the edit, its origin stays as it was."""

import numpy as np
import pytest
import torch
from schematic_faces import crop_face as face
from tiny import RESOLUTION, tiny_generator

from sg3cli.compositing.face_mask import face_mask
from sg3cli.compositing.seam_tuning import SeamTargets, SeamTuner, seam_target
from sg3cli.latents.pivotal_tuning import apply_delta
from sg3cli.latents.rendering import render_crops
from sg3cli.settings import FinetuneConfig

STEPS = 40


def make(threshold: float = 0.0, steps: int = STEPS) -> tuple[SeamTuner, np.ndarray, np.ndarray, np.ndarray]:
    """A tuner on four frames, with the codes, the edited crops and the targets."""
    G = tiny_generator()
    z = torch.randn(4, 32, generator=torch.Generator().manual_seed(5))
    ws = G.mapping(z).numpy()
    edited = ws + 0.3 * G.mapping(-z).numpy()
    transforms = np.tile(np.eye(3), (4, 1, 1))
    before, after = np.stack(list(render_crops(G, ws))), np.stack(list(render_crops(G, edited)))
    alpha = face_mask(face(RESOLUTION), RESOLUTION, 0.16)
    pairs = [seam_target(a, b, b, alpha, 1.0) for a, b in zip(after, before, strict=True)]
    images, masks = (np.stack(part) for part in zip(*pairs, strict=True))
    targets = SeamTargets(images, np.arange(4), masks)
    config = FinetuneConfig(steps=steps, lr=3e-3, batch=2)
    return SeamTuner(G, edited, transforms, targets, config, threshold), edited, after, images


def border_error(G, ws: np.ndarray, targets: np.ndarray, masks: np.ndarray) -> float:
    crops = np.stack(list(render_crops(G, ws))).astype(float)
    return float(np.square(crops - targets)[(masks > 0) & (masks < 254)].mean())


def test_the_border_meets_the_frame_and_the_base_generator_is_untouched():
    tuner, ws, after, images = make()
    base = tiny_generator()
    weights = {name: value.clone() for name, value in base.state_dict().items()}
    masks = tuner.targets.masks
    first = border_error(base, ws, images, masks)
    log = list(tuner.run())
    assert len(log) == STEPS and log[-1].step == STEPS
    assert border_error(tuner.G, ws, images, masks) < 0.4 * first
    inside = masks >= 254
    kept = np.abs(np.stack(list(render_crops(tuner.G, ws))).astype(float) - after)[inside].mean()
    assert kept < 0.5 * np.sqrt(first)  # the inside keeps the edit
    again = tiny_generator()
    apply_delta(again, tuner.delta())
    assert border_error(again, ws, images, masks) == pytest.approx(border_error(tuner.G, ws, images, masks), rel=0.05)
    assert all(torch.equal(value, weights[name]) for name, value in tiny_generator().state_dict().items())
    assert all(torch.equal(p, base.get_parameter(name)) for name, p in tuner.base.items())


def test_it_stops_when_the_border_is_good_enough():
    log = list(make(threshold=0.05)[0].run())
    assert 2 <= len(log) < STEPS
    assert np.mean([step.l2 for step in log[-2:]]) < 0.05


def test_what_is_asked_of_the_border_is_what_pastes_as_the_frame():
    edited, plain, source = (np.full((8, 8, 3), level, np.uint8) for level in (200, 100, 60))
    opacity = np.zeros((8, 8), np.float32)
    opacity[2:6, 2:6], opacity[3:5, 3:5] = 0.5, 1
    for detail, level in ((1.0, 100), (0.0, 60), (0.5, 80)):
        image, mask = seam_target(edited, plain, source, opacity, detail)
        assert image[3, 3, 0] == 200 and image[2, 2, 0] == level
        assert mask[3, 3] == 255 and mask[2, 2] == 128 and mask[0, 0] == 0

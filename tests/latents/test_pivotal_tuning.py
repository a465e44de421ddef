"""Pivotal tuning on a tiny generator: it learns, leaves the Fourier features alone, resumes bit for bit, ends."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sg3cli.errors import DeviceError, InputError, ModelError, UsageError
from sg3cli.latents.pivotal_tuning import (
    Described,
    PivotalTuner,
    Plateau,
    Targets,
    apply_delta,
    batch_indices,
    collect_targets,
    learning_rate,
    select_targets,
)
from sg3cli.metrics.perceptual import StructuralLoss
from sg3cli.nets.generator import Generator
from sg3cli.nets.generator_config import GeneratorConfig
from sg3cli.settings import FinetuneConfig

SIZE, FRAMES = 32, 5
CONFIG = FinetuneConfig(steps=12, lr=1e-2, batch=2)


def tiny_generator(seed: int = 0) -> Generator:
    torch.manual_seed(seed)
    config = GeneratorConfig(
        z_dim=16, w_dim=16, img_resolution=SIZE, channel_base=512, channel_max=16, num_layers=4, margin_size=4
    )
    return Generator(config).eval()


def clip(G: Generator) -> tuple[np.ndarray, np.ndarray, Targets]:
    """Codes, transforms that shift the image a little more each frame, and smooth images to tune to."""
    generator = torch.Generator().manual_seed(1)
    ws = G.mapping(torch.randn(FRAMES, G.config.z_dim, generator=generator)).detach().numpy()
    transforms = np.tile(np.eye(3, dtype=np.float32), (FRAMES, 1, 1))
    transforms[:, 0, 2] = np.linspace(0, 0.1, FRAMES)
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    crops = [0.7 * np.stack([np.sin(6 * x + t), np.cos(5 * y), 2 * x * y - 1], -1) for t in range(FRAMES)]
    return ws, transforms, collect_targets(crops, select_targets(np.ones(FRAMES, bool), SIZE))


def tuner(config: FinetuneConfig = CONFIG, G: Generator | None = None) -> PivotalTuner:
    G = G or tiny_generator()
    return PivotalTuner(G, *clip(G), config, StructuralLoss())


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_loss_falls_and_only_the_synthesis_layers_change():
    G = tiny_generator()
    before = {name: value.clone() for name, value in G.state_dict().items()}
    tuning = tuner(replace(CONFIG, steps=30), G)
    steps = list(tuning.run())
    assert [s.step for s in steps] == list(range(1, 31))
    assert np.mean([s.loss for s in steps[-5:]]) < 0.7 * np.mean([s.loss for s in steps[:5]])
    assert steps[0].loss == pytest.approx(steps[0].l2 + steps[0].perceptual, rel=1e-5)
    assert same(before, G.state_dict())  # the caller's generator is not touched
    changed = {n for n, v in tuning.G.state_dict().items() if not torch.equal(v, before[n])}
    assert changed == set(tuning.delta())
    assert not any("input." in n or "mapping" in n or "magnitude_ema" in n for n in changed)
    assert all(any(n.startswith(f"synthesis.{layer}.") for n in changed) for layer in G.layer_names)


def test_restored_tuner_goes_on_bit_for_bit():
    whole = tuner()
    list(whole.run())
    first = tuner()
    for step in first.run():
        if step.step == 5:
            break
    saved = {name: value.clone() for name, value in first.state().items()}
    next(first.run())  # what happens after saving must not reach the saved state
    second = tuner()
    second.restore(saved)
    assert [s.step for s in second.run()] == list(range(6, 13))
    assert same(second.state(), whole.state())
    assert same(second.delta(), whole.delta())


class Counting(StructuralLoss):
    """Describes a target by its double, and remembers how many it was asked for at once."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def describe(self, b):
        self.asked.append(len(b))
        return [2 * b, b.mean((1, 2, 3))]


def test_targets_are_described_once_and_each_by_itself():
    targets = torch.rand(3, 3, 8, 8)
    loss = Counting()
    kept = Described(loss, limit=2 * (3 * 8 * 8 + 1) * 4)  # bytes of two
    for chosen in ([2, 0], [0, 2], [1, 2], [1]):
        doubles, means = kept.of(np.array(chosen), targets[chosen])
        assert torch.equal(doubles, 2 * targets[chosen]) and torch.allclose(means, targets[chosen].mean((1, 2, 3)))
    assert loss.asked == [1] * 4 and sorted(kept.kept) == [0, 2]  # the third is over the limit: described twice


def test_a_tuning_describes_each_of_its_targets_once():
    loss = Counting()
    loss.compare = lambda image, described: (image - described[0] / 2).abs().mean((1, 2, 3))
    G = tiny_generator()
    steps = list(PivotalTuner(G, *clip(G), CONFIG, loss).run())
    assert len(steps) * CONFIG.batch > FRAMES and len(loss.asked) == FRAMES
    assert steps[-1].perceptual < steps[0].perceptual


def test_state_survives_safetensors(tmp_path):
    from safetensors.torch import load_file, save_file

    first, second = tuner(), tuner()
    fresh = first.state()  # before any step there are no moments to keep
    second.restore(fresh)
    next(first.run())
    save_file(first.state(), tmp_path / "state.safetensors")
    second.restore(load_file(tmp_path / "state.safetensors"))
    assert same(first.state(), second.state())
    assert next(first.run()) == next(second.run())
    second.restore(fresh)  # also what came after a state is forgotten
    assert same(second.state(), fresh)


def test_a_batch_in_parts_takes_the_same_step():
    """Parts of 2, 2 and 1 images: losses and gradients are weighted by how many they stand for."""
    whole, parts = tuner(replace(CONFIG, batch=5)), tuner(replace(CONFIG, batch=5))
    assert whole.part == 5
    parts.part = 2
    steps = [next(tuning.run()) for tuning in (whole, parts)]
    assert steps[1].loss == pytest.approx(steps[0].loss, rel=1e-5)
    assert steps[1].l2 == pytest.approx(steps[0].l2, rel=1e-5)
    moments = [[tuning.optimizer.state[p]["exp_avg"] for p in tuning.parameters.values()] for tuning in (whole, parts)]
    for one, other in zip(*moments, strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-4 * one.abs().max().item())


def test_plateau_ends_a_tuning_that_no_longer_improves():
    steps = list(tuner(FinetuneConfig(steps=10_000, lr=1e-12, batch=FRAMES, patience=6)).run())
    assert len(steps) < 40


def test_delta_applied_to_the_base_gives_the_tuned_generator():
    G, tuning = tiny_generator(), tuner(replace(CONFIG, steps=3))
    list(tuning.run())
    apply_delta(G, tuning.delta())
    z = torch.zeros(1, 16)
    with torch.no_grad():
        assert torch.allclose(G(z), tuning.G(z), atol=1e-5)
    with pytest.raises(ModelError, match="does not belong"):
        apply_delta(G, {"synthesis.L0.weight": torch.zeros(1)})


def test_transforms_are_used_per_frame():
    """With one step on one frame, the loss is that of the frame's own transform."""
    G = tiny_generator()
    ws, transforms, targets = clip(G)
    last = Targets(targets.images[-1:], targets.frames[-1:])
    step = next(PivotalTuner(G, ws, transforms, last, CONFIG, StructuralLoss()).run())
    with torch.no_grad():
        image = G.synthesis(torch.from_numpy(ws[-1:]), transform=torch.from_numpy(transforms[-1:]))
    target = torch.from_numpy(last.images).permute(0, 3, 1, 2).float() / 127.5 - 1
    assert step.l2 == pytest.approx((image - target).square().mean().item(), rel=1e-4)


def test_divergence_and_bad_codes_are_named():
    G = tiny_generator()
    ws, transforms, targets = clip(G)
    with pytest.raises(UsageError, match="diverged at step") as e:
        list(PivotalTuner(G, ws, transforms, targets, replace(CONFIG, lr=1e30), StructuralLoss()).run())
    assert "learning rate than 1e+30" in e.value.hint
    ws[2, 0, 0] = np.nan
    with pytest.raises(InputError, match="not finite"):
        PivotalTuner(G, ws, transforms, targets, CONFIG, StructuralLoss())


def test_lack_of_memory_is_named_and_other_failures_are_not_hidden():
    tuning = tuner()

    def fail(*_, **__):
        raise RuntimeError(message)

    tuning.perceptual.forward = fail
    message = "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"
    with pytest.raises(DeviceError, match="not enough memory"):
        next(tuning.run())
    message = "something else"
    with pytest.raises(RuntimeError, match="something else"):
        next(tuning.run())


def test_targets_are_the_frames_with_a_face_within_the_limit():
    present = np.array([0, 1, 1, 0, 1, 1, 1, 0], dtype=bool)
    assert select_targets(present, 8).tolist() == [1, 2, 4, 5, 6]
    assert select_targets(present, 8, limit=3 * 8 * 8 * 3).tolist() == [1, 4, 6]  # evenly spread, ends kept
    with pytest.raises(InputError, match="no frame"):
        select_targets(~present & present, 8)
    crops = [np.full((8, 8, 3), i / 10, dtype=np.float32) if p else None for i, p in enumerate(present)]
    targets = collect_targets(iter(crops), np.array([1, 4, 6]))
    assert targets.images[:, 0, 0, 0].tolist() == [140, 178, 204]
    with pytest.raises(InputError, match="only 1 of 2"):
        collect_targets(iter(crops[:3]), np.array([1, 4]))


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 40), st.integers(1, 8), st.integers(0, 9))
def test_batches_cover_all_targets_before_any_repeats(count, batch, seed):
    size = min(batch, count)
    drawn = np.concatenate([batch_indices(step, batch, count, seed) for step in range(3 * count)])
    assert len(drawn) == 3 * count * size
    epochs = drawn.reshape(-1, count)  # whole epochs: 3 * size of them
    assert all(np.unique(epoch).size == count for epoch in epochs)


def test_learning_rate_rises_holds_and_falls():
    config = FinetuneConfig(steps=100, lr=2.0)
    rates = [learning_rate(step, config) for step in range(100)]
    assert rates[0] < 0.5 and rates[30] == rates[60] == pytest.approx(2.0) and rates[99] < 0.01
    assert all(0 < r <= 2.0 for r in rates)


def test_plateau_ignores_noise_and_survives_its_tensor():
    plateau = Plateau(patience=20)
    rng = np.random.default_rng(0)
    for step in range(1, 60):
        plateau.update(2.0 - 0.02 * step + 0.1 * rng.normal(), step)
        assert not plateau.reached(step)
    copy = Plateau(patience=20)
    copy.from_tensor(plateau.to_tensor())
    assert vars(copy) == vars(plateau)
    assert not plateau.reached(plateau.best_step + 19) and plateau.reached(plateau.best_step + 20)

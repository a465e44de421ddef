"""Training of ReStyle encoders on images that a tiny generator drew."""

from __future__ import annotations

import os
import socket
import warnings
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from drawn import DrawnImages, make_trainer
from running import TESTS, ended
from tiny import tiny_encoder
from torch import nn

from sg3cli.errors import ModelError, UsageError
from sg3cli.nets.restyle import restyle_codes
from sg3cli.training.distributed import training_group
from sg3cli.training.encoder.identity_loss import IdentityLoss
from sg3cli.training.encoder.latent_discriminator import CodePool, LatentDiscriminator
from sg3cli.training.encoder.run import parse_widths, preset
from sg3cli.training.encoder.sync_batch_norm import share_batch_norm
from sg3cli.training.encoder.trainer import offsets, split, tint


def flat(state: object) -> list[torch.Tensor]:
    """All tensors of a nested state, in order."""
    if isinstance(state, torch.Tensor):
        return [state]
    parts = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return [tensor for part in parts for tensor in flat(part)]


def test_training_lowers_the_loss() -> None:
    trainer = make_trainer(count=6, steps=40, batch=5, lr=0.1, augment=0.0, held_out=1)
    before = trainer.validate()
    logs = [float(log["total"]) for log in trainer.run()]
    assert np.mean(logs[-8:]) < 0.85 * np.mean(logs[:8])
    assert trainer.validate().keys() == before.keys() == {"val_l2", "val_perceptual", "val_loss", "val_psnr"}


@pytest.mark.parametrize("kind", ["psp", "e4e"])
def test_a_run_continues_exactly_where_it_stopped(kind: str) -> None:
    changes = {"kind": kind, "steps": 8, "stage_start": 2, "stage_every": 1}
    whole, first, second = (make_trainer(**changes) for _ in range(3))
    list(whole.run())
    list(first.run(until=5))
    first.validate()  # looking does not disturb
    second.restore(first.state())
    list(second.run())
    ours, theirs = flat(second.state()), flat(whole.state())
    assert len(ours) == len(theirs) > 100 and all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_two_processes_go_the_way_of_one(tmp_path: Path) -> None:
    """e4e's, with all that pSp's has and the discriminator and its pools."""
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port())]
    paths = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    ran = ended([*launcher, str(TESTS / "drawn.py"), "e4e", str(tmp_path / "two")], tmp_path, PYTHONPATH=paths)
    assert ran.code == 0, ran.err
    trainer = make_trainer(kind="e4e", stage_start=2, stage_every=1)
    before = {key: value.clone() for key, value in trainer.encoder.state_dict().items()}
    list(trainer.run())
    one, two = trainer.state(), torch.load(tmp_path / "two", weights_only=True)
    moved = max(float((one["encoder"][key] - before[key]).abs().max()) for key in before)
    assert moved > 1e-3  # so that 1e-4 means something
    for a, b in zip(flat(one), flat(two), strict=True):
        assert torch.allclose(a.float(), b.float(), atol=1e-4)


def test_gradients_of_the_passes_are_summed_and_do_not_reach_each_other() -> None:
    trainer = make_trainer(augment=0.0)
    x = DrawnImages().images[:4]
    trainer.encoder.eval()  # statistics would change between the two computations
    codes, _ = trainer.accumulate(x, x)
    summed = [p.grad.clone() for p in trainer.encoder.parameters()]
    trainer.encoder.zero_grad()
    identity = torch.eye(3)
    for given in (trainer.G.mapping.w_avg.expand(4, 8, -1), codes[0]):
        fed = trainer.G.synthesis(given, transform=identity).detach()
        ws = given + trainer.encoder(torch.cat([x, fed], 1))
        y = trainer.G.synthesis(ws, transform=identity)
        loss = F.mse_loss(y, x) + 0.8 * trainer.perceptual(y, x).mean()
        loss.backward()
    largest = max(float(p.grad.abs().max()) for p in trainer.encoder.parameters())
    for p, wanted in zip(trainer.encoder.parameters(), summed, strict=True):
        assert torch.allclose(p.grad, wanted, atol=1e-4 * largest, rtol=1e-4)


def test_training_and_inversion_give_the_same_codes() -> None:
    trainer = make_trainer()
    x = DrawnImages().images[:3]
    trainer.encoder.eval()
    codes, _ = trainer.accumulate(x, x)
    with torch.no_grad():
        assert torch.allclose(codes[-1], restyle_codes(trainer.encoder, trainer.G, x, 2), atol=1e-5)


def test_the_generator_stays_as_it_was() -> None:
    trainer = make_trainer(kind="e4e")
    before = [value.clone() for value in trainer.G.state_dict().values()]
    list(islice(trainer.run(), 2))
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.G.state_dict().values(), strict=True))


def test_the_discriminator_sees_codes_not_residuals(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the mean far from 0, a residual and a code cannot be taken for each other; real ones are truncated."""
    trainer = make_trainer(kind="e4e", truncation=0.0)
    trainer.G.mapping.w_avg.fill_(9.0)
    given: dict[str, torch.Tensor] = {}

    def catch(real: torch.Tensor, fake: torch.Tensor, rng: torch.Generator) -> dict[str, torch.Tensor]:
        given.update(real=real, fake=fake)
        return {}

    monkeypatch.setattr(trainer.discriminator, "step", catch)
    next(trainer.run())
    assert given["fake"].shape == (8, 8, 32) and given["real"].shape == (8, 32)  # two passes of four images
    assert (given["fake"] - 9).abs().mean() < 3
    assert torch.allclose(given["real"], torch.tensor(9.0))  # psi 0 leaves the mean only


def test_the_discriminator_learns_to_tell_codes_apart() -> None:
    torch.manual_seed(0)
    D, rng = LatentDiscriminator(8, torch.device("cpu"), lr=1e-2), torch.Generator().manual_seed(0)
    for _ in range(60):
        log = D.step(torch.randn(16, 8, generator=rng) + 1, torch.randn(16, 3, 8, generator=rng) - 1, rng)
    assert log["critic_real"] > log["critic_fake"] + 0.5
    assert D.adversarial(torch.full((2, 3, 8), 1.0)) < D.adversarial(torch.full((2, 3, 8), -1.0))


def test_r1_is_the_squared_gradient() -> None:
    D = LatentDiscriminator(4, torch.device("cpu"))
    D.D = nn.Sequential(nn.Linear(4, 1))
    wanted = D.D[0].weight.square().sum()
    assert torch.allclose(D.r1(torch.randn(5, 4)), wanted)


def test_a_pool_returns_old_codes_half_of_the_time() -> None:
    pool, rng = CodePool(50, 1), torch.Generator().manual_seed(0)
    first = torch.arange(50.0)[:, None]
    assert torch.equal(pool.exchange(first, rng), first)
    later = pool.exchange(torch.arange(1000.0, 1400.0)[:, None], rng)[:, 0]
    new = later == torch.arange(1000.0, 1400.0)
    assert 0.4 < new.float().mean() < 0.6 and len(pool.codes) == 50
    assert len(set(later[~new].tolist())) == int((~new).sum())  # who leaves is not there any more


def test_offsets_come_in_one_after_another() -> None:
    trainer = make_trainer(kind="e4e", stage_start=10, stage_every=5)
    assert [trainer.stage(step) for step in (0, 9, 10, 14, 15, 40, 1000)] == [0, 0, 1, 1, 2, 7, 7]
    ws = trainer.encoder(torch.randn(2, 6, 32, 32), stage=1)
    assert not torch.equal(ws[:, 1], ws[:, 0]) and torch.equal(ws[:, 2], ws[:, 0])
    assert make_trainer(kind="psp").stage(0) is None
    defaults = make_trainer(kind="e4e", steps=500_000).config
    assert (defaults.stage_start, defaults.stage_every) == (20_000, 2_000)


def test_the_offsets_are_measured_from_the_first_code() -> None:
    ws = torch.zeros(1, 4, 2)
    ws[0, 1], ws[0, 3] = torch.tensor([3.0, 4.0]), torch.tensor([0.0, 2.0])
    assert [float(offsets(ws + 7, stage)) for stage in (0, 1, 2, 3, None)] == [0, 5, 5, 7, 7]


def test_the_end_of_the_data_is_held_out() -> None:
    count, rows = split(100, 64)
    assert count == 90 and list(rows) == list(range(90, 100))
    assert split(5, 64)[0] == 4 and split(10_000, 64)[0] == 9_936
    with pytest.raises(UsageError, match="1 pictures"):
        split(1, 64)


def test_colours_change_on_both_sides_and_faults_on_one() -> None:
    trainer = make_trainer(augment=1.0)
    x = DrawnImages().images[0]
    seen, target = trainer._augment(x, place=0)
    assert not torch.equal(target, x) and not torch.equal(seen, target)
    again, elsewhere = trainer._augment(x, place=0)[0], trainer._augment(x, place=1)[0]
    assert torch.equal(again, seen) and not torch.equal(elsewhere, seen)
    assert all(side is x for side in make_trainer(augment=0.0)._augment(x, 0))
    flat_grey = tint(torch.zeros(3, 4, 4), torch.Generator().manual_seed(0))
    assert torch.equal(flat_grey, flat_grey[:, :1, :1].expand(3, 4, 4)) and flat_grey[0, 0, 0] != flat_grey[1, 0, 0]


def test_the_batch_must_divide(monkeypatch: pytest.MonkeyPatch) -> None:
    from sg3cli.training.distributed import Group

    with pytest.raises(UsageError, match="batch of 4"):
        make_trainer(group=Group(0, 3))


def test_batch_statistics_of_a_group_are_those_of_the_batch() -> None:
    """One process in a real group: the same numbers and gradients as torch's own layer."""
    where = f"tcp://127.0.0.1:{free_port()}"
    torch.distributed.init_process_group("gloo", init_method=where, rank=0, world_size=1)
    try:
        from sg3cli.training.distributed import Group

        theirs, ours = nn.BatchNorm2d(3), nn.Sequential(nn.BatchNorm2d(3))
        share_batch_norm(ours, Group(0, 2))
        x = torch.randn(4, 3, 5, 5) * 2 + 1
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        for net, given in ((theirs, a), (ours, b)):
            net(given).square().mul(torch.linspace(0, 1, 5)).sum().backward()
        assert torch.allclose(a.grad, b.grad, atol=1e-5) and torch.allclose(theirs.weight.grad, ours[0].weight.grad)
        assert torch.allclose(theirs.running_var, ours[0].running_var) and int(ours[0].num_batches_tracked) == 1
        assert torch.allclose(theirs.running_mean, ours[0].running_mean)
    finally:
        torch.distributed.destroy_process_group()
    with training_group("cpu") as alone:
        share_batch_norm(net := nn.Sequential(nn.BatchNorm2d(3)), alone)
        assert type(net[0]) is nn.BatchNorm2d


def write_network(path: Path, size: int) -> Path:
    """A TorchScript net: the mean colour of the top half and of the bottom half, [N, 6]; refuses other sizes."""

    class Halves(nn.Module):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.size = size

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert x.shape[2] == self.size, "wrong size"
            middle = self.size // 2
            return torch.cat([x[:, :, :middle].mean((2, 3)), x[:, :, middle:].mean((2, 3))], dim=1)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(Halves(size)).save(str(path))
    return path


def test_identity_has_gradients_and_ignores_what_is_outside_of_the_face(tmp_path: Path) -> None:
    loss = IdentityLoss(write_network(tmp_path / "id.pt", 112))
    x = torch.rand(2, 3, 64, 64)
    y = x.clone()
    y[..., :6] = -1  # left of column 32 of 256
    assert loss(y, x) == pytest.approx(0, abs=1e-6)
    y = torch.rand(2, 3, 64, 64, requires_grad=True)
    loss(y, x).backward()
    assert y.grad is not None and y.grad[..., 20, 20].abs().sum() > 0 and y.grad[..., 20, 2].abs().sum() == 0


def test_identity_names_what_it_cannot_use(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.pt"):
        IdentityLoss(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("no network")
    with pytest.raises(ModelError, match=r"text\.pt is no TorchScript"):
        IdentityLoss(tmp_path / "text.pt")
    with pytest.raises(ModelError, match=r"id\.pt does not take faces of 112 px"):
        IdentityLoss(write_network(tmp_path / "id.pt", 64))


def test_identity_takes_part_in_training(tmp_path: Path) -> None:
    trainer = make_trainer()
    trainer.identity = IdentityLoss(write_network(tmp_path / "id.pt", 112))
    log = next(trainer.run())
    total = log["l2"] + 0.8 * log["perceptual"] + 0.1 * log["identity"]
    assert log["identity"] > 0 and torch.allclose(log["total"], total) and "val_identity" in trainer.validate()


def test_shapes_are_given_in_words() -> None:
    assert parse_widths("32,64x2, 128x3") == ((32, 1), (64, 2), (128, 3))
    for wrong in ("32,x2", "2", "", "64x0", "64,wide"):
        with pytest.raises(UsageError, match="--widths"):
            parse_widths(wrong)
    G = make_trainer().G
    assert preset("official", G, "psp").stages[2] == (256, 14) and preset("official", G, "e4e").num_ws == 8
    assert preset("small", G, "psp").input_size == 32
    with pytest.raises(UsageError, match="large"):
        preset("large", G, "psp")
    assert tiny_encoder().config.num_ws == 8

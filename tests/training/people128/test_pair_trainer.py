"""The trainer of pairs on tiny networks: what it learns from, that it continues exactly, what it writes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pair_sets import make_edits, make_photos
from safetensors.torch import save_file
from tiny import tiny_encoder, tiny_generator

from sg3cli.errors import ModelError
from sg3cli.nets.checkpoint import save_encoder, save_generator
from sg3cli.nets.efficientnet_lite import EfficientNetLite, PerceptualDistance
from sg3cli.nets.encoder import with_features
from sg3cli.training.people128 import pair_run
from sg3cli.training.people128.feature_start import add_features
from sg3cli.training.people128.pair_data import ATTRIBUTES, Batch, BatchConfig, PictureSet, attribute_index
from sg3cli.training.people128.pair_net import PairNet, codes_of, load_start
from sg3cli.training.people128.pair_run import PairRun, RunConfig
from sg3cli.training.people128.pair_scores import face_mask, pair_scores, photo_scores, table
from sg3cli.training.people128.pair_trainer import PairConfig, PairTrainer, change_error, change_mask, weighted_l1
from sg3cli.training.people128.projected_discriminator import ProjectedDiscriminator
from sg3cli.training.people128.spare_cores import threads_for

INDEX = attribute_index()


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sets and a start in `tmp_path`; the backbone is a random one."""
    make_edits(tmp_path / "edits")
    make_photos(tmp_path / "photos")
    start = tmp_path / "start"
    start.mkdir()
    save_generator(start / "generator.safetensors", tiny_generator())
    save_encoder(start / "encoder.safetensors", tiny_encoder())
    directions = 0.1 * torch.randn(len(ATTRIBUTES), 8, 32, generator=torch.Generator().manual_seed(3))
    save_file({"D": directions}, start / "directions.safetensors")
    torch.manual_seed(0)
    backbone = EfficientNetLite()
    monkeypatch.setattr(pair_run, "load_efficientnet_lite", lambda path: backbone)
    return tmp_path


def _config(folder: Path, work: str = "work", **changes: object) -> RunConfig:
    config = RunConfig(
        edits=(folder / "edits",), shares=(1.0,), photos=(folder / "photos",), start=folder / "start",
        backbone=folder, work=folder / work, minutes=5, threads=torch.get_num_threads(), held_out_groups=1,
        batch=BatchConfig(pairs_per_step=2, photos_per_step=1, size=32),
        trainer=PairConfig(detail=0, warmup=2, decay_from=0.9),
    )  # fmt: skip
    return replace(config, **changes)  # type: ignore[arg-type]


def _net() -> PairNet:
    return PairNet(tiny_generator(), tiny_encoder(), torch.ones(len(ATTRIBUTES), 8, 32))


def test_a_run_that_was_stopped_goes_on_exactly(folders: Path) -> None:
    said: list[str] = []
    whole = PairRun(_config(folders, "whole"), said.append)
    whole.run(4)
    PairRun(_config(folders, "parts"), said.append).run(2)
    second = PairRun(_config(folders, "parts"), said.append)
    assert second.trainer.now == 2 and any("continued at step 2" in line for line in said)
    second.run(2)
    assert whole.trainer.discriminator is not None and whole.trainer.discriminator.steps == 4
    for name, value in whole.trainer.net.state_dict().items():
        assert torch.equal(value, second.trainer.net.state_dict()[name]), name
    for name, value in whole.trainer.ema.state_dict().items():
        assert torch.equal(value, second.trainer.ema.state_dict()[name]), name


def test_a_run_writes_networks_log_and_sheets(folders: Path) -> None:
    run = PairRun(_config(folders), lambda text: None)
    run.run(10)
    work = folders / "work"
    row = json.loads((work / "log.jsonl").read_text().splitlines()[0])
    assert row["step"] == 10 and {"pixel", "perceptual", "change", "total", "change_age"} <= row.keys()
    assert len(list((work / "sheets").glob("*.png"))) == 2
    again = load_start(work / "ema", 0)
    for mine, stored in zip(run.trainer.ema.G.parameters(), again.G.parameters(), strict=True):
        assert torch.equal(mine, stored)


def test_a_run_that_is_told_to_stop_saves_first(folders: Path) -> None:
    run = PairRun(_config(folders), lambda text: None)
    run.stop()
    run.run()
    assert run.trainer.now == 0 and (folders / "work" / "state.pt").is_file()


def test_training_lowers_the_loss_and_moves_every_part(folders: Path) -> None:
    run = PairRun(_config(folders), lambda text: None)
    trainer, batch = run.trainer, run.source.batch(0)
    before = {name: value.clone() for name, value in trainer.net.state_dict().items()}
    first = trainer.step(batch, 0.0)["total"]
    for _ in range(14):
        last = trainer.step(batch, 0.0)["total"]
    assert last < first
    moved = {name for name, value in trainer.net.state_dict().items() if not torch.equal(value, before[name])}
    assert {"directions", "G.synthesis.input.weight"} <= moved and any(n.startswith("encoder.styles") for n in moved)
    assert "G.mapping.w_avg" not in moved
    assert not any("running_" in name for name in moved)  # batch norms keep their statistics


def test_only_pose_moves_the_picture_as_a_whole() -> None:
    net, delta = _net(), torch.zeros(2, len(ATTRIBUTES))
    delta[0, INDEX["age"]], delta[1, INDEX["yaw"]] = 2, -1
    ws = torch.zeros(2, 8, 32)
    edited = net.edited(ws, delta)
    assert edited[0, 0].eq(0).all() and edited[0, 1:].eq(2).all() and edited[1].eq(-1).all()


def test_directions_of_another_shape_are_refused() -> None:
    with pytest.raises(ModelError, match="do not fit"):
        PairNet(tiny_generator(), tiny_encoder(), torch.ones(3, 8, 32))


def test_change_error_is_zero_for_the_truth_and_one_for_nothing() -> None:
    a, b = torch.rand(2, 2, 3, 32, 32).mul(2).sub(1)
    mask = change_mask(a, b, 0.15)
    assert change_error(b - a, b - a, mask).abs().max() == 0
    torch.testing.assert_close(change_error(torch.zeros_like(a), b - a, mask), torch.ones(2))


def test_the_change_mask_marks_where_two_pictures_differ() -> None:
    a = torch.zeros(1, 3, 32, 32)
    b = a.clone()
    b[..., 10:14, 10:14] = 0.5
    mask = change_mask(a, b, 0.15)
    assert mask[0, 0, 12, 12] == 1 and mask[0, 0, 25, 25] == 0 and 0 < mask.mean() < 0.2


def test_weighted_l1_looks_where_the_weight_is() -> None:
    x, y = torch.zeros(2, 3, 32, 32), torch.zeros(2, 3, 32, 32)
    y[:, :, :16] = 1
    weight = torch.zeros(2, 1, 32, 32)
    weight[0, :, :16], weight[1, :, 16:] = 1, 1
    torch.testing.assert_close(weighted_l1(y, x, weight), torch.tensor([3.0, 0.0]))


def test_learning_rates_warm_up_and_fall(folders: Path) -> None:
    config = PairConfig(detail=0, warmup=4, decay_from=0.5)
    trainer = PairTrainer(_net().requires_grad_(True), PerceptualDistance(EfficientNetLite()), config)
    rates = []
    for now, progress in ((0, 0.0), (3, 0.1), (10, 0.75), (10, 1.0)):
        trainer.now = now
        trainer._schedule(progress)
        rates.append(trainer.optimiser.param_groups[0]["lr"] / config.lr_generator)
    assert rates == pytest.approx([0.25, 1.0, 0.525, 0.05])


@pytest.mark.parametrize(
    ("others", "limit", "cores", "threads"),
    [(0.0, 2, 2, 2), (0.2, 2, 2, 2), (0.9, 2, 2, 1), (2.0, 2, 2, 1), (3.0, 8, 8, 5)],
)
def test_threads_leave_cores_to_others(others: float, limit: int, cores: int, threads: int) -> None:
    assert threads_for(others, limit, cores) == threads


def test_scores_of_a_tiny_model(folders: Path) -> None:
    run = PairRun(_config(folders), lambda text: None)
    net = run.trainer.ema
    photos, rows = run.held_photos
    scores = photo_scores(net, run.trainer.perceptual, photos, rows, 32) | pair_scores(net, *run.held_pairs, size=32)
    assert {"face_psnr", "psnr", "face_lite0", "age", "pairs"} <= scores.keys()
    net.directions.zero_()
    assert pair_scores(net, *run.held_pairs, size=32)["age"] == pytest.approx(1)  # no edit at all
    assert "age" in table({"tiny": scores})


def test_the_face_mask_covers_jaw_to_forehead() -> None:
    points = torch.zeros(1, 68, 2)
    points[0, :17, 0] = torch.linspace(16, 48, 17)
    points[0, :17, 1] = 30 + 20 * torch.linspace(0, torch.pi, 17).sin()
    points[0, 17:27, 0], points[0, 17:27, 1] = torch.linspace(20, 44, 10), 24
    mask = face_mask(points, 64)[0, 0]
    assert mask[45, 32] == 1 and mask[20, 32] == 1 and mask[60, 32] == 0 and mask[30, 5] == 0


def test_the_discriminator_learns_and_sharpens_only_the_drawing() -> None:
    torch.manual_seed(0)
    critic = ProjectedDiscriminator((4, 6), torch.device("cpu"), lr=1e-2, warmup=5)
    where = torch.ones(3, 1, 16, 16)
    real = [torch.randn(3, 4, 16, 16), torch.randn(3, 6, 8, 8)]
    y = torch.randn(3, 4, 16, 16).mul(0.2).requires_grad_()
    drawn = [y, F.avg_pool2d(y, 2).repeat(1, 2, 1, 1)[:, :6]]
    losses = [critic.learn(drawn, real, where) for _ in range(20)]
    assert critic.ready and losses[-1] < losses[0] and y.grad is None
    realism = critic.realism(drawn, where)
    critic.balance(-realism, y.square().sum(), y)
    pulled, other = (torch.autograd.grad(term, y, retain_graph=True)[0] for term in (-realism, y.square().sum()))
    assert critic.weight * pulled.norm() == pytest.approx(float(critic.share * other.norm()), rel=1e-3)
    assert all(p.grad is None or p.requires_grad for p in critic.heads.parameters())


def test_a_discriminator_continues_exactly() -> None:
    torch.manual_seed(0)
    one, two = (ProjectedDiscriminator((4,), torch.device("cpu")) for _ in range(2))
    where, real, drawn = torch.ones(2, 1, 8, 8), [torch.randn(2, 4, 8, 8)], [torch.randn(2, 4, 8, 8)]
    one.learn(drawn, real, where)
    two.restore(one.state())
    assert one.learn(drawn, real, where) == two.learn(drawn, real, where)
    assert two.steps == 2


def test_what_has_no_learning_rate_is_held() -> None:
    """Only the encoder learns, and of its branch only the heads."""
    net = _net()
    net.encoder = with_features(net.encoder, 4)
    branch = net.encoder.features
    assert branch is not None
    branch.components.normal_(std=0.1)
    config = PairConfig(detail=0, warmup=1, lr_generator=0, lr_directions=0, adversarial=0)
    torch.manual_seed(2)
    trainer = PairTrainer(net, PerceptualDistance(EfficientNetLite()), config)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    points = torch.rand(2, 68, 2)
    batch = Batch(x[:1], -x[:1], x[1:], x, torch.ones(1, len(ATTRIBUTES)), points[:1], points[:1], points[1:])
    trainer.step(batch, 0.0)
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert "encoder.features.direct.weight" in changed and any(n.startswith("encoder.styles.") for n in changed)
    assert not any(n.startswith(("G.", "directions", "encoder.features.net.")) for n in changed)
    assert not net.directions.requires_grad and "encoder.features.components" not in changed


def test_a_start_with_a_branch_gives_the_same_codes(folders: Path) -> None:
    photos = PictureSet(make_photos(folders / "more", people=20))
    edits = PictureSet(make_edits(folders / "many", groups=90))
    net = load_start(folders / "start", 0).eval()
    rows = np.arange(3)
    before = codes_of(net, photos, rows)
    torch.manual_seed(1)
    held = add_features(net, EfficientNetLite().eval(), photos, edits, 4)
    assert 0 < held <= 1.001 and net.encoder.features is not None
    assert torch.equal(codes_of(net, photos, rows), before)
    assert net.encoder.features.components.any()

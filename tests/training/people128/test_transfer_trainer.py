"""The training of the transfer network on tiny sets: its examples, that it learns and continues exactly, its scores."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pair_sets import make_edits, make_photos
from safetensors.torch import save_file
from tiny import tiny_encoder, tiny_generator

from sg3cli.compositing.map_maker import MapMaker
from sg3cli.compositing.optical_flow import GRID
from sg3cli.nets.checkpoint import load_transfer_file, save_encoder, save_generator
from sg3cli.nets.efficientnet_lite import EfficientNetLite, PerceptualDistance
from sg3cli.nets.transfer_net import TransferConfig, TransferNet, transferred
from sg3cli.training.people128 import transfer_run, transfer_scores
from sg3cli.training.people128.pair_data import ATTRIBUTES, PictureSet, make_pairs, split_groups
from sg3cli.training.people128.transfer_data import ExampleConfig, drawings_of, moved, random_gain, random_motion
from sg3cli.training.people128.transfer_run import TransferRun, TransferRunConfig
from sg3cli.training.people128.transfer_trainer import TransferTraining


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sets and a model in `tmp_path`; the backbone is a random one."""
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
    monkeypatch.setattr(transfer_run, "load_efficientnet_lite", lambda path: backbone)
    monkeypatch.setattr(transfer_run, "TransferNet", lambda: TransferNet(TransferConfig((8, 8, 8, 8))))
    return tmp_path


def _run(folder: Path, work: str = "work", **changes: object) -> TransferRun:
    config = TransferRunConfig(
        edits=folder / "edits", photos=folder / "photos", start=folder / "start", backbone=folder,
        work=folder / work, threads=torch.get_num_threads(), held_out_groups=1, examples=ExampleConfig(count=1),
        training=TransferTraining(warmup=2, lr=3e-3),
    )  # fmt: skip
    return TransferRun(replace(config, **changes), lambda text: None)  # type: ignore[arg-type]


def test_a_run_that_was_stopped_goes_on_exactly_and_writes_what_it_has(folders: Path) -> None:
    whole = _run(folders, "whole")
    whole.run(2)
    _run(folders, "parts").run(1)
    second = _run(folders, "parts")
    assert second.trainer.now == 1
    second.run(1)
    for name, value in whole.trainer.ema.state_dict().items():
        assert torch.equal(value, second.trainer.ema.state_dict()[name]), name
    stored, meta = load_transfer_file(folders / "parts" / "transfer.safetensors")
    assert meta["step"] == 2
    assert all(torch.equal(a, b) for a, b in zip(stored.parameters(), second.trainer.ema.parameters(), strict=True))
    assert {path.name[:5] for path in (folders / "parts" / "sheets").glob("*.png")} == {"pairs", "photo"}


def test_training_lowers_the_loss_and_logs_it(folders: Path) -> None:
    run = _run(folders)
    example = run.source.batch(0)
    first = run.trainer.step(example, 0.0)["total"]
    for _ in range(4):
        last = run.trainer.step(example, 0.0)["total"]
    assert last < first
    run._log({"total": last})
    assert json.loads((folders / "work" / "log.jsonl").read_text())["total"] == round(last, 4)


def test_an_example_s_truth_is_known_and_follows_from_the_step(folders: Path) -> None:
    run = _run(folders, examples=ExampleConfig(count=3, photos=1.0))
    one, other, next_ = run.source.batch(5), run.source.batch(5), run.source.batch(6)
    assert torch.equal(one.source, other.source) and not torch.equal(one.source, next_.source)
    assert one.source.shape == one.truth.shape == (3, 3, 2 * GRID, 2 * GRID) and one.plain.shape[2:] == (GRID, GRID)
    assert one.flow.shape == (3, 2, GRID, GRID)
    assert (one.source - one.truth).abs().mean() > 0  # a photograph moved or lit by a known amount


def test_what_moves_a_photograph_moves_its_drawing_alike() -> None:
    rng = np.random.default_rng(0)
    motion, gain = random_motion(rng), random_gain(rng)
    large = 100 + 50 * np.sin(np.arange(256) / 20)[None, :, None] * np.ones((256, 256, 3), np.float32)
    small = large.reshape(128, 2, 128, 2, 3).mean((1, 3)).astype(np.float32)
    reduced = moved(large, motion, gain).reshape(128, 2, 128, 2, 3).mean((1, 3))
    assert np.abs(reduced - moved(small, motion, gain))[4:-4, 4:-4].max() < 3
    assert np.abs(motion[[0, -1]]).max() < 1e-3 and np.abs(motion).max() > 1e-3


def test_drawings_of_every_kind_change_where_the_truth_does() -> None:
    source, truth = np.full((2, 256, 256, 3), 100, np.float32)
    truth[100:150, 100:150] += 60
    drawn = (np.full((128, 128, 3), 90, np.float32), np.full((128, 128, 3), 90, np.float32))
    drawn[1][50:75, 50:75] += 20
    seen = set()
    for kind in ({"true": 1.0}, {"true": 0.0, "soft": 1.0}, {"true": 0.0, "soft": 0.0, "tuned": 1.0},
                 {"true": 0.0, "soft": 0.0, "tuned": 0.0}):  # fmt: skip
        plain, edited = drawings_of(source, truth, drawn, np.random.default_rng(1), ExampleConfig(**kind))
        change = np.abs(edited - plain).mean(axis=2)
        assert change[55:70, 55:70].min() > 15 and change[:40].max() < 1
        seen.add(round(float(plain.mean() + change.max()), 3))
    assert len(seen) >= 3


def test_the_scores_are_perfect_for_the_truth_and_one_is_as_good_as_no_network(folders: Path) -> None:
    pictures = PictureSet(folders / "edits")
    pairs = make_pairs(pictures, split_groups(pictures, 0)[0]).alone()
    torch.manual_seed(0)
    perceptual = PerceptualDistance(EfficientNetLite())
    drawn = tuple(np.zeros((len(pairs), GRID, GRID, 3), np.uint8) for _ in range(2))
    (case, *_) = transfer_scores.cases(pictures, pairs, drawn, "true")
    assert case.attribute == "age" and (case.plain != case.edited).any()
    perfect = transfer_scores.measured(case, case.truth, perceptual)
    nothing = transfer_scores.measured(case, case.source, perceptual)
    assert perfect[0] == 0 and perfect[1] > 60 and perfect[3] == 1 and nothing[0] > 0 and nothing[1] < 40
    table = transfer_scores.scores(iter([case]), {"motion": MapMaker()}, perceptual)
    assert table["mean"]["motion"][1] > nothing[1] + 3 and table["age"]["nothing"][1] == nothing[1]
    assert "true face_psnr" in transfer_scores.written(table, "true")


def test_in_training_the_result_is_what_the_maps_say() -> None:
    torch.manual_seed(0)
    net = TransferNet(TransferConfig((8, 8, 8, 8)))
    source, plain = torch.rand(1, 3, 256, 256), torch.rand(1, 3, 128, 128)
    flow = torch.zeros(1, 2, 128, 128)
    assert torch.allclose(transferred(source, plain, plain, net(source, plain, plain, flow)), source, atol=1e-6)
    edited = plain + 0.3
    maps = net(source, plain, edited, flow)
    change = transferred(source, plain, edited, maps) - source
    assert 0.2 < float(change.detach().mean()) < 0.3  # the difference, nearly in full

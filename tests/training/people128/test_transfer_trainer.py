"""The training of the transfer network on tiny sets: its examples, that it learns and continues exactly, its scores."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pair_sets import make_edits, make_photos
from tiny import make_tiny_bundle, tiny_encoder, tiny_generator

from sg3cli.compositing.map_maker import MapMaker
from sg3cli.compositing.optical_flow import GRID
from sg3cli.nets.checkpoint import load_transfer_file
from sg3cli.nets.efficientnet_lite import EfficientNetLite, PerceptualDistance
from sg3cli.nets.transfer_net import TransferConfig, TransferNet
from sg3cli.training.people128 import transfer_run, transfer_scores
from sg3cli.training.people128.pair_data import ATTRIBUTES, PictureSet, make_pairs, split_groups
from sg3cli.training.people128.pair_net import PairNet
from sg3cli.training.people128.transfer_data import ExampleConfig, both_ways, drawings_of
from sg3cli.training.people128.transfer_drawings import Drawer, draw_pairs
from sg3cli.training.people128.transfer_run import TransferRun, TransferRunConfig, any_edits, drawer_of
from sg3cli.training.people128.transfer_trainer import TransferTraining


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sets and a model in `tmp_path`; the backbone is a random one."""
    make_edits(tmp_path / "edits")
    make_photos(tmp_path / "photos")
    make_tiny_bundle(tmp_path / "model")
    torch.manual_seed(0)
    backbone = EfficientNetLite()
    monkeypatch.setattr(transfer_run, "load_efficientnet_lite", lambda path: backbone)
    monkeypatch.setattr(transfer_run, "TransferNet", lambda: TransferNet(TransferConfig((8, 8, 8, 8))))
    return tmp_path


def _run(folder: Path, work: str = "work", **changes: object) -> TransferRun:
    config = TransferRunConfig(
        edits=((folder / "edits", 0.9, 1.0),), photos=folder / "photos", model=str(folder / "model"), backbone=folder,
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
    example = run.held  # their truth is known
    first = run.trainer.step(example, 0.0)["total"]
    for _ in range(8):
        last = run.trainer.step(example, 0.0)["total"]
    assert last < first
    run._log({"total": last})
    assert json.loads((folders / "work" / "log.jsonl").read_text())["total"] == round(last, 4)


def test_a_discriminator_is_part_of_the_loss_when_it_has_learned_and_goes_on_exactly(folders: Path) -> None:
    training = TransferTraining(warmup=2, lr=3e-3, adversarial=0.5)
    whole, parts = (_run(folders, name, training=training) for name in ("whole", "parts"))
    for run in (whole, parts):
        assert run.trainer.critic is not None
        run.trainer.critic.warmup = 1
    example = whole.held
    first, second = (whole.trainer.step(example, 0.0) for _ in range(2))
    assert "adversarial" not in first and first["told_apart"] > 0
    gained = second["adversarial_weight"] * second["adversarial"]
    others = sum(getattr(training, name) * second[name] for name in ("pixel", "perceptual", "edges", "change"))
    assert second["adversarial_weight"] > 0 and second["total"] == pytest.approx(others + gained, rel=1e-4)
    parts.trainer.step(example, 0.0)
    again = _run(folders, "again", training=training)
    again.trainer.restore(parts.trainer.state())
    assert again.trainer.critic is not None
    again.trainer.critic.warmup = 1
    assert again.trainer.step(example, 0.0) == second


def test_an_example_follows_from_the_step_and_its_truth_is_what_is_known(folders: Path) -> None:
    run = _run(folders, examples=ExampleConfig(count=3))
    one, other, next_ = run.source.batch(5), run.source.batch(5), run.source.batch(6)
    assert torch.equal(one.source, other.source) and not torch.equal(one.source, next_.source)
    assert one.source.shape == one.truth.shape == one.base.shape == (3, 3, 2 * GRID, 2 * GRID)
    assert one.plain.shape == one.edited.shape == (3, 3, GRID, GRID)
    assert [source.known for source in run.source.sources] == [True, False]


def test_of_a_photograph_whose_truth_is_not_known_nothing_beyond_the_base_is_asked(folders: Path) -> None:
    run = _run(folders)
    (photos,) = (source for source in run.source.sources if not source.known)
    only = type(run.source)([photos], ExampleConfig(count=4), None)
    batch = only.batch(0)
    assert torch.equal(batch.truth, batch.base) and not torch.equal(batch.base, batch.source)
    age = list(ATTRIBUTES).index("age")
    assert not any_edits(np.arange(20), np.ones(len(ATTRIBUTES), bool), 0).delta[:, age].any()
    few = any_edits(np.arange(20), np.ones(len(ATTRIBUTES), bool), 0, ("yaw", "makeup")).delta.any(axis=0)
    assert [name for name, given in zip(ATTRIBUTES, few, strict=True) if given] == ["yaw", "makeup"]


def test_a_truth_that_is_stronger_than_its_drawing_is_learned_from_a_weaker_one(folders: Path) -> None:
    run = _run(folders, examples=ExampleConfig(count=4, tuned=0.0, true=0.0, soft=0.0))
    (whole, _) = run.source.sources
    batches = [
        type(run.source)([whole._replace(drawn=drawn)], run.config.examples, None).batch(0) for drawn in (1.0, 0.5)
    ]
    full, half = (batch.edited - batch.plain for batch in batches)
    assert torch.equal(batches[0].truth, batches[1].truth) and full.abs().mean() > 0.01
    assert half.abs().mean() == pytest.approx(0.5 * float(full.abs().mean()), rel=0.15)


def test_pairs_are_learned_both_ways_and_only_of_what_the_model_can_change(folders: Path) -> None:
    run = _run(folders)
    pairs = run.source.sources[0].pairs
    knows = drawer_of(str(folders / "model")).knows
    assert [name for name, known in zip(ATTRIBUTES, knows, strict=True) if known] == ["age", "smile"]
    assert len(pairs) and (pairs.delta[:, ~knows] == 0).all()
    half = len(pairs) // 2
    assert (
        np.array_equal(pairs.rows[:half], pairs.rows[half:, ::-1]) and (pairs.delta[:half] == -pairs.delta[half:]).all()
    )
    assert len(both_ways(pairs)) == 4 * half


def test_drawings_are_those_of_the_edit_and_are_kept(tmp_path: Path) -> None:
    pictures = PictureSet(make_edits(tmp_path / "edits"))
    pairs = make_pairs(pictures, split_groups(pictures, 0)[0]).alone()
    G, directions = tiny_generator(), torch.zeros(len(ATTRIBUTES), 8, 32)
    directions[0] = 0.5
    drawer = Drawer.of_pairs(PairNet(G, tiny_encoder(), directions).eval())
    first = draw_pairs(drawer, pictures, pairs, tmp_path / "drawn.npz")
    changed = (first.plain != first.edited).any(axis=(1, 2, 3))
    assert first.plain.shape == (len(pairs), 32, 32, 3) and np.array_equal(changed, pairs.delta[:, 0] != 0)
    again = draw_pairs(replace(drawer, draw=None), pictures, pairs, tmp_path / "drawn.npz")  # type: ignore[arg-type]
    assert np.array_equal(first.edited, again.edited)


def test_drawings_of_every_kind_change_where_the_truth_does() -> None:
    source, truth = np.full((2, 256, 256, 3), 100, np.float32)
    truth[100:150, 100:150] += 60
    drawn = (np.full((128, 128, 3), 90, np.float32), np.full((128, 128, 3), 90, np.float32))
    drawn[1][50:75, 50:75] += 20
    seen = set()
    for kind in ({"true": 1.0}, {"true": 0.0, "soft": 1.0}, {"true": 0.0, "soft": 0.0, "tuned": 1.0},
                 {"true": 0.0, "soft": 0.0, "tuned": 0.0}):  # fmt: skip
        plain, edited = drawings_of(
            source, truth, drawn, np.random.default_rng(1), ExampleConfig(**kind, left=(1.0, 1.0))
        )
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


def test_a_network_begins_with_what_motion_and_light_make(folders: Path) -> None:
    run = _run(folders)
    e = run.source.batch(0)
    net = TransferNet(TransferConfig((8, 8, 8, 8)))
    assert not net(e.source, e.base, e.plain, e.edited).any()
    torch.nn.init.normal_(net.head.weight, std=0.3)
    assert net(e.source, e.base, e.plain, e.edited).any()
    assert not net(e.source, e.base, e.plain, e.plain).any()  # nothing drawn, nothing changed

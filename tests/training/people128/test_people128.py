"""Training of the embedded model, on a handful of drawn images and tiny networks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from drawn_faces import COLUMNS, drawn_faces, write_faces
from safetensors.numpy import load_file
from tiny import tiny_config, tiny_encoder, tiny_generator

from sg3cli.errors import InputError
from sg3cli.nets.attribute_net import (
    AttributeNet,
    AttributeNetConfig,
    load_attribute_net,
    perceptual_distance,
    save_attribute_net,
)
from sg3cli.training.data.synthface import Batches, load_faces, load_test
from sg3cli.training.people128.autoencoder import (
    AutoencoderConfig,
    AutoencoderTrainer,
    face_weight,
    feature_weight,
    pixel_loss,
)
from sg3cli.training.people128.coarse_init import run_coarse_init
from sg3cli.training.people128.conditions import FARTHEST, make_conditions
from sg3cli.training.people128.fit_mapping import fit_mapping
from sg3cli.training.people128.label_directions import (
    SPECS,
    DirectionSpec,
    direction_vectors,
    label_step,
    regress_codes,
    save_directions,
)
from sg3cli.training.people128.probe import train_attribute_net
from sg3cli.weights.direction_file import load_direction


def test_a_data_set_is_read_as_it_was_written(tmp_path) -> None:
    faces = drawn_faces()
    write_faces(tmp_path, faces)
    read = load_faces(tmp_path)
    assert read.columns == COLUMNS and "identity" not in read.columns
    assert np.array_equal(read.identity, faces.identity) and np.allclose(read.column("yaw"), faces.column("yaw"))
    assert np.abs(read.images.astype(int) - faces.images).mean() < 2
    train, test = read.split(held_out=5)
    assert len(test) == 10 and not set(train.identity) & set(test.identity)
    alone = load_test(tmp_path, held_out=5)
    assert np.array_equal(alone.images, test.images) and np.array_equal(alone.labels, test.labels)
    assert np.array_equal(alone.landmarks, test.landmarks) and len(load_test(tmp_path)) == len(read.split()[1])


@pytest.mark.parametrize("part", ["images.bin", "index.npy", "labels.npz"])
def test_a_missing_part_is_named(tmp_path, part: str) -> None:
    write_faces(tmp_path, drawn_faces(4))
    (tmp_path / part).unlink()
    with pytest.raises(InputError, match=part.replace(".", r"\.")):
        load_faces(tmp_path)


def test_a_damaged_image_is_named(tmp_path) -> None:
    write_faces(tmp_path, drawn_faces(4))
    (tmp_path / "images.bin").write_bytes(b"\0" * (tmp_path / "images.bin").stat().st_size)
    with pytest.raises(InputError, match="picture 0"):
        load_faces(tmp_path)


def test_every_epoch_is_a_permutation_and_needs_no_history() -> None:
    batches = Batches(10, 4, seed=3)
    seen = np.concatenate([batches.rows(step) for step in range(5)])
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10)) and list(seen[:10]) != list(seen[10:])
    assert np.array_equal(Batches(10, 4, seed=3).rows(4), batches.rows(4))


def test_conditions_are_standardised_and_bounded() -> None:
    conditions = make_conditions(drawn_faces(400), shapes=2)
    inside = conditions.vectors[:, conditions.index("smile")]
    assert abs(inside.mean()) < 0.05 and abs(inside.std() - 1) < 0.05
    assert np.abs(conditions.vectors).max() <= FARTHEST
    assert {"hair_style_2", "gaze_x", "shape_1"} <= set(conditions.names) and "hair_style" not in conditions.names


def test_a_direction_takes_along_what_follows_its_label() -> None:
    conditions = make_conditions(drawn_faces(400), shapes=2)
    step = label_step(conditions, DirectionSpec("age", 2.0, "", {"wrinkles": 0.5}))
    assert step[conditions.index("age")] == pytest.approx(2 / conditions.std[conditions.index("age")])
    assert step[conditions.index("wrinkles")] == pytest.approx(0.5 * step[conditions.index("age")], rel=0.1)
    assert not step[conditions.index("smile")]


def test_regression_finds_the_label_matrix() -> None:
    conditions = make_conditions(drawn_faces(400), shapes=2)
    M = torch.randn(16, len(conditions.names), generator=torch.Generator().manual_seed(0))
    codes = torch.from_numpy(conditions.vectors) @ M.T + 3
    found, explained = regress_codes(codes, conditions)
    smile = conditions.index("smile")
    assert torch.cosine_similarity(found[:, smile], M[:, smile], 0) > 0.99 and explained > 0.99


def test_saved_directions_are_read_by_the_editor(tmp_path) -> None:
    conditions = make_conditions(drawn_faces(60), shapes=2)
    vectors = direction_vectors(torch.ones(8, len(conditions.names)), conditions, ("age", "smile"))
    save_directions(tmp_path, vectors, "sha256:x", {"age": 1.2, "smile": 1.0})
    loaded = load_direction(tmp_path / "age.safetensors")
    assert loaded.generator == "sha256:x" and loaded.meta["aim"] == SPECS["age"].means
    assert np.allclose(loaded.vector, vectors["age"].numpy())
    layered = torch.arange(12.0).view(3, 4)
    save_directions(tmp_path, {"smile": layered}, "sha256:x", {"smile": 1.0})
    assert load_file(tmp_path / "smile.safetensors")["direction"].shape == (3, 4)
    assert np.array_equal(load_direction(tmp_path / "smile.safetensors").vector, layered.numpy())


def test_the_mapping_draws_from_the_distribution_of_the_codes() -> None:
    """Mean and covariance of drawn codes are those of the codes, which lie on both sides of the kinks."""
    rng = torch.Generator().manual_seed(0)
    G = tiny_generator()
    codes = torch.randn(4000, 5, generator=rng) @ torch.randn(5, G.w_dim, generator=rng)
    codes = codes + torch.randn(G.w_dim, generator=rng)
    assert fit_mapping(G, codes) == pytest.approx(1, abs=1e-4)
    drawn = G.mapping(torch.randn(20000, G.config.z_dim, generator=rng))[:, 3]
    assert torch.allclose(G.mapping.w_avg, codes.mean(0))
    assert torch.allclose(drawn.mean(0), codes.mean(0), atol=0.1)
    assert torch.allclose(torch.cov(drawn.T), torch.cov(codes.T), atol=0.5)  # its largest entry is about 10
    midway = G.mapping(torch.zeros(1, G.config.z_dim))[0, 0]
    assert torch.allclose(midway, codes.mean(0), atol=1e-3)


def test_a_mapping_of_another_depth_is_not_fitted() -> None:
    with pytest.raises(ValueError, match="8 layers"):
        fit_mapping(tiny_generator(mapping_layers=8), torch.randn(10, 32))


def test_the_face_weighs_more_than_the_corner() -> None:
    weight = face_weight(32)[0, 0]
    assert weight.mean() == pytest.approx(1.0, abs=1e-5) and weight[17, 16] > 3 * weight[0, 0]
    x = torch.zeros(1, 3, 32, 32)
    assert pixel_loss(x, x, face_weight(32)) == 0 and pixel_loss(x + 0.1, x, face_weight(32)) > 0.2


def test_an_attribute_net_learns_and_is_saved(tmp_path) -> None:
    faces = drawn_faces(48, size=64)
    run = list(train_attribute_net(faces, AttributeNetConfig(COLUMNS, 24, (8, 16, 16, 16), 8), steps=12, batch=16))
    losses, net = [loss for _, loss, _ in run], run[-1][2].eval()
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    save_attribute_net(tmp_path / "probe.safetensors", net)
    x = faces.batch(np.arange(4))
    assert torch.allclose(load_attribute_net(tmp_path / "probe.safetensors")(x)[0], net(x)[0], atol=0.02)
    assert torch.all(perceptual_distance(net, x, x) == 0) and torch.all(perceptual_distance(net, x + 0.3, x) > 0)


def make_trainer(steps: int = 6) -> AutoencoderTrainer:
    faces = drawn_faces()
    G, encoder = tiny_config(), tiny_encoder().config
    config = AutoencoderConfig(steps=steps, batch=4, encoded=8, warmup=2, second_pass_from=0.3, second_pass_share=0.7)
    return AutoencoderTrainer(faces, make_conditions(faces, shapes=2), None, config, G, replace(encoder, kind="e4e"))


def test_training_continues_exactly_where_it_stopped() -> None:
    whole, first = make_trainer(), make_trainer()
    logs = list(whole.run())
    list(first.run(until=3))
    second = make_trainer()
    second.restore(first.state())
    list(second.run())
    assert all(np.isfinite(list(log.values())).all() for log in logs) and second.now == 6
    for ours, theirs in zip(second.ema.state_dict().values(), whole.ema.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


def test_training_lowers_the_loss() -> None:
    logs = [log["pixel"] for log in make_trainer(steps=30).run()]
    assert np.mean(logs[-5:]) < 0.8 * np.mean(logs[:5])


def test_the_coarse_init_teaches_the_labels() -> None:
    faces = drawn_faces(48, size=64)
    conditions = make_conditions(faces, shapes=2)
    torch.manual_seed(0)
    from sg3cli.nets.generator import Generator
    from sg3cli.training.people128.autoencoder import label_matrix

    G = Generator(tiny_config(img_resolution=64))
    M = label_matrix(G.w_dim, len(conditions.names))
    before = M.detach().clone()
    losses = list(run_coarse_init(G, M, faces, conditions, steps=20, batch=8))
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:4]) and not torch.equal(M, before)


def test_attribute_net_configs_describe_themselves() -> None:
    config = AttributeNetConfig(("a", "b"), 3, (8, 8), 4)
    assert config.to_dict()["widths"] == (8, 8) and AttributeNet(config).labels.out_features == 2


def test_bfloat16_is_used_on_request_only_and_changes_little() -> None:
    plain, half = make_trainer(), make_trainer()
    half.use_bf16()
    a, b = next(plain.run())["pixel"], next(half.run())["pixel"]
    assert a != b and abs(a - b) < 0.02 * a
    assert {p.dtype for p in half.ema.parameters()} == {torch.float32}


def test_feature_weight_is_one_at_the_mouth_and_nothing_at_the_corners() -> None:
    landmarks = torch.full((2, 68, 2), 10.0)
    landmarks[0, 48:68] = torch.tensor([20.5, 25.5])
    weight = feature_weight(landmarks, 32)
    assert weight.shape == (2, 1, 32, 32) and weight.max() <= 1
    assert weight[0, 0, 25, 20] > 0.999 and weight[1, 0, 25, 20] < 1e-3  # row is y, column is x
    assert weight[:, :, -1, 0].max() < 1e-6

"""Encoders against the numbers of the reference implementation, whose weights follow from a rule."""

from __future__ import annotations

import gzip
import json

import fill_rule
import numpy as np
import pytest
import torch
from running import GOLDEN
from tiny import tiny_encoder
from torch import Tensor

from sg3cli.errors import ModelError
from sg3cli.nets.encoder import Encoder, EncoderConfig, IRBlock, SqueezeExcite, StyleHead

TOLERANCE = 1e-5

with np.load(GOLDEN / "D_encoders.npz") as data:
    TRUTH = {k: torch.from_numpy(data[k]) for k in data}


def read_json(name: str) -> dict:
    return json.loads(gzip.decompress((GOLDEN / f"{name}.json.gz").read_bytes()))


def assert_close(actual: Tensor, name: str) -> None:
    expected = TRUTH[name]
    assert actual.shape == expected.shape
    error = (actual.double() - expected.double()).abs().max() / expected.double().abs().max()
    assert error <= TOLERANCE, f"{name}: relative error {error:.2e}"


def test_fill_rule() -> None:
    """The rule itself, against its published values."""
    for key in ("input_layer.0.weight", "body.0.res_layer.0.weight", "body.0.res_layer.0.running_var"):
        assert_close(fill_rule.filled_tensor(key, tuple(TRUTH[f"rule:{key}"].shape)), f"rule:{key}")
    for key in ("styles.0.linear.weight", "styles.0.convs.0.bias"):
        assert_close(fill_rule.filled_tensor(key, tuple(TRUTH[f"rule:{key}"].shape)), f"rule:{key}")
    corner = fill_rule.image("encoder_input", (1, 6, 256, 256))[0, :, :3, :3]
    assert_close(corner, "rule:encoder_input_corner")


BLOCKS = {
    "irse_32_32_s2": lambda: IRBlock(32, 32, 2),
    "irse_16_32_s2": lambda: IRBlock(16, 32, 2),
    "irse_32_32_s1": lambda: IRBlock(32, 32, 1),
    "ir_16_32_s2": lambda: IRBlock(16, 32, 2, se_reduction=0),
    "se_32": lambda: SqueezeExcite(32, 16),
    "gradual_24_32_16": lambda: StyleHead(24, 32, 16, 32),
    "gradual_8_8_32": lambda: StyleHead(8, 8, 32, 8),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks(name: str) -> None:
    shapes = read_json("D_block_shapes")[name]
    x = fill_rule.signed(shapes.pop("__input_name__"), shapes.pop("__input_shape__"))
    block = BLOCKS[name]()
    assert {k: list(v.shape) for k, v in block.state_dict().items()} == shapes
    assert list(block.state_dict()) == list(shapes)
    assert_close(fill_rule.fill(block)(x), f"block:{name}:y")


CLASSES = {
    "ProgressiveBackboneEncoder": EncoderConfig(kind="e4e"),
    "BackboneEncoder": EncoderConfig(),
    "ResNetProgressiveBackboneEncoder": EncoderConfig.resnet34(kind="e4e"),
    "ResNetBackboneEncoder": EncoderConfig.resnet34(),
}


@pytest.mark.parametrize("name", CLASSES)
def test_names_and_shapes_are_official(name: str) -> None:
    with torch.device("meta"):
        state = Encoder(CLASSES[name]).state_dict()
    truth = read_json("D_state_dict_keys")[name]
    assert [(k, list(v.shape)) for k, v in state.items()] == [(k, shape) for k, (shape, _) in truth.items()]


@pytest.mark.parametrize("trunk", ["irse", pytest.param("resnet", marks=pytest.mark.slow)])
def test_full_size_encoders(trunk: str) -> None:
    prefix = "ResNet" if trunk == "resnet" else ""
    e4e = fill_rule.full_encoder(trunk)
    x = fill_rule.image("encoder_input", (1, 6, 256, 256))
    seen: dict[int, Tensor] = {}
    hooks = [
        block.register_forward_hook(lambda module, args, out, i=i: seen.__setitem__(i, out))
        for i, block in enumerate(e4e.body)
    ]
    rows = [0, 5, 15]
    assert_close(e4e(x)[:, rows], f"enc:{prefix}ProgressiveBackboneEncoder:y_rows0_5_15")
    for hook in hooks:
        hook.remove()
    check_body(seen, f"enc:{prefix}ProgressiveBackboneEncoder")
    psp = fill_rule.as_psp(e4e)
    assert_close(psp(x)[:, rows], f"enc:{prefix}BackboneEncoder:y_rows0_5_15")


def check_body(seen: dict[int, Tensor], prefix: str) -> None:
    assert_close(torch.tensor([[a.mean(), a.std()] for a in seen.values()]), f"{prefix}:body_mean_std")
    slices = [k for k in TRUTH if k.startswith(f"{prefix}:body.")]
    assert slices
    for key in slices:
        assert_close(seen[int(key.split(":")[2].removeprefix("body."))][0, :4, :8, :8], key)


def test_progressive_stages() -> None:
    encoder = fill_rule.full_encoder("irse")
    x = fill_rule.image("encoder_input", (1, 6, 256, 256))
    assert_close(encoder(x, stage=5)[0, [5, 6, 0]], "enc:Progressive_stage5:y_rows5_6_0")
    base = encoder(x, stage=0)[0]
    assert_close(base[[0, 5]], "enc:Progressive_stage0:y_w0")


@pytest.mark.parametrize(
    ("size", "stages"), [(32, ((8, 1),)), (48, ((8, 1), (12, 2))), (100, ((8, 1), (8, 1), (8, 1)))]
)
def test_any_input_size_and_depth(size: int, stages: tuple[tuple[int, int], ...]) -> None:
    """Heads reduce the last map to one pixel also where its side is no power of two."""
    config = EncoderConfig(
        input_size=size, stem=4, stages=stages, head_dim=8, num_ws=5, w_dim=7, kind="e4e", se_reduction=2
    )
    codes = Encoder(config).eval()(torch.zeros(2, 6, size, size))
    assert codes.shape == (2, 5, 7)


def test_gradients_reach_every_parameter() -> None:
    encoder = tiny_encoder().train().requires_grad_(True)
    encoder(torch.randn(3, 6, 32, 32)).square().mean().backward()
    unused = [k for k, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert not unused


def test_config_survives_json_and_names_unknown_settings() -> None:
    config = EncoderConfig(stages=((8, 1), (16, 2)), kind="e4e")
    assert EncoderConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(ModelError, match="depth"):
        EncoderConfig.from_dict({"depth": 3})
    with pytest.raises(ModelError, match="hyper"):
        EncoderConfig(kind="hyper")


def test_squeeze_and_excitation_is_optional() -> None:
    """A trunk without SE is plain IR, as ArcFace's IR-50."""
    plain = IRBlock(4, 8, 2, se_reduction=0)
    assert not any(isinstance(m, SqueezeExcite) for m in plain.modules())

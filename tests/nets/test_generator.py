"""Generator against the numbers of the reference implementation, and against what StyleGAN3 promises."""

from __future__ import annotations

import gzip
import json
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from running import GOLDEN
from tiny import tiny_config, tiny_generator
from torch import Tensor

from sg3cli.errors import ModelError
from sg3cli.nets.generator import Generator
from sg3cli.nets.generator_config import GeneratorConfig

TAGS = ("sg3t", "sg3r", "sg3t_cond")
IMPLS = ("torch", "auto")  # auto is the compiled kernel where one is available


def read_json(name: str) -> dict:
    return json.loads(gzip.decompress((GOLDEN / f"{name}.json.gz").read_bytes()))


@cache
def arrays(name: str) -> dict[str, Tensor]:
    """Arrays of a golden file; those of strings are left out."""
    with np.load(GOLDEN / f"{name}.npz") as data:
        return {k: torch.from_numpy(data[k]) for k in data if data[k].dtype.kind in "fi"}


def relative_error(actual: Tensor, expected: Tensor) -> float:
    assert actual.shape == expected.shape
    return float((actual.detach().double() - expected.double()).abs().max() / expected.double().abs().max())


def check(tag: str, name: str, actual: Tensor, tolerance: float = 1e-5) -> None:
    """Compare with the golden array `name`, stored whole or, as `name@s`, every s-th pixel of the first channels."""
    for key, expected in arrays(f"A_{tag}_io").items():
        stem, _, stride = key.partition("@")
        if stem == name:
            step = int(stride or 1)
            part = actual[..., ::step, ::step] if stride else actual
            part = part[: len(expected), : expected.shape[1]] if expected.ndim == 4 else part
            assert relative_error(part, expected) <= tolerance, key
            return
    raise AssertionError(f"no golden array {name}")


def has(tag: str, name: str) -> bool:
    return any(key.partition("@")[0] == name for key in arrays(f"A_{tag}_io"))


def network(tag: str, impl: str = "torch") -> Generator:
    G = Generator(GeneratorConfig.from_official(read_json(f"A_{tag}")["init_kwargs"]))
    G.load_state_dict({k: v.clone() for k, v in arrays(f"A_{tag}_weights").items()})
    G.synthesis.impl = impl
    return G


def activations(G: Generator) -> dict[str, Tensor]:
    """Filled with the output of the input and of every layer at each call of `G.synthesis`."""
    seen: dict[str, Tensor] = {}
    for name in ("input", *G.layer_names):
        getattr(G.synthesis, name).register_forward_hook(
            lambda module, args, out, name=name: seen.__setitem__(name, out.detach())
        )
    return seen


@pytest.mark.parametrize("tag", TAGS)
def test_names_shapes_and_order_are_official(tag: str) -> None:
    truth = read_json(f"A_{tag}")
    G = Generator(GeneratorConfig.from_official(truth["init_kwargs"]))
    assert {k: list(v.shape) for k, v in G.state_dict().items()} == truth["state_dict_shapes"]
    assert [k for k, _ in G.named_parameters()] == truth["parameter_order"]
    assert list(G.layer_names) == truth["layer_names"] and G.num_ws == truth["num_ws"]


@pytest.mark.parametrize("tag", TAGS)
def test_mapping(tag: str) -> None:
    G, io = network(tag), arrays(f"A_{tag}_io")
    cases = {"psi1": (1, None), "psi0p7": (0.7, None), "psi-0p3": (-0.3, None), "psi0p5_cutoff3": (0.5, 3)}
    for name, (psi, cutoff) in cases.items():
        check(tag, f"ws_{name}", G.mapping(io["z"], io.get("c"), psi=psi, cutoff=cutoff))


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("tag", TAGS)
def test_images_activations_and_gradients(tag: str, impl: str) -> None:
    G, io = network(tag, impl), arrays(f"A_{tag}_io")
    seen = activations(G)
    ws = io["ws_psi0p7"].clone().requires_grad_()
    img = G.synthesis(ws)
    check(tag, "img_identity", img)
    check(tag, "act_mean", torch.stack([a.double().mean() for a in seen.values()]))
    check(tag, "act_std", torch.stack([a.double().std() for a in seen.values()]))
    check(tag, "act_absmax", torch.stack([a.abs().max() for a in seen.values()]))
    for name, act in seen.items():
        if has(tag, f"act_{name}"):
            check(tag, f"act_{name}", act)

    loss = img.square().mean()
    loss.backward()
    check(tag, "loss", loss, 1e-6)
    check(tag, "grad_ws", ws.grad, 1e-4)
    for name, parameter in G.named_parameters():
        if has(tag, f"grad:{name}"):
            check(tag, f"grad:{name}", parameter.grad, 1e-4)
    check_gradient_statistics(tag, G)


def check_gradient_statistics(tag: str, G: Generator) -> None:
    truth = read_json(f"A_{tag}_gradstats")["grads"]
    grads = {k: p.grad for k, p in G.synthesis.named_parameters(prefix="synthesis")}
    assert truth.keys() >= grads.keys()
    for name, grad in grads.items():
        total, abs_sum, l2, abs_max = truth[name]
        assert float(grad.double().sum()) == pytest.approx(total, rel=1e-4, abs=1e-4 * abs_sum)
        assert float(grad.double().abs().sum()) == pytest.approx(abs_sum, rel=1e-4)
        assert float(grad.double().norm()) == pytest.approx(l2, rel=1e-4)
        assert float(grad.abs().max()) == pytest.approx(abs_max, rel=1e-4)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("tag", TAGS)
def test_transforms(tag: str, impl: str) -> None:
    """All golden transforms in one batch: one transform for each sample."""
    G, io = network(tag, impl), arrays(f"A_{tag}_io")
    seen = activations(G)
    names = [k.removeprefix("transform_") for k in io if k.startswith("transform_")]
    transforms = torch.stack([io[f"transform_{n}"] for n in names])
    with torch.no_grad():
        imgs = G.synthesis(io["ws_psi0p7"][:1].expand(len(names), -1, -1), transform=transforms)
    for i, name in enumerate(names):
        check(tag, f"img_{name}", imgs[i : i + 1])
        if has(tag, f"input_{name}"):
            check(tag, f"input_{name}", seen["input"][i : i + 1])


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("tag", TAGS)
def test_code_for_each_layer(tag: str, impl: str) -> None:
    with torch.no_grad():
        check(tag, "img_wsp", network(tag, impl).synthesis(arrays(f"A_{tag}_io")["wsp"]))


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("tag", ("sg3t", "sg3r"))
def test_style_space(tag: str, impl: str) -> None:
    G, io = network(tag, impl), arrays(f"A_{tag}_io")
    with torch.no_grad():
        styles = G.synthesis.style_space(io["ws_psi0p7"])
        assert list(styles) == ["input", *G.layer_names]
        for name, s in styles.items():
            check(tag, f"S:{name}", s)
        with np.load(GOLDEN / f"A_{tag}_io.npz") as data:
            edited = str(data["edited_layer"])
        styles[edited][:, :8] += 3
        styles["input"][:, 2] += 0.1
        check(tag, "img_edited_S", G.synthesis.from_styles(styles))
        check(tag, "img_batch_transforms", G.synthesis(io["ws_psi0p7"], transform=io["batch_transforms"]))


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("tag", TAGS)
def test_fine_tuning(tag: str, impl: str) -> None:
    """Five Adam steps on all but the Fourier input reproduce losses, image and (bulk of) weights."""
    G, io = network(tag, impl), arrays(f"A_{tag}_io")
    ws = io["ws_psi0p7"][:1]
    optimizer = torch.optim.Adam(list(G.synthesis.parameters())[3:], lr=3e-4)
    losses = []
    for _ in range(5):
        loss = (G.synthesis(ws) - io["ft_target_seed5"]).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    check(tag, "ft_losses", torch.tensor(losses, dtype=torch.float64), 1e-6)
    check(tag, "ft_img_final", G.synthesis(ws), 3e-4)
    parameters = dict(G.synthesis.named_parameters())
    for key, expected in io.items():
        name = key.removeprefix("ft_").removesuffix("_first8")
        if name in parameters:
            # Adam divides by |g|: an entry whose gradient is nearly zero may go the other way.
            error = (parameters[name][: len(expected)].detach() - expected).abs()
            assert error.flatten().quantile(0.99) <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("tag", TAGS)
def test_moving_averages(tag: str, impl: str) -> None:
    G, io = network(tag, impl), arrays(f"A_{tag}_io")
    with torch.no_grad():
        G(io["z"], io.get("c"), update_emas=True)
    check(tag, "ema_w_avg", G.mapping.w_avg)
    check(tag, "ema_magnitude", torch.stack([layer.magnitude_ema for layer in G.synthesis.layers()]))


def test_buffers_stay_unless_asked() -> None:
    G = tiny_generator()
    before = {k: v.clone() for k, v in G.state_dict().items()}
    G(torch.ones(1, 32), psi=0.5)
    assert all(torch.equal(v, before[k]) for k, v in G.state_dict().items())


FULL = read_json("A_full_configs")


@pytest.mark.parametrize("name", FULL)
def test_official_configurations(name: str) -> None:
    truth, filters = FULL[name], arrays("A_full_filters")
    config = GeneratorConfig.from_official(truth["init_kwargs"])
    published = GeneratorConfig.stylegan3_t if "-t-" in name else GeneratorConfig.stylegan3_r
    assert published(config.img_resolution, config.channel_base) == config
    with torch.device("meta"):  # shapes without the memory
        G = Generator(config)
    assert {k: list(v.shape) for k, v in G.state_dict().items()} == truth["state_dict_shapes"]
    assert [k for k, _ in G.named_parameters()] == truth["parameter_order"]
    assert sum(p.numel() for p in G.parameters()) == truth["num_params"]
    first = G.synthesis.input
    assert (first.channels, first.rate, first.bandwidth) == (
        truth["input"]["channels"],
        truth["input"]["sampling_rate"],
        truth["input"]["bandwidth"],
    )
    for layer, expected in zip(G.synthesis.layers(), truth["layers"], strict=True):
        check_layer(layer, expected, filters)


def check_layer(layer: torch.nn.Module, expected: dict, filters: dict[str, Tensor]) -> None:
    spec = layer.spec
    exact = {
        "name": spec.name,
        "is_torgb": spec.is_torgb,
        "is_critically_sampled": spec.is_critical,
        "in_channels": spec.in_channels,
        "out_channels": spec.out_channels,
        "in_size": [spec.in_size] * 2,
        "out_size": [spec.out_size] * 2,
        "in_sampling_rate": spec.in_rate,
        "out_sampling_rate": spec.out_rate,
        "tmp_sampling_rate": spec.tmp_rate,
        "conv_kernel": spec.conv_kernel,
        "conv_clamp": layer.clamp,
        "up_factor": spec.up,
        "up_taps": spec.up_taps,
        "down_factor": spec.down,
        "down_taps": spec.down_taps,
        "down_radial": spec.down_radial,
        "padding_x0_x1_y0_y1": list(spec.padding),
    }
    assert exact == {k: expected[k] for k in exact}
    for key in ("in_cutoff", "out_cutoff", "in_half_width", "out_half_width"):
        assert getattr(spec, key) == pytest.approx(expected[key], rel=1e-12)
    for kind in ("up_filter", "down_filter"):
        actual = getattr(layer, kind)
        if expected[kind] is None:
            assert actual is None
        else:
            assert relative_error(actual, filters[expected[kind]]) <= 1e-6


configs = st.builds(
    lambda log2_res, **kw: tiny_config(img_resolution=2**log2_res, **kw),
    log2_res=st.integers(4, 10),
    num_layers=st.integers(4, 16),
    margin_size=st.integers(2, 12),
    conv_kernel=st.sampled_from([1, 3]),
    filter_size=st.sampled_from([4, 6, 8]),
    use_radial_filters=st.booleans(),
)


@given(configs)
@settings(max_examples=60, deadline=None)
def test_layers_fit_together(config: GeneratorConfig) -> None:
    """Padding gives exactly the next layer's size, centred to within half a sample of the temporary grid."""
    layers = config.layers()
    for layer, following in pairwise(layers):
        assert (layer.out_size, layer.out_channels, layer.out_rate) == (
            following.in_size,
            following.in_channels,
            following.in_rate,
        )
    for layer in layers:
        low, high, *_ = layer.padding
        up_sampled = (layer.in_size + layer.conv_kernel - 1) * layer.up + low + high
        filtered = up_sampled - (layer.up_taps - 1) - (layer.down_taps - 1)
        assert (filtered - 1) // layer.down + 1 == layer.out_size
        assert 0 <= layer.up - (low - high) <= 1
    assert GeneratorConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_unknown_settings_are_named() -> None:
    with pytest.raises(ModelError, match="layer_features"):
        GeneratorConfig.from_official({"img_resolution": 32, "mapping_kwargs": {"layer_features": 8}})
    with pytest.raises(ModelError, match="img_resolution"):
        GeneratorConfig.from_dict({"z_dim": 8})


def test_wrong_number_of_codes_is_an_error() -> None:
    with pytest.raises(ValueError, match="8"):
        tiny_generator().synthesis(torch.zeros(1, 7, 32))


def images(transform: Tensor | None = None) -> Tensor:
    G = tiny_generator()
    ws = G.mapping(torch.randn(2, 32, generator=torch.Generator().manual_seed(3)))
    return G.synthesis(ws, transform=transform)


def test_shift_moves_the_image() -> None:
    """inverse(M) moves the content by M: a shift by 4 pixels to the right and 3 down, exactly."""
    M = torch.tensor([[1, 0, 4 / 32], [0, 1, 3 / 32], [0, 0, 1]])
    upright, moved = images(), images(torch.linalg.inv(M))
    error = moved[:, :, 3:, 4:] - upright[:, :, :-3, :-4]
    assert error[:, :, 3:-3, 3:-3].std() < 1e-3 * upright.std()


def test_rotation_is_counter_clockwise() -> None:
    """r = 90 degrees in M = [[cos, sin], [-sin, cos]]; radial filters make it exact."""
    M = torch.tensor([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])
    assert relative_error(images(torch.linalg.inv(M)), torch.rot90(images(), 1, (2, 3))) < 1e-5


def test_call_transform_replaces_the_buffer() -> None:
    G = tiny_generator()
    ws = G.mapping.w_avg.expand(1, G.num_ws, -1)
    upright = G.synthesis(ws)
    T = torch.tensor([[1, 0, 0.2], [0, 1, 0], [0, 0, 1]])
    moved = G.synthesis(ws, transform=T)
    G.synthesis.input.transform.copy_(T)
    assert torch.equal(G.synthesis(ws), moved) and not torch.allclose(moved, upright, atol=1e-3)
    assert torch.equal(G.synthesis(ws, transform=torch.eye(3)), upright)


@pytest.mark.parametrize("chosen", (True, {0, 3, 5}))
def test_layer_checkpointing_changes_nothing(chosen: bool | set[int]) -> None:
    def gradients(layers: bool | set[int]) -> list[Tensor]:
        G = tiny_generator().requires_grad_(True)
        G.synthesis.checkpoint_layers = layers
        ws = G.mapping(torch.ones(2, 32))
        G.synthesis(ws, update_emas=True).square().mean().backward()
        return [p.grad for p in G.parameters()] + [layer.magnitude_ema for layer in G.synthesis.layers()]

    for plain, recomputed in zip(gradients(False), gradients(chosen), strict=True):
        assert torch.equal(plain, recomputed)


def test_conditional_generator_needs_a_label() -> None:
    with pytest.raises(ValueError, match="conditional"):
        network("sg3t_cond").mapping(torch.zeros(1, 24))


@pytest.mark.slow
def test_the_last_digits_of_a_code_move_a_gradient_of_a_wide_network_by_a_ten_thousandth() -> None:
    """Why gradients of `stylegan3-r-256` are compared with 5e-4 of their maximum and not with 1e-4.

    That of the input's pose is a sum over all pixels of all layers in which nearly everything cancels: it is no more
    certain in float32 than what one rounding of the code does to it (3.4e-4 between two implementations were seen).
    All other gradients are better by two orders, and so is a narrow network.
    """
    config = GeneratorConfig.stylegan3_r(256, channel_base=16384)
    with torch.random.fork_rng():
        torch.manual_seed(1234)
        G = Generator(config).eval()
        for layer in G.synthesis.layers():
            layer.magnitude_ema.uniform_(0.5, 2)
            torch.nn.init.normal_(layer.bias, std=0.3)
        torch.nn.init.normal_(G.synthesis.input.affine.weight, std=0.15)
        ws, rounding = torch.randn(2, 2, config.num_ws, config.w_dim).unbind()

    def gradients(ws: Tensor) -> dict[str, Tensor]:
        G.zero_grad()
        G.synthesis(ws).square().mean().backward()
        return {name: p.grad.clone() for name, p in G.named_parameters() if p.grad is not None}

    plain, moved = gradients(0.5 * ws), gradients(0.5 * ws * (1 + 6e-8 * rounding))
    off = {name: relative_error(moved[name], plain[name]) for name in plain}
    pose = {name for name in off if name.startswith("synthesis.input.affine")}
    assert max(off[name] for name in pose) > 2e-5
    assert max(error for name, error in off.items() if name not in pose) < 1e-4 and np.median(list(off.values())) < 2e-5

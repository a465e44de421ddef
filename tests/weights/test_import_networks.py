"""Configurations from shapes, and the networks of official files: what is inferred, what is refused, by which name."""

from __future__ import annotations

import dataclasses
import gzip
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from official_files import (
    GOLDEN,
    PICKLES,
    STATE_DICTS,
    generator_state,
    golden_bytes,
    golden_file,
    golden_json,
    save_encoder_checkpoint,
)
from tiny import tiny_config, tiny_encoder, tiny_generator

from sg3cli.errors import ModelError
from sg3cli.nets.generator import Generator
from sg3cli.nets.generator_config import GeneratorConfig
from sg3cli.weights.import_networks import GeneratorPart, read_official
from sg3cli.weights.infer_encoder import KINDS, encoder_shapes, infer_encoder
from sg3cli.weights.infer_generator import generator_shapes, infer_generator, matching_generators, official_config

ASSUMED = (  # of a state dict, whose tensors do not tell them
    "a state dict does not tell mapping_lr_multiplier 0.01, conv_clamp 256, output_scale 0.25: "
    "published values are assumed (--config KEY=VALUE for others)"
)

FULL = golden_json("A_full_configs")
NETWORKS = {**FULL, **{tag: golden_json(f"A_{tag}") for tag in ("sg3t", "sg3r")}}


def shapes_of(network: dict) -> dict[str, tuple[int, ...]]:
    return {name: tuple(shape) for name, shape in network["state_dict_shapes"].items()}


# ---- generators from shapes alone


@pytest.mark.parametrize("tag", NETWORKS)
def test_the_official_configurations_follow_from_their_shapes(tag: str) -> None:
    shapes = shapes_of(NETWORKS[tag])
    config = infer_generator(shapes)
    assert list(generator_shapes(config).items()) == list(shapes.items())  # names, order and shapes
    assert config == GeneratorConfig.from_official(NETWORKS[tag]["init_kwargs"])
    assert config == official_config(NETWORKS[tag]["init_kwargs"], shapes)


@pytest.mark.parametrize("tag", FULL)
def test_so_does_the_metadata_of_their_layers(tag: str) -> None:
    layers = infer_generator(shapes_of(FULL[tag])).layers()
    for spec, truth in zip(layers, FULL[tag]["layers"], strict=True):
        for name in ("name", "is_torgb", "in_channels", "out_channels", "conv_kernel", "up_taps", "down_taps"):
            assert getattr(spec, name) == truth[name], name
        for name in ("in_cutoff", "out_cutoff", "in_half_width", "out_half_width"):
            assert getattr(spec, name) == pytest.approx(truth[name], rel=1e-6), name
        assert (spec.up, spec.down, spec.tmp_rate) == tuple(
            truth[name] for name in ("up_factor", "down_factor", "tmp_sampling_rate")
        )
        assert (spec.is_critical, spec.in_rate, spec.out_rate) == tuple(
            truth[name] for name in ("is_critically_sampled", "in_sampling_rate", "out_sampling_rate")
        )
        assert [[spec.in_size] * 2, [spec.out_size] * 2] == [truth["in_size"], truth["out_size"]]
        assert list(spec.padding) == truth["padding_x0_x1_y0_y1"]
        assert (spec.down_radial and spec.down_taps > 1) == (truth["down_radial"] and truth["down_taps"] > 1)


def test_what_leaves_no_trace_is_as_published() -> None:
    """The conditional miniature differs from the published ones in four settings that no shape shows."""
    network = golden_json("A_sg3t_cond")
    inferred = infer_generator(shapes_of(network))
    stated = official_config(network["init_kwargs"], shapes_of(network))
    differ = {f.name for f in dataclasses.fields(stated) if getattr(stated, f.name) != getattr(inferred, f.name)}
    assert differ == {"mapping_lr_multiplier", "output_scale", "conv_clamp", "magnitude_ema_beta"}
    assert inferred.layers() == stated.layers() and (inferred.c_dim, inferred.margin_size) == (3, 6)


@given(
    st.builds(
        GeneratorConfig,
        z_dim=st.sampled_from([16, 512]),
        w_dim=st.sampled_from([16, 512]),
        c_dim=st.sampled_from([0, 5]),
        img_resolution=st.sampled_from([32, 64, 128, 512, 1024]),
        mapping_layers=st.integers(1, 8),
        num_layers=st.integers(6, 16),
        channel_base=st.sampled_from([1024, 16384, 32768, 65536, 50000]),
        channel_max=st.sampled_from([32, 512, 1024]),
        margin_size=st.sampled_from([4, 10]),
        conv_kernel=st.sampled_from([1, 3]),
        use_radial_filters=st.booleans(),
    )
)
def test_variants_follow_from_their_shapes_too(config: GeneratorConfig) -> None:
    shapes = generator_shapes(config)
    inferred = infer_generator(shapes)
    assert generator_shapes(inferred) == shapes and inferred.layers() == config.layers()


def test_filters_tell_apart_what_shapes_cannot(tmp_path: Path) -> None:
    """Up-sampling 2 with 6 taps and 4 with 3 give filters of the same length."""
    state = generator_state(lrelu_upsampling=4, filter_size=3)
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    assert len(matching_generators(shapes)) > 1 and infer_generator(shapes).lrelu_upsampling == 2
    torch.save(state, tmp_path / "a.pt")
    part = read_official(tmp_path / "a.pt").generator
    assert part is not None and [*part.notices] == [ASSUMED]
    assert (part.config.lrelu_upsampling, part.config.filter_size) == (4, 3)


def refuse(shapes: dict[str, tuple[int, ...]]) -> str:
    with pytest.raises(ModelError) as caught:
        infer_generator(shapes)
    return str(caught.value)


def test_a_state_dict_that_fits_nothing_is_refused_by_its_first_tensor() -> None:
    good = generator_shapes(tiny_config())
    layers = [layer.name for layer in tiny_config().layers()]
    third = f"synthesis.{layers[2]}"
    assert f"{third}.weight has shape (16, 15, 1, 1)" in refuse({**good, f"{third}.weight": (16, 15, 1, 1)})
    assert f"{third}.affine.bias is missing" in refuse({n: s for n, s in good.items() if n != f"{third}.affine.bias"})
    assert "layer L2 is missing" in refuse({n: s for n, s in good.items() if not n.startswith(third)})
    assert "synthesis.extra does not belong" in refuse({**good, "synthesis.extra": (1,)})
    assert "mapping.fc0.weight is missing" in refuse({n: s for n, s in good.items() if n != "mapping.fc0.weight"})
    assert "mapping.fc1.weight has shape (32, 31)" in refuse({**good, "mapping.fc1.weight": (32, 31)})
    assert "no tensor synthesis.L0" in refuse({"conv.weight": (1, 2)})
    assert "StyleGAN2" in refuse({"synthesis.b4.const": (512, 4, 4)})
    assert "no width fits" in refuse({n.replace(layers[3], "L3_26_3"): s for n, s in good.items()})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("img_resolution", 1 << 40),
        ("img_resolution", "64"),
        ("num_layers", 10**6),
        ("num_layers", True),
        ("channel_base", 1e99),
        ("filter_size", 10**6),
        ("lrelu_upsampling", 0),
        ("num_critical", 6),
        ("first_cutoff", float("nan")),
        ("first_cutoff", 0),
        ("output_scale", None),
        ("use_radial_filters", 1),
        ("evil", 1),
        ("evil\nerror: all is well", 1),
        ("mapping_kwargs", [1]),
        ("mapping_kwargs", {"num_layers": 1 << 30}),
    ],
)
def test_absurd_settings_are_refused_before_anything_is_made_of_them(name: str, value: object) -> None:
    config = tiny_config()
    settings = {"z_dim": 32, "w_dim": 32, "img_resolution": 32, "num_layers": 6, "margin_size": 6, name: value}
    with pytest.raises(ModelError) as caught:
        official_config(settings, generator_shapes(config))
    assert "\n" not in str(caught.value)


# ---- whole files


@pytest.mark.parametrize("impl", ["torch", "auto"])
@pytest.mark.parametrize("name", [*PICKLES.values(), *STATE_DICTS])
def test_images_of_the_golden_files(tmp_path: Path, name: str, impl: str) -> None:
    tag = "t" if "_t_" in name else "r"
    part = read_official(golden_file(name, tmp_path)).generator
    assert part is not None and part.notices == (() if name.endswith(".pkl") else (ASSUMED,))
    assert part.origin == ("G_ema" if name.endswith(".pkl") else "state dict")
    G = network(part)
    G.synthesis.impl = impl
    with np.load(GOLDEN / f"C_tiny_{tag}_io.npz") as io, torch.no_grad():
        image, truth = G(torch.from_numpy(io["z"]), psi=0.6).numpy(), io["img_G_ema_psi0p6"]
    assert np.abs(image - truth).max() <= 1e-5 * np.abs(truth).max()


def network(part: GeneratorPart) -> Generator:
    G = Generator(part.config)
    G.load_state_dict({name: torch.from_numpy(values) for name, values in part.state.items()})
    return G.eval()


@pytest.mark.parametrize("frames", [1, 3, None])
def test_transforms_of_frames_that_tuning_left_behind(tmp_path: Path, frames: int | None) -> None:
    state = generator_state()
    transform = state.pop("synthesis.input.transform")
    if frames:
        state["synthesis.input.transform"] = 2 * transform.repeat(frames, 1, 1)
    torch.save(state, tmp_path / "final_pti_model.pt")
    part = read_official(tmp_path / "final_pti_model.pt").generator
    assert part is not None and (part.state["synthesis.input.transform"] == np.eye(3)).all()
    assert ("transforms of" if frames else "no input transform") in part.notices[0]
    assert list(part.state) == list(generator_state())


def test_a_single_transform_and_all_other_buffers_are_kept(tmp_path: Path) -> None:
    state = generator_state()
    state["synthesis.input.transform"] = torch.tensor([[0.0, 1, 0.1], [-1, 0, 0.2], [0, 0, 1]])
    name = next(key for key in state if key.endswith("magnitude_ema"))
    state[name] = torch.tensor(0.123)
    torch.save(state, tmp_path / "a.pt")
    part = read_official(tmp_path / "a.pt").generator
    assert part is not None and [*part.notices] == [ASSUMED]
    assert all(part.state[key].tobytes() == value.numpy().tobytes() for key, value in state.items())


def test_changed_filters_are_used_as_they_are_and_said(tmp_path: Path) -> None:
    state = generator_state()
    name = next(key for key in state if key.endswith("up_filter"))
    state[name] = state[name] * 1.1
    torch.save(state, tmp_path / "a.pt")
    part = read_official(tmp_path / "a.pt").generator
    assert part is not None and "filters" in part.notices[0]
    assert (part.state[name] == state[name].numpy()).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32_and_that_is_said(tmp_path: Path, dtype: torch.dtype) -> None:
    state = {name: tensor.to(dtype) for name, tensor in generator_state().items()}
    torch.save(state, tmp_path / "a.pt")
    part = read_official(tmp_path / "a.pt").generator
    assert part is not None and any("float32 now" in notice for notice in part.notices)
    assert all((part.state[name] == tensor.float().numpy()).all() for name, tensor in state.items())


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"mapping.w_avg": torch.full((32,), float("nan"))}, "mapping.w_avg has values that are not finite"),
        ({"mapping.w_avg": torch.full((32,), 1e300, dtype=torch.float64)}, "mapping.w_avg has values that are not"),
        ({"mapping.w_avg": torch.zeros(32, dtype=torch.int64)}, "mapping.w_avg holds int64"),
        ({"mapping.w_avg": "0"}, "mapping.w_avg is a str"),
        ({"mapping.w_avg": torch.zeros(31)}, "mapping.w_avg has shape (31,)"),
    ],
)
def test_tensors_that_cannot_be_weights_are_named(tmp_path: Path, change: dict, cause: str) -> None:
    torch.save({**generator_state(), **change}, tmp_path / "a.pt")
    with pytest.raises(ModelError) as caught:
        read_official(tmp_path / "a.pt")
    assert cause in str(caught.value) and str(tmp_path / "a.pt") in str(caught.value)


def test_tensors_that_share_one_storage_are_no_way_to_fill_the_memory(tmp_path: Path) -> None:
    """Each tensor alone is smaller than the file; together they are not."""
    shapes = generator_shapes(tiny_config(num_layers=14, channel_base=8192, channel_max=64))
    shared = torch.zeros(max(int(np.prod(shape)) for shape in shapes.values()))
    state = {name: shared[: int(np.prod(shape))].reshape(shape) for name, shape in shapes.items()}
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(ModelError, match="tensors together"):
        read_official(tmp_path / "a.pt")


def test_what_holds_no_network_says_what_it_holds(tmp_path: Path) -> None:
    for value, cause in (({"a": 1, "b": 2}, "it holds a, b"), ([1], "no network"), ({}, "holds nothing")):
        (tmp_path / "a.pkl").write_bytes(pickle.dumps(value))
        with pytest.raises(ModelError, match=cause):
            read_official(tmp_path / "a.pkl")


def test_adapted_generators_and_files_with_only_the_average(tmp_path: Path) -> None:
    torch.save({"g_ema": generator_state(), "g_optim": {}}, tmp_path / "nada.pt")
    part = read_official(tmp_path / "nada.pt").generator
    assert part is not None and part.origin == "g_ema"


def test_an_official_network_of_another_version_is_refused(tmp_path: Path) -> None:
    data = golden_bytes(PICKLES["t"])
    version = data.index(b"version")
    at = data.index(b"K\x06", version)
    (tmp_path / "a.pkl").write_bytes(data[:at] + b"K\x07" + data[at + 2 :])
    with pytest.raises(ModelError, match="version 7"):
        read_official(tmp_path / "a.pkl")


# ---- encoders


@pytest.mark.parametrize("encoder_type", KINDS)
def test_encoder_configurations_follow_from_their_shapes(encoder_type: str) -> None:
    table = json.loads(gzip.decompress((GOLDEN / "D_state_dict_keys.json.gz").read_bytes()))[encoder_type]
    shapes = {name: tuple(shape) for name, (shape, _) in table.items()}
    config = infer_encoder(shapes, encoder_type)
    assert (config.trunk, config.kind) == KINDS[encoder_type] and config.input_size == 256
    assert encoder_shapes(config) == shapes
    first = next(iter(shapes))
    with pytest.raises(ModelError, match=r"styles\.3\.convs\.2\.bias is missing"):
        infer_encoder({n: s for n, s in shapes.items() if n != "styles.3.convs.2.bias"}, encoder_type)
    with pytest.raises(ModelError, match=first.replace(".", r"\.")):
        infer_encoder({n: s for n, s in shapes.items() if n != first}, encoder_type)


@pytest.mark.parametrize("encoder_type", ["BackboneEncoder", "ProgressiveBackboneEncoder"])
def test_an_encoder_checkpoint_holds_encoder_and_generator(tmp_path: Path, encoder_type: str) -> None:
    found = read_official(save_encoder_checkpoint(tmp_path / "e.pt", encoder_type, global_step=5))
    assert found.encoder is not None and found.generator is not None
    assert found.generator.origin == "decoder" and found.generator.config == tiny_config()
    wanted = dataclasses.replace(tiny_encoder().config, kind=KINDS[encoder_type][1])
    assert found.encoder.config == wanted
    assert found.encoder.options["stylegan_weights"] == "weights/sg3.pt"
    expected = tiny_encoder().state_dict()
    assert list(found.encoder.state) == list(expected)
    assert all(values.tobytes() == expected[n].numpy().tobytes() for n, values in found.encoder.state.items())
    assert found.encoder.latent_avg is not None
    assert (found.encoder.latent_avg == tiny_generator().mapping.w_avg.numpy()).all()


@pytest.mark.parametrize(
    ("encoder_type", "cause"),
    [("ResNetBackboneEncoder", r"conv1\.weight is missing"), ("GradualStyleEncoder", "encoder_type is Gradual")],
)
def test_encoders_of_other_kinds_are_named(tmp_path: Path, encoder_type: str, cause: str) -> None:
    with pytest.raises(ModelError, match=cause):
        read_official(save_encoder_checkpoint(tmp_path / "e.pt", encoder_type))

"""`sg3 directions`: shown, imported, exported, combined, made orthogonal, and found without labels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx_bytes import mean_colours
from tiny import DIRECTIONS, random_direction, tiny_generator

from sg3cli import cli
from sg3cli.drawing.images import read_image
from sg3cli.errors import UsageError
from sg3cli.files import write_arrays
from sg3cli.latents.codes import Codes
from sg3cli.latents.edits import make_edit
from sg3cli.latents.rendering import draw
from sg3cli.latents.sampling import GenerateConfig, Sampler
from sg3cli.latents.spaces import Z, statistics
from sg3cli.nets.attribute_net import AttributeNet, AttributeNetConfig, load_attribute_net, save_attribute_net
from sg3cli.pipeline.load_edits import load_edits
from sg3cli.training.config import TrainDirectionsConfig
from sg3cli.training.directions.channels import channel_name, locality
from sg3cli.training.directions.components import principal_directions
from sg3cli.training.directions.fit import balanced_ends, fit_directions
from sg3cli.weights.bundle import load_model
from sg3cli.weights.direction_file import load_direction
from sg3cli.weights.loaded_nets import LoadedNets


@pytest.fixture
def here(tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(bundle: Path, *words: object) -> int:
    return cli.run(["directions", *map(str, words), "--model", str(bundle), "-q"])


# ---- files


def test_a_sum_of_directions_moves_as_its_parts_do(here: Path, tiny_bundle: Path) -> None:
    assert run(tiny_bundle, "combine", "age=2", "smile=-0.5", "--name", "mix") == 0
    mix = load_direction(here / "mix.safetensors")
    expected = 2 * random_direction(0).numpy() - 0.5 * random_direction(1).numpy()
    assert mix.vector == pytest.approx(expected, abs=1e-6)
    assert mix.generator == load_model(tiny_bundle).digest and "2 age + -0.5 smile" in mix.meta["made"]
    assert run(tiny_bundle, "combine", "age=1", "--name", "mix") == 2  # it is there
    assert run(tiny_bundle, "combine", "age=x", "--name", "other") == 2


def test_leaks_add_up_and_are_forgotten_where_one_is_unknown(here: Path, tiny_bundle: Path) -> None:
    digest = load_model(tiny_bundle).digest
    for name, leak in (("a", {"x": 1.0, "y": 0.5}), ("b", {"x": -2.0, "y": 1.0}), ("c", None)):
        meta = {"name": name, "generator": digest, "leak": leak}
        write_arrays(here / f"{name}.safetensors", {"direction": np.ones((1, 32), np.float32)}, meta)
    assert run(tiny_bundle, "combine", "a.safetensors=1", "b.safetensors=2", "--name", "ab") == 0
    assert load_direction(here / "ab.safetensors").meta["leak"] == {"x": -3.0, "y": 2.5}
    assert run(tiny_bundle, "combine", "a.safetensors=1", "c.safetensors=2", "--name", "ac") == 0
    assert load_direction(here / "ac.safetensors").meta["leak"] is None


def test_what_is_held_is_taken_out(here: Path, tiny_bundle: Path) -> None:
    assert run(tiny_bundle, "orthogonalise", "age", "--against", "smile", "--out", "pure.safetensors") == 0
    pure = load_direction(here / "pure.safetensors")
    age, smile = random_direction(0).numpy(), random_direction(1).numpy()
    assert np.abs((pure.vector * smile).sum(1)).max() < 1e-6
    assert np.linalg.norm(pure.vector, axis=1) == pytest.approx(np.ones(8)) and (pure.vector * age).sum(1).min() > 0.5
    assert pure.name == "age-without-smile" and "without smile" in pure.meta["made"]


def test_a_boundary_goes_out_and_comes_back(here: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tiny_bundle, "export", "age", "-o", "age_boundary.npy") == 0
    boundary = np.load(here / "age_boundary.npy")
    assert boundary.shape == (1, 32) and boundary.dtype == np.float32 and np.linalg.norm(boundary) == pytest.approx(1)
    assert run(tiny_bundle, "import", "age_boundary.npy", "--name", "old", "--scale", "3", "--unit", "3 years") == 0
    old = load_direction(here / "old.safetensors")
    assert old.vector == pytest.approx(3 * random_direction(0).numpy()[:1], abs=1e-6)
    assert old.does == "3 years" and old.generator == load_model(tiny_bundle).digest
    assert old.meta["made"] == "imported from age_boundary.npy"
    np.save(here / "rows.npy", random_direction(2).numpy() * np.arange(1, 9)[:, None])
    assert (
        run(tiny_bundle, "import", "rows.npy") == 0
        and run(tiny_bundle, "export", "rows.safetensors", "-o", "r.npy") == 0
    )
    assert np.load(here / "r.npy").shape == (1, 8, 32)
    np.save(here / "wide.npy", np.ones((1, 512), np.float32))
    assert run(tiny_bundle, "import", "wide.npy") == 4 and "1x512" in capsys.readouterr().err


def test_a_direction_is_drawn_with_what_else_moves(
    here: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vector = random_direction(0).numpy()[:1]
    meta = {"name": "old", "leak": {"age": 1.0, "smile": -0.25}, "leak_by": "classifier", "unit": "10 years"}
    write_arrays(here / "old.safetensors", {"direction": vector}, meta)
    assert run(tiny_bundle, "show", "old.safetensors", "--seeds", "0-1", "--strengths", "-4,0,4") == 0
    said = capsys.readouterr().out
    assert "10 years" in said and "(by classifier)" in said and "-0.25" in said
    with_table = read_image(here / "old.png")
    assert run(tiny_bundle, "show", "age", "--seeds", "0-1", "--strengths", "-4,0,4") == 0
    assert "not recorded" in capsys.readouterr().out
    without = read_image(here / "age.png")
    assert with_table.shape[1] == without.shape[1] and with_table.shape[0] > without.shape[0]
    assert run(tiny_bundle, "show", "L2:3", "--seeds", "0", "-o", "s.png") == 0 and (here / "s.png").is_file()
    for wrong in (["show", "hat"], ["show", "L9:0"], ["show", "age", "-o", "x.gif"], ["show", "age"]):
        assert run(tiny_bundle, *wrong) == 2, wrong


def test_the_list_says_what_is_known(here: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tiny_bundle, "list", "--json") == 0
    rows = json.loads(capsys.readouterr().out)["directions"]
    assert [row["name"] for row in rows] == sorted(DIRECTIONS)
    assert {row["space"] for row in rows} == {"w"} and {row["rows"] for row in rows} == {8}
    assert rows[0]["generator"] == load_model(tiny_bundle).digest


# ---- found without labels


def test_components_are_the_axes_of_largest_variance() -> None:
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    codes = rng.normal(size=(4000, 6)) * [5, 1, 3, 0.1, 0.5, 0.2] @ axes + 7
    found = principal_directions(codes, 3)
    for direction, axis, deviation in zip(found, axes[[0, 2, 1]], (5, 3, 1), strict=True):
        assert abs(direction.normal @ axis) > 0.99 and direction.length == pytest.approx(deviation, rel=0.05)
        assert direction.normal[np.argmax(np.abs(direction.normal))] > 0
    assert [d.name for d in found] == ["pc1", "pc2", "pc3"]
    assert found[0].report["variance_explained"] == pytest.approx(25 / 35.3, rel=0.05)


def test_the_command_writes_components(here: Path, tiny_bundle: Path) -> None:
    assert run(tiny_bundle, "learn", "--method", "pca", "--components", "2", "--samples", "300", "--out", "axes") == 0
    first, second = (load_direction(here / "axes" / f"pc{k}.safetensors") for k in (1, 2))
    codes = Sampler(tiny_generator(), GenerateConfig(truncation=0.7)).codes(range(300))[:, 0]
    unit = first.vector[0] / np.linalg.norm(first.vector)
    assert np.linalg.norm(first.vector) == pytest.approx((codes @ unit).std(), rel=1e-3)
    assert abs(first.vector[0] @ second.vector[0]) < 1e-4 and first.space == "w" and "GANSpace" in first.meta["made"]


def test_styles_are_named_by_layer_and_channel() -> None:
    sizes = {"input": 4, "L0_36_16": 3, "L1_36_8": 5}
    assert [channel_name(sizes, k) for k in (0, 3, 4, 6, 7, 11)] == [
        "input:0",
        "input:3",
        "L0:0",
        "L0:2",
        "L1:0",
        "L1:4",
    ]


def test_locality_is_1_for_a_point_and_0_for_all_alike() -> None:
    point, flat, half = torch.zeros(1, 3, 10, 10), torch.ones(1, 3, 10, 10), torch.zeros(1, 3, 10, 10)
    point[0, :, 4, 4], half[0, :, :5] = 2.0, -1.0
    assert [float(locality(x)[0]) for x in (point, flat, half)] == pytest.approx([0.99, 0.0, 0.5])


def test_the_style_that_an_attribute_answers_to_moves_it_as_said(
    here: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sg3cli.training.directions.learn.CANDIDATES", 6)
    (here / "net.onnx").write_bytes(mean_colours(16))
    learn = ["learn", "--method", "channels", "--classifier", "net.onnx", "--attributes", "red,green,blue"]
    assert run(tiny_bundle, *learn, "--classifier-input", "16", "--samples", "100", "--share", "0.2", "--out", "s") == 0
    bundle, red = load_model(tiny_bundle), load_direction(here / "s" / "red.safetensors")
    place = int(np.flatnonzero(red.vector[0])[0])
    G = bundle.generator()
    assert np.count_nonzero(red.vector) == 1 and red.space == "s" and red.meta["leak_by"] == "classifier"
    assert abs(red.vector[0, place]) == pytest.approx(statistics(G, "s").std[place], rel=1e-5)
    assert red.meta["channels"][0]["style"] == channel_name(bundle.config.style_sizes, place)
    (edit,) = load_edits([make_edit(str(here / "s" / "red.safetensors"), "2")], bundle, LoadedNets()).edits
    codes = Codes(Sampler(G, GenerateConfig(truncation=0.7)).codes(range(8)))
    back = load_edits([make_edit(str(here / "s" / "red.safetensors"), "-2")], bundle, LoadedNets()).edits[0]
    after, before = (draw(G, one.apply(codes, np.zeros(8))).clamp(-1, 1).mean((2, 3)) for one in (edit, back))
    spread = np.loadtxt(here / "s" / "labels.csv", delimiter=",", skiprows=1)[:, 1:].std(0)
    moved = (after - before).mean(0).numpy() / 4 / spread
    assert moved[0] > 0.05 and moved == pytest.approx([red.meta["leak"][n] for n in ("red", "green", "blue")], abs=0.02)
    scores = [abs(c["answer"]) * c["locality"] for c in red.meta["channels"]]
    assert scores == sorted(scores, reverse=True) and len(scores) > 5


# ---- balance


def test_where_a_picture_comes_from_is_not_learned_when_it_is_balanced() -> None:
    """An attribute of codes that also carry their source, which is where the high scores mostly are."""
    rng = np.random.default_rng(0)
    source = rng.random(4000) < 0.5
    codes = rng.normal(size=(4000, 8))
    scores = codes[:, 0] + 2.0 * source + 0.1 * rng.normal(size=4000)
    codes[:, 1] += 4.0 * source
    groups = ["film" if one else "photo" for one in source]
    for method in ("logistic", "regression"):
        config = TrainDirectionsConfig(method, share=0.1)
        blind = fit_directions(("x",), codes, scores[:, None], config)["x"].normal
        aware = fit_directions(("x",), codes, scores[:, None], config, groups)["x"].normal
        assert abs(blind[1]) > 0.4 and abs(aware[1]) < 0.1 and aware[0] > 0.95, method


def test_balanced_ends_have_as_many_of_each_group() -> None:
    scores = np.array([*range(40), *np.zeros(10), *np.ones(20), *np.full(9, 5.0)], float)
    groups = [*["a"] * 40, *["b"] * 30, *["c"] * 9]
    low, high = balanced_ends("x", scores, 0.25, groups)
    for group in "abc":
        members = {i for i, each in enumerate(groups) if each == group}
        assert len(members & set(low.tolist())) == len(members & set(high.tolist()))
    assert set(low[:10].tolist()) == set(range(10)) and set(high[:10].tolist()) == set(range(30, 40))
    assert (scores[low] < scores[high].max()).all() and not {i for i in low if groups[i] == "c"}
    with pytest.raises(UsageError, match="within no group"):
        balanced_ends("x", np.array([0.0] * 20 + [1.0] * 20), 0.2, ["a"] * 20 + ["b"] * 20)


def test_the_table_s_column_of_sources_may_be_words(here: Path, tiny_bundle: Path) -> None:
    ws = Sampler(tiny_generator(), GenerateConfig(truncation=0.7)).codes(range(120))[:, 0]
    rows = [f"{k},{w[0]:.6f},{'film' if w[1] > 0 else 'photo'}" for k, w in enumerate(ws)]
    (here / "t.csv").write_text("seed,x,source\n" + "\n".join(rows))
    learn = ["learn", "--labels", "t.csv", "--balance", "source", "--method", "logistic", "--share", "0.2"]
    assert run(tiny_bundle, *learn, "--out", "d") == 0
    found = load_direction(here / "d" / "x.safetensors")
    assert sorted(path.name for path in (here / "d").iterdir()) == ["report.json", "x.safetensors"]
    assert found.meta["leak"]["x"] > 0.3 and found.meta["leak_by"] == "labels" and found.meta["made"]
    assert run(tiny_bundle, *learn[:-4], "--balance", "colour", "--out", "e") == 2


def test_the_mean_code_of_a_seed_is_what_z_gives() -> None:
    """The codes that directions are learned on are those of the space's own type."""
    G = tiny_generator()
    z = torch.from_numpy(np.random.RandomState(3).randn(1, 32)).float()
    learned = Sampler(G, GenerateConfig(truncation=0.7)).codes([3])[:, 0]
    assert Z(z).to_w(G, 0.7).values.numpy() == pytest.approx(learned, abs=1e-6)


def test_an_attribute_net_labels_the_model_s_own_pictures(here: Path, tiny_bundle: Path) -> None:
    net = AttributeNet(AttributeNetConfig(("light", "smile"), people=1))
    save_attribute_net(here / "probe.safetensors", net)
    learn = ["learn", "--classifier", "probe.safetensors", "--samples", "60", "--share", "0.2", "--method", "logistic"]
    learn += ["--classifier-input", "64"]
    assert run(tiny_bundle, *learn, "--out", "all") == 0
    assert run(tiny_bundle, *learn, "--attributes", "smile", "--out", "s") == 0
    assert sorted(path.stem for path in (here / "all").glob("*.safetensors")) == ["light", "smile"]
    both, one = (np.loadtxt(here / name / "labels.csv", delimiter=",", skiprows=1) for name in ("all", "s"))
    assert one.shape == (60, 2) and both[:, 2] == pytest.approx(one[:, 1])
    images = draw(tiny_generator(), Codes(Sampler(tiny_generator(), GenerateConfig(truncation=0.7)).codes(range(3))))
    stored = load_attribute_net(here / "probe.safetensors")
    expected = stored.attributes(torch.nn.functional.interpolate(images.clamp(-1, 1), (64, 64), mode="bilinear"))
    assert both[:3, 1:] == pytest.approx(expected.numpy(), abs=1e-4)
    assert run(tiny_bundle, *learn, "--attributes", "hat", "--out", "x") == 2

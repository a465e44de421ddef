"""From what an edit says to what it does: right sign, layer and unit, in W and in S, through every command."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from tiny import random_direction

from sg3cli import cli
from sg3cli.drawing.images import read_image
from sg3cli.errors import ModelError, UsageError
from sg3cli.files import write_arrays
from sg3cli.latents.codes import Codes
from sg3cli.latents.edits import Edit, apply_edits, make_edit, parse_edit
from sg3cli.latents.rendering import draw, to_uint8
from sg3cli.latents.sampling import GenerateConfig, Sampler
from sg3cli.latents.spaces import statistics
from sg3cli.pipeline.finetune import tuned_generator
from sg3cli.pipeline.load_edits import check_edits, load_edits
from sg3cli.project import Project
from sg3cli.weights.bundle import Bundle, load_model
from sg3cli.weights.direction_tools import write_direction
from sg3cli.weights.loaded_nets import LoadedNets


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return load_model(tiny_bundle)


def loaded(edit: Edit, bundle: Bundle) -> Edit:
    return load_edits([edit], bundle, LoadedNets()).edits[0]


def some_codes(bundle: Bundle, count: int = 3) -> Codes:
    return Codes(Sampler(bundle.generator(), GenerateConfig()).codes(range(count)))


def test_a_channel_moves_one_style_by_standard_deviations(bundle: Bundle) -> None:
    G, codes = bundle.generator(), some_codes(bundle)
    moved = loaded(parse_edit("L2:3=-2"), bundle).apply(codes, np.zeros(3))
    sizes = list(bundle.config.style_sizes.values())
    place = sum(sizes[:3]) + 3  # after the input, L0 and L1
    with torch.no_grad():
        styles = [G.synthesis.style_space(torch.from_numpy(codes.ws)) for _ in range(2)]
        name = next(name for name in G.layer_names if name.startswith("L2_"))
        deviation = statistics(G, "s").std[place]
        styles[1][name][:, 3] -= 2 * deviation
        assert moved.shift is not None and np.flatnonzero(moved.shift[0]).tolist() == [place]
        by_hand = G.synthesis.from_styles(styles[1])
    assert 0.1 * styles[0][name][:, 3].std() < deviation  # of this very channel
    assert torch.allclose(draw(G, moved), by_hand, atol=1e-6)
    assert (by_hand - G.synthesis.from_styles(styles[0])).abs().max() > 1e-3


def test_a_direction_says_that_it_keeps_the_hue_of_skin(bundle: Bundle, tmp_path: Path) -> None:
    for name, meta in (("kept", {"hue": "kept"}), ("changed", {"hue": "changed"}), ("silent", {})):
        path = tmp_path / f"{name}.safetensors"
        direction = replace(bundle.directions["age"], name=name)
        write_direction(path, replace(direction, meta={**direction.meta, **meta}))
        assert loaded(parse_edit(f"{path}=1"), bundle).keeps == ({"hue"} if name == "kept" else set())
    assert not loaded(parse_edit("L2:3=1"), bundle).keeps


def test_imported_statistics_set_the_unit_of_channels(tiny_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "model")
    bundle = load_model(tmp_path / "model")
    channels = sum(bundle.config.style_sizes.values())
    std = np.arange(channels, dtype=np.float32)
    write_arrays(tmp_path / "model" / "stylespace.safetensors", {"mean": std, "std": std})
    found = load_edits([parse_edit("input:2=3")], bundle, LoadedNets())
    moved = found.edits[0].apply(some_codes(bundle, 1), np.zeros(1))
    assert moved.shift is not None and moved.shift[0, 2] == 6 and np.count_nonzero(moved.shift) == 1
    assert list(found.digests) == ["stylespace.safetensors"]


def test_what_a_model_does_not_have_is_named(bundle: Bundle) -> None:
    for text, cause in (("L7:0=1", "layer"), ("L2:99=1", "channel"), ("input:4=1", "channel"), ("hat=1", "hat")):
        with pytest.raises(UsageError, match=cause):
            check_edits([parse_edit(text)], bundle)
    with pytest.raises(UsageError, match="layer 0"):
        check_edits([make_edit("age", "1", "0-3", "s")], bundle)
    with pytest.raises(UsageError, match="layer 9"):
        check_edits([make_edit("age", "1", "1-9")], bundle)


@pytest.mark.parametrize("layers", [None, "2-4"])
def test_a_direction_of_w_does_the_same_in_s(bundle: Bundle, layers: str | None) -> None:
    G, codes, times = bundle.generator(), some_codes(bundle), np.array([0.0, 1.0, 2.0])
    edits = [make_edit("age", "0s:0,2s:3", layers, space) for space in ("w", "s")]
    in_w, in_s = (loaded(edit, bundle).apply(codes, times) for edit in edits)
    assert in_w.shift is None and (in_s.ws == codes.ws).all()
    assert torch.allclose(draw(G, in_w), draw(G, in_s), atol=1e-5)
    assert torch.allclose(draw(G, in_s)[0], draw(G, codes)[0], atol=1e-5)
    assert (draw(G, in_s) - draw(G, codes)).abs()[2].max() > 1e-3


def test_a_direction_of_s_is_taken_from_its_file_and_brought_to_w(bundle: Bundle, tmp_path: Path) -> None:
    sizes = bundle.config.style_sizes
    vector = np.random.default_rng(0).normal(size=sum(sizes.values())).astype(np.float32)
    path = tmp_path / "mine.safetensors"
    write_arrays(path, {"direction": vector}, {"space": "s", "generator": bundle.digest})
    edit = load_edits([parse_edit(f"{path}=2")], bundle, LoadedNets())
    moved = edit.edits[0].apply(some_codes(bundle, 1), np.zeros(1))
    assert moved.shift is not None and not moved.shift[0, :4].any()  # the input stays unless layer 0 is asked for
    assert moved.shift[0, 4:] == pytest.approx(2 * vector[4:]) and edit.notices == []
    brought = load_edits([make_edit(str(path), "2", None, "w")], bundle, LoadedNets())
    ws = brought.edits[0].apply(some_codes(bundle, 1), np.zeros(1)).ws
    assert (ws[0, 1:] != some_codes(bundle, 1).ws[0, 1:]).any() and "lies beyond W+" in brought.notices[0]
    one_layer = loaded(make_edit(str(path), "1", "3"), bundle).apply(some_codes(bundle, 1), np.zeros(1))
    assert one_layer.shift is not None
    names = np.repeat(list(sizes), list(sizes.values()))
    assert set(names[np.flatnonzero(one_layer.shift[0])]) == {list(sizes)[3]}


def test_a_direction_of_another_generator_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    save_file({"direction": np.ones((1, 31), np.float32)}, tmp_path / "x.safetensors")
    with pytest.raises(ModelError, match="1x31"):
        check_edits([parse_edit(f"{tmp_path / 'x.safetensors'}=1")], bundle)


def test_styles_are_rendered_frame_by_frame_through_the_tuned_generator(
    tuned: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A channel with keyframes beside a direction: `render` draws what the algebra says, transforms included."""
    shutil.copytree(tuned, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    assert cli.run(["edit", "talk.sg3", "--channel", "L2:3=0s:0,0.4s:+8", "-q"]) == 0
    assert cli.run(["render", "talk.sg3", "-o", "out/%04d.png", "--view", "face", "--smooth", "none", "-q"]) == 0
    project = Project.open(Path("talk.sg3"))
    assert [edit.title for edit in project.edits] == ["age", "L2:3"]
    track, codes = project.track(), np.load("talk.sg3/invert/ws.npy")
    G = tuned_generator(project, bundle, True)
    edits = load_edits(project.edits, bundle, LoadedNets()).edits
    moved = apply_edits(Codes(codes), track.times, edits)
    place = list(bundle.config.style_sizes)[3]
    for frame, path in enumerate(sorted(Path("out").glob("*.png"))):
        strength, age = 8 * min(track.times[frame] / 0.4, 1), 2 * min(track.times[frame] / 0.4, 1)
        ws = torch.from_numpy(codes[frame : frame + 1]).clone()
        ws[:, 1:] += age * random_direction(0)[1:]
        with torch.no_grad():
            styles = G.synthesis.style_space(ws)
            styles[place][:, 3] += strength * statistics(bundle.generator(), "s").std[4 + 16 + 16 + 3]
            transform = torch.from_numpy(track.transforms[frame]).float()
            by_hand = to_uint8(G.synthesis.from_styles(styles, transform))[0]
        assert np.abs(read_image(path).astype(int) - by_hand).max() <= 1, frame
    assert moved.shift is not None and np.abs(moved.shift[-1]).max() > 0
    assert not np.array_equal(to_uint8(draw(G, moved))[-1], to_uint8(draw(G, Codes(moved.ws)))[-1])


def test_sweeps_previews_and_generated_faces_take_channels_too(
    tuned: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tuned, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    assert cli.run(["evaluate", "talk.sg3", "--sweep", "L2:3=-8,0,8", "--every", "6", "--grid", "s.png", "-q"]) == 0
    rows = np.split(read_image(Path("s.png")).astype(int), 4)
    assert [np.abs(row - rows[2]).max() > 2 for row in rows[1:]] == [True, False, True]
    look = ["preview", "talk.sg3", "--at", "0.2s", "--no-labels", "--columns", "edits", "--view", "face", "-q"]
    for name, more in (("a", ["--channel", "L2:3=8"]), ("b", ["--channel", "L2:3=1e-6"]), ("c", ["--edit", "L2:3=8"])):
        assert cli.run([*look, "-o", f"{name}.png", *more]) == 0
    a, b, c = (read_image(Path(f"{name}.png")).astype(int) for name in "abc")
    assert np.array_equal(a, c) and np.abs(a - b).max() > 2
    make = ["generate", "--model", str(tiny_bundle), "--seeds", "0-3", "-q"]
    assert cli.run([*make, "-o", "plain.png"]) == 0 and cli.run([*make, "-o", "moved.png", "--channel", "L2:3=8"]) == 0
    assert np.abs(read_image(Path("plain.png")).astype(int) - read_image(Path("moved.png"))).max() > 2
    assert cli.run([*make, "-o", "x.png", "--channel", "L9:0=1"]) == 2

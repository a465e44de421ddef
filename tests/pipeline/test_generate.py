"""`sg3 generate`: seeds that can be looked up, images that move as the words say, outputs whole or absent."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from tiny import make_tiny_bundle, tiny_config, tiny_generator

from sg3cli import cli
from sg3cli.cli.edit_flags import asked_edits
from sg3cli.cli.generate import check_constant, kind_of, parse_seeds
from sg3cli.drawing.images import grid
from sg3cli.errors import UsageError
from sg3cli.files import digest_of
from sg3cli.latents.edits import with_edits
from sg3cli.latents.sampling import GenerateConfig, Sampler, closed_path, latent
from sg3cli.nets.checkpoint import save_generator
from sg3cli.nets.generator import Generator
from sg3cli.pipeline.generate import GRID_PIXELS, check_grid
from sg3cli.weights.bundle import load_model

SIZE = 32


@pytest.fixture
def here(tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder in which the tiny model is the one that is used."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SG3_INVERT_MODEL", str(tiny_bundle))
    monkeypatch.setenv("SG3_CONFIG", str(tmp_path / "user.toml"))
    return tmp_path


@pytest.fixture(scope="module")
def sampler(tiny_bundle: Path) -> Sampler:
    return Sampler(load_model(tiny_bundle).generator(), GenerateConfig(batch=3))


def conditional_generator(classes: int) -> Generator:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return Generator(tiny_config(c_dim=classes)).eval().requires_grad_(False)


def run(*arguments: object) -> int:
    return cli.run(["generate", "-q", *map(str, arguments)])


def png(path: Path | str) -> np.ndarray:
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def tiles(tiled: np.ndarray, columns: int) -> list[np.ndarray]:
    rows = len(tiled) // SIZE
    return [tiled[y * SIZE :, x * SIZE :][:SIZE, :SIZE] for y in range(rows) for x in range(columns)]


def frames(path: Path | str) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(np.square((a.astype(np.float64) - b) / 255).mean() + 1e-12))


def likeness(a: np.ndarray, b: np.ndarray, margin: int = 3) -> float:
    """Correlation of two images away from their borders."""
    inner = slice(margin, -margin)
    return float(np.corrcoef(a[inner, inner].ravel(), b[inner, inner].ravel())[0, 1])


# ---- seeds


def test_a_seed_is_that_of_the_published_tools() -> None:
    known = [1.76405235, 0.40015721, 0.97873798]  # numpy.random.RandomState(0).randn(...)
    assert np.allclose(latent(0, 3), known)
    assert np.array_equal(latent(7, 4), np.random.RandomState(7).randn(1, 4)[0])


def test_a_seed_gives_the_same_in_any_company(sampler: Sampler) -> None:
    together, alone = sampler.codes([4, 9, 2]), sampler.codes([9])
    assert together.shape == (3, 8, 32) and np.array_equal(together[1], alone[0])
    assert not np.array_equal(together[0], together[1])
    many, one = list(sampler.images([4, 9, 2, 5])), list(sampler.images([5]))
    assert len(many) == 4 and int(np.abs(many[3].astype(int) - one[0]).max()) <= 1


def test_the_image_is_what_the_generator_makes_of_that_noise(sampler: Sampler) -> None:
    z = torch.from_numpy(np.random.RandomState(6).randn(1, 32)).float()
    with torch.inference_mode():
        image = sampler.G(z)[0].permute(1, 2, 0).numpy()
    expected = np.rint((image + 1) * 127.5).clip(0, 255)
    assert np.abs(next(sampler.images([6])) - expected).max() <= 1


@pytest.mark.parametrize(
    ("text", "seeds"), [("3", [3]), ("0-3,20", [0, 1, 2, 3, 20]), ("5,1, 5", [5, 1, 5]), ("4294967295", [2**32 - 1])]
)
def test_lists_of_seeds(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "3-1", "-1", "1,,2", "1.5", "4294967296", "0-4294967295", "0-3-5", "٣x"])
def test_lists_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="seeds") as caught:
        parse_seeds(text)
    assert caught.value.hint


# ---- codes


def test_truncation_pulls_the_first_codes_to_the_average(sampler: Sampler) -> None:
    G, average = sampler.G, sampler.G.mapping.w_avg.numpy()
    whole = sampler.codes([1])[0]
    half = Sampler(G, GenerateConfig(truncation=0.5)).codes([1])[0]
    first = Sampler(G, GenerateConfig(truncation=0.0, cutoff=3)).codes([1])[0]
    assert np.allclose(half, (whole + average) / 2, atol=1e-6)
    assert np.allclose(first[:3], average) and np.array_equal(first[3:], whole[3:])
    with pytest.raises(UsageError, match="truncation-cutoff is 9"):
        Sampler(G, GenerateConfig(cutoff=9))


def test_classes_of_a_conditional_model() -> None:
    G = conditional_generator(3)
    codes = [Sampler(G, GenerateConfig(label=k)).codes([0]) for k in range(3)]
    assert not np.allclose(codes[0], codes[1]) and not np.allclose(codes[1], codes[2])
    for label in (None, 3, -1):
        with pytest.raises(UsageError, match="class") as caught:
            Sampler(G, GenerateConfig(label=label))
        assert "0 to 2" in caught.value.hint
    with pytest.raises(UsageError, match="has no classes"):
        Sampler(tiny_generator(), GenerateConfig(label=0))


@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_walk_meets_its_seeds_and_closes_smoothly(count: int) -> None:
    points = np.random.default_rng(0).standard_normal((count, 4)).astype(np.float32)
    path = closed_path(points)
    assert np.allclose(path(np.arange(count) / count), points, atol=1e-6)
    assert np.allclose(path(np.array([1.0, 1.25])), path(np.array([0.0, 0.25])), atol=1e-6)
    shares = np.linspace(0, 1, 400 * count + 1)
    steps = np.diff(path(shares), axis=0)
    bend = np.diff(np.concatenate([steps, steps[:1]]), axis=0)  # across the seam as well
    assert np.abs(bend).max() < 0.02 * np.abs(steps).max()


def test_a_walk_of_a_grid_has_each_seed_ahead_of_the_one_before(sampler: Sampler) -> None:
    seeds = [3, 1, 2]
    single = list(sampler.walk(seeds, 6))
    cells = list(sampler.walk(seeds, 6, cells=3))
    assert len(single) == 6 and len(cells) == 18
    for frame in range(6):
        for cell in range(3):
            ahead = single[(frame + 2 * cell) % 6]
            assert int(np.abs(cells[3 * frame + cell].astype(int) - ahead).max()) <= 1
    assert all(np.abs(single[2 * k].astype(int) - p).max() <= 1 for k, p in enumerate(sampler.images(seeds)))


# ---- the image's motion


def moved(sampler: Sampler, **motion: object) -> np.ndarray:
    return next(Sampler(sampler.G, GenerateConfig(**motion)).images([1]))


def test_positive_rotation_turns_the_image_counter_clockwise(sampler: Sampler) -> None:
    still = next(sampler.images([1]))
    left, right = moved(sampler, rotate=90.0), moved(sampler, rotate=-90.0)
    assert likeness(left, np.rot90(still)) > 0.999 and likeness(right, np.rot90(still, -1)) > 0.999
    assert likeness(left, np.rot90(still, -1)) < 0.95


@pytest.mark.parametrize(("shift", "axis"), [((0.25, 0.0), 1), ((0.0, 0.25), 0)])
def test_positive_translation_is_right_and_down_in_image_widths(
    sampler: Sampler, shift: tuple[float, float], axis: int
) -> None:
    still, shifted = next(sampler.images([1])), moved(sampler, translate=shift)
    if axis == 0:  # as if it had gone to the right
        still, shifted = still.swapaxes(0, 1), shifted.swapaxes(0, 1)
    assert likeness(shifted[:, 8:], still[:, :-8]) > 0.999
    assert likeness(shifted[:, :-8], still[:, 8:]) < 0.95


def test_scale_enlarges_about_the_centre(sampler: Sampler) -> None:
    still, large = next(sampler.images([1])), moved(sampler, scale=2.0)
    expected = cv2.resize(still[8:24, 8:24], (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    assert likeness(large, expected) > 0.95 > likeness(moved(sampler, scale=0.5), expected)
    assert likeness(large, expected) > likeness(still, expected)


# ---- outputs


def test_several_seeds_make_a_grid_row_by_row(here: Path, sampler: Sampler) -> None:
    assert run("-o", "all.png", "--seeds", "3-7", "--columns", "3") == 0
    tiled = png("all.png")
    assert tiled.shape == (2 * SIZE, 3 * SIZE, 3)
    *shown, last = tiles(tiled, 3)
    for tile, image in zip(shown, sampler.images([3, 4, 5, 6, 7]), strict=True):
        assert np.abs(tile.astype(int) - image).max() <= 1
    assert not last.any()
    record = json.loads((here / "all.png.json").read_text())
    assert record["seeds"] == [3, 4, 5, 6, 7] and record["output"]["sha256"] == digest_of(here / "all.png")
    assert record["models"]["generator"] == load_model(os.environ["SG3_INVERT_MODEL"]).digest
    assert b'iTXtComment\0\0\0\0\0{"sg3":' in (here / "all.png").read_bytes()
    assert sorted(p.name for p in here.iterdir()) == ["all.png", "all.png.json"]


def test_a_name_with_seed_makes_an_image_each(here: Path, sampler: Sampler, capsys: pytest.CaptureFixture) -> None:
    assert run("-o", "face-{seed}.png", "--seeds", "8,2,8", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["schema"], facts["command"], facts["ok"], facts["computed"]) == (1, "generate", True, 2)
    assert facts["outputs"] == ["face-8.png", "face-2.png"] and facts["seeds"] == [8, 2, 8]
    for seed in (2, 8):
        assert np.abs(png(f"face-{seed}.png").astype(int) - next(sampler.images([seed]))).max() <= 1
    assert run("-o", "face-{seed}.png", "--seeds", "2,3", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["computed"] == 1 and "1 of 2 pictures are up to date" in facts["notices"][0]


def test_a_walk_has_the_length_and_rate_that_were_asked_for(here: Path, sampler: Sampler) -> None:
    out = here / "walk.mp4"
    assert run("-o", out, "--seeds", "1-2", "--walk", "0.5", "--fps", "30") == 0
    shown = frames(out)
    assert len(shown) == 15 and shown[0].shape == (SIZE, SIZE, 3)
    expected = list(sampler.walk([1, 2], 15))
    assert min(psnr(a, b) for a, b in zip(shown, expected, strict=True)) > 28
    with av.open(str(out)) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == 30 and float(stream.duration * stream.time_base) == 0.5
        assert json.loads(container.metadata["comment"])["sg3"]["walk"] == 0.5


def test_a_grid_walk_and_edits_over_time(here: Path) -> None:
    walk = ("--seeds", "1-2", "--walk", "0.4", "--fps", "10")
    assert run("-o", "a.mkv", *walk, "--columns", "5") == 0
    assert run("-o", "b.mkv", *walk, "--columns", "2", "--edit", "age=30@0.2s..") == 0
    plain, edited = frames("a.mkv"), frames("b.mkv")
    assert plain[0].shape == (SIZE, 2 * SIZE, 3) and len(plain) == len(edited) == 4
    assert [psnr(a, b) > 30 for a, b in zip(plain, edited, strict=True)] == [True, True, True, False]


def test_standard_output_takes_an_image_or_a_walk(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments in (("--seeds", "1-2"), ("--seeds", "1-2", "--walk", "0.1")):
        pipe = io.TextIOWrapper(io.BytesIO())
        monkeypatch.setattr(sys, "stdout", pipe)
        assert run("-o", "-", *arguments) == 0
        written = pipe.buffer.getvalue()
        if "--walk" in arguments:
            assert written.startswith(b"\x1aE\xdf\xa3")  # Matroska
        else:
            image = cv2.imdecode(np.frombuffer(written, np.uint8), cv2.IMREAD_COLOR)
            assert image.shape == (SIZE, 2 * SIZE, 3) and written.endswith(b"IEND\xaeB`\x82")
    assert list(here.iterdir()) == []


def test_the_same_again_computes_nothing_and_another_is_replaced(here: Path, capsys: pytest.CaptureFixture) -> None:
    for name in ("a.png", "a.mp4"):
        arguments = ("-o", name, "--seeds", "1-2", *(("--walk", "0.1") if name == "a.mp4" else ()))
        assert run(*arguments) == 0
        before = (here / name).stat().st_mtime_ns
        assert cli.run(["generate", *arguments]) == 0
        assert "up to date" in capsys.readouterr().err and (here / name).stat().st_mtime_ns == before
        assert run(*arguments, "--truncation", "0.5") == 0
        assert (here / name).stat().st_mtime_ns != before


def test_a_file_of_somebody_else_is_kept_unless_forced(here: Path) -> None:
    for name in ("a.png", "a.mp4", "face-1.png"):
        (here / name).write_bytes(b"mine")
    assert run("-o", "a.png") == run("-o", "a.mp4") == run("-o", "face-{seed}.png", "--seeds", "0-1") == 2
    assert all((here / name).read_bytes() == b"mine" for name in ("a.png", "a.mp4", "face-1.png"))
    assert not (here / "face-0.png").exists()
    assert run("-o", "a.png", "--seeds", "1", "--force") == 0 and png("a.png").shape == (SIZE, SIZE, 3)


def test_media_never_meets_a_terminal(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert run("-o", "-") == run("-o", "-", "--walk", "1") == 2


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        (["-o", "a.png", "--seeds", "5-x"], 2, "5-x"),
        (["-o", "a.gif"], 2, ".gif"),
        (["-o", "a"], 2, "suffix"),
        (["-o", "a.png", "--truncation", "nan"], 2, "--truncation is nan"),
        (["-o", "a.png", "--truncation-cutoff", "99"], 2, "99"),
        (["-o", "a.png", "--class", "1"], 2, "no classes"),
        (["-o", "a.png", "--translate", "1"], 2, "--translate"),
        (["-o", "a.png", "--translate", "nan,0"], 2, "--translate"),
        (["-o", "a.png", "--scale", "0"], 2, "--scale"),
        (["-o", "a.png", "--rotate", "inf"], 2, "--rotate"),
        (["-o", "a.png", "--walk", "3"], 2, "--walk"),
        (["-o", "a.png", "--fps", "3"], 2, "--fps"),
        (["-o", "a.png", "--edit", "age=1@0s..2s"], 2, "changes with time"),
        (["-o", "a.png", "--edit", "wisdom=1"], 2, "wisdom"),
        (["-o", "a.mp4", "--seeds", "4"], 2, "two seeds"),
        (["-o", "a.mp4", "--walk", "-1"], 2, "--walk is -1"),
        (["-o", "a.mp4", "--fps", "nan"], 2, "--fps is nan"),
        (["-o", "{seed}.png", "--columns", "2"], 2, "--columns"),
        (["-o", "-", "--json"], 2, "stdout"),
        (["-o", "no/such/a.png"], 3, "no/such/a.png"),
        (["-o", "folder.png"], 3, "folder"),
        (["-o", "a.png", "--model", "nobody"], 4, "nobody"),
        (["-o", "a.png", "--device", "cuda:77"], 5, "cuda:77"),
    ],
)
def test_what_cannot_be_is_named_and_writes_nothing(
    here: Path, capsys: pytest.CaptureFixture, arguments: list[str], code: int, what: str
) -> None:
    (here / "folder.png").mkdir()
    assert run(*arguments) == code
    captured = capsys.readouterr()
    error, hint = captured.err.splitlines()
    assert error.startswith("error: ") and what in error and hint.startswith("hint: ")
    assert [p.name for p in here.iterdir()] == ["folder.png"]


def test_a_grid_that_would_not_fit_into_memory_is_refused(sampler: Sampler) -> None:
    assert check_grid(6, 3, 1024) == (3072, 2048)
    most = GRID_PIXELS // 1024**2
    with pytest.raises(UsageError, match="pixels"):
        check_grid(most + 1, 1, 1024)


def test_kinds_of_output_and_edits() -> None:
    assert [kind_of(o, False) for o in ("-", "a.PNG", "{seed}.png", "a.mkv")] == ["grid", "grid", "pictures", "walk"]
    assert kind_of("-", True) == "walk"
    assert [
        e.text for e in check_constant(with_edits([], asked_edits(["age=1", "smile=2", "age=3"], None, None)), "grid")
    ] == ["3", "2"]


def test_tiles_of_a_grid() -> None:
    marked = [np.full((2, 2, 3), k, np.uint8) for k in (1, 2, 3)]
    assert grid(marked, 3, 2, 2)[::2, ::2, 0].tolist() == [[1, 2], [3, 0]]


def test_a_model_with_classes_end_to_end(here: Path) -> None:
    save_generator(make_tiny_bundle(here / "model") / "generator.safetensors", conditional_generator(2))
    for label in (0, 1):
        assert run("-o", f"{label}.png", "--seeds", "1", "--model", "model", "--class", label) == 0
    assert not np.array_equal(png("0.png"), png("1.png"))
    assert run("-o", "c.png", "--model", "model") == 2

"""`sg3 adapt`: drawings go where they shall, what is frozen stays, and the parent's projects go on with the result."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from composed import composed
from running import relocate
from text_reader import install
from tiny import RESOLUTION, make_tiny_bundle

from sg3cli import cli
from sg3cli.compositing.paste import warp_alpha
from sg3cli.drawing.images import read_image, write_png
from sg3cli.errors import ModelError
from sg3cli.nets.checkpoint import save_flow
from sg3cli.nets.code_flow import CodeFlow, CodeFlowConfig
from sg3cli.nets.efficientnet_lite import EfficientNetLite
from sg3cli.nets.generator import Generator
from sg3cli.pipeline import Job
from sg3cli.pipeline.face_paster import FacePaster
from sg3cli.project import Project
from sg3cli.settings import RenderConfig, Settings
from sg3cli.training import run_folder
from sg3cli.training.adaptation import run as runs
from sg3cli.training.adaptation.aims import Aim, BackboneFeatures, towards_pictures
from sg3cli.training.adaptation.bundle import write_adapted
from sg3cli.training.adaptation.trainer import Adapter, Codes, directional_loss, light_change
from sg3cli.training.config import AdaptConfig
from sg3cli.weights.bundle import load_model

RED = ["--from", "a face", "--to", "a red face", "--lr", "0.04", "--batch", "2", "-q"]


@pytest.fixture(scope="module")
def reddened(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model adapted to `a red face`; look at it, do not change it."""
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        install(patch)
        folder = tmp_path_factory.mktemp("adapted") / "reddened"
        assert cli.run(["adapt", "--model", str(tiny_bundle), "--out", str(folder), *RED, "--steps", "14"]) == 0
    return folder


@pytest.fixture
def parent(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny model, in a folder of its own; the text model knows colours only."""
    install(monkeypatch)
    monkeypatch.chdir(tmp_path)
    return tiny_bundle


def redness(images: torch.Tensor) -> float:
    """How much red there is beyond green and blue, of images [N,3,R,R]."""
    return float(images[:, 0].mean() - images[:, 1:].mean())


def faces(G: Generator, count: int = 12) -> torch.Tensor:
    """Drawings of seeds that no training has seen."""
    return runs.drawn(G, Codes(G, AdaptConfig(seed=99)).at(5, count))


def test_drawings_become_what_the_text_says_and_the_rest_of_the_generator_stays(
    reddened: Path, tiny_bundle: Path
) -> None:
    before, after = load_model(tiny_bundle).generator(), load_model(reddened).generator()
    assert redness(faces(after)) > redness(faces(before)) + 0.1
    old = before.state_dict()
    changed = {name for name, value in after.state_dict().items() if not torch.equal(value, old[name])}
    layers = {f"synthesis.{name}.{kind}" for name in before.layer_names for kind in ("weight", "bias")}
    assert changed == layers  # not the mapping, the affine layers, the input


def test_the_result_is_a_model_with_all_that_its_parent_has(reddened: Path, tiny_bundle: Path) -> None:
    child, parent = load_model(reddened), load_model(tiny_bundle)
    assert child.is_adapted and child.digest != parent.digest
    assert child.meta["adapted_from"] == {"name": "tiny", "generator": parent.digest}
    assert child.meta["licence"] == "CC0-1.0" and child.meta["adapted"]["to"] == "a red face"
    assert child.encoder_digest == parent.encoder_digest and child.direction_names() == parent.direction_names()
    assert child.origin.digest == parent.digest and child.origin.name == "tiny" and child.origin.origin is child.origin
    assert parent.origin is parent and not parent.is_adapted
    child.directions["age"].check_fits(child.config, child.origin.digest)
    sheet = read_image(reddened.with_name("reddened.work") / runs.SHEET)
    assert sheet.shape[1] > 8 * 128


def test_a_child_of_a_child_has_the_codes_of_the_first(reddened: Path, parent: Path) -> None:
    assert cli.run(["adapt", "--model", str(reddened), "--out", "again", *RED, "--steps", "1"]) == 0
    again = load_model("again")
    assert again.origin.digest == load_model(parent).digest and again.origin.name == "tiny"
    assert again.meta["adapted"]["beside_generator"] == load_model(reddened).digest


def test_another_parent_is_refused(reddened: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(reddened, tmp_path / "broken")
    shutil.copy(broken / "generator.safetensors", broken / "parent.safetensors")
    with pytest.raises(ModelError, match=r"parent\.safetensors is damaged"):
        _ = load_model(broken).origin
    meta = json.loads((broken / "model.json").read_text())
    del meta["parts"]
    (broken / "model.json").write_text(json.dumps(meta))
    with pytest.raises(ModelError, match="not what reddened was adapted from"):
        _ = load_model(broken).origin
    (broken / "parent.safetensors").unlink()
    with pytest.raises(ModelError, match="lacks parent"):
        _ = load_model(broken).origin


def test_codes_of_aligned_faces_are_those_of_the_parent(reddened: Path, parent: Path, tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8))
    one, other = (runs.given_codes(load_model(path), None, [tmp_path / "a.png"]) for path in (reddened, parent))
    assert one is not None and other is not None and one.shape == (1, 8, 32) and np.array_equal(one, other)


def test_a_flow_goes_on_to_the_child(parent: Path, tmp_path: Path) -> None:
    own = load_model(shutil.copytree(parent, tmp_path / "own"))
    flow = CodeFlow(CodeFlowConfig(("age",), 8, 32, components=8, width=8, blocks=1))
    save_flow(own.path / "flow.safetensors", flow, {"generator": own.digest})
    G = own.generator()
    G.synthesis.layers()[0].bias += 1
    write_adapted(own, G, tmp_path / "child", {})
    child = load_model(tmp_path / "child")
    assert child.digest != own.digest and child.flow().config.labels == ("age",)
    save_flow(child.path / "flow.safetensors", flow, {"generator": child.digest})
    with pytest.raises(ModelError, match="belongs to another generator"):
        child.flow()


class Killed(Exception):
    """What a kill is here."""


def test_a_killed_run_gives_the_same_bytes(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["adapt", "--model", str(parent), *RED]
    assert cli.run([*words, "--steps", "6", "--out", "whole/m"]) == 0
    monkeypatch.setattr(run_folder, "SAVE_SECONDS", -1.0)  # after each step
    plain = Adapter.run

    def killed(self: Adapter):
        for found in plain(self):
            if self.step == 4:
                raise Killed
            yield found

    with monkeypatch.context() as patch:
        patch.setattr(Adapter, "run", killed)
        assert cli.run([*words, "--steps", "6", "--out", "broken/m"]) == 1
    assert torch.load("broken/m.work/state.pt", weights_only=True)["step"] == 3 and not Path("broken/m").exists()
    assert cli.run([*words, "--steps", "6", "--out", "broken/m"]) == 0
    for name in ("generator.safetensors", "model.json"):
        assert Path("whole/m", name).read_bytes() == Path("broken/m", name).read_bytes()


def test_minutes_stop_a_run_that_goes_on_later(parent: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["adapt", "--model", str(parent), *RED[:-1], "--steps", "3", "--out", "m"]
    for step in (1, 2):
        assert cli.run([*words, "--minutes", "0"]) == 0 and f"{step} steps" in capsys.readouterr().err
        assert load_model("m").meta["adapted"]["steps"] == step
    assert cli.run(words) == 0 and "continued at step 2" in capsys.readouterr().err
    assert cli.run([*words, "--lr", "1"]) == 2 and "lr was 0.04" in capsys.readouterr().err


def test_towards_pictures(parent: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("red").mkdir()
    for k in range(3):
        write_png(Path(f"red/{k}.png"), np.full((48, 48, 3), (250, 20 + k, 30), np.uint8))
    bundle = load_model(parent)
    G = bundle.generator()
    codes = Codes(G, AdaptConfig()).at(0, 9)
    np.save("codes.npy", codes.numpy())
    words = ["adapt", "--to-pictures", "red", "--text-model", "clip:ViT-B-32", "--codes", "codes.npy"]
    more = ["--lr", "0.04", "--batch", "2", "--steps", "14", "--out", "m", "--json"]
    assert cli.run([*words, *more, "--model", str(parent)]) == 0
    last = json.loads(capsys.readouterr().out)["last"]
    after = runs.drawn(load_model("m").generator(), codes)
    assert redness(after) > redness(runs.drawn(G, codes)) + 0.1 and 0.1 < last["reached"] < 1.3


def test_the_backbone_says_how_a_picture_is_drawn(tmp_path: Path) -> None:
    torch.manual_seed(0)
    embed = BackboneFeatures(EfficientNetLite())
    x = torch.rand(2, 3, RESOLUTION, RESOLUTION, requires_grad=True)
    rows = embed(x)
    assert rows.norm(dim=1).tolist() == pytest.approx([1, 1], abs=1e-5)
    rows[:, 3].sum().backward()
    assert x.grad is not None and float(x.grad.abs().sum()) > 0
    write_png(tmp_path / "dark.png", np.full((64, 64, 3), 9, np.uint8))
    aim = towards_pictures(embed, "random", [tmp_path / "dark.png"], torch.rand(3, 3, 32, 32))
    assert float(aim.direction.norm()) == pytest.approx(1, abs=1e-5) and aim.facts["features"] == "random"
    dark = embed(torch.full((1, 3, 32, 32), 9 / 127.5 - 1)) - embed(torch.rand(1, 3, 32, 32))
    assert float(dark @ aim.direction) == pytest.approx(aim.distance, rel=0.1)


def test_the_loss_asks_for_the_direction_and_no_more_than_the_way() -> None:
    aim = Aim(lambda x: x, torch.tensor([1.0, 0.0]), 0.5)
    along, aside, beyond, back = (
        float(directional_loss(torch.tensor([change]), aim)) for change in ([0.4, 0], [0, 0.4], [0.9, 0], [-0.4, 0])
    )
    assert along < 0.01 and aside == pytest.approx(1, abs=0.01) and back == pytest.approx(2, abs=0.01)
    assert beyond == pytest.approx(0.64, abs=0.01)
    nothing = torch.zeros(1, 2, requires_grad=True)
    directional_loss(nothing, aim).backward()
    assert nothing.grad is not None and nothing.grad[0].tolist() == pytest.approx([-50, 0])  # 1 / SOFT, finite


def test_keep_pulls_to_light_and_dark_not_to_colour() -> None:
    grey = torch.zeros(1, 3, 32, 32)
    tinted = grey + torch.tensor([0.114, 0.0, -0.299]).view(1, 3, 1, 1)
    assert float(light_change(grey, tinted)) < 1e-10
    assert float(light_change(grey, grey + 0.5)) == pytest.approx(0.25, rel=1e-3)


# ---- projects ------------------------------------------------------------------------------------------------------


@pytest.fixture
def project(tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project that the parent has inverted, tuned and edited."""
    shutil.copytree(tuned, tmp_path, dirs_exist_ok=True)
    relocate(tmp_path / "talk.sg3", tuned, tmp_path)
    monkeypatch.chdir(tmp_path)
    return Project.open(tmp_path / "talk.sg3")


def render(out: str, *words: str) -> dict[str, object]:
    """`sg3 run` on the project: its answer."""
    said = io.StringIO()
    tuning = ["--finetune-steps=3", "--finetune-batch=2", "--loss=structural"]
    with contextlib.redirect_stdout(said):
        assert cli.run(["run", "talk.sg3", "-o", out, *tuning, *words, "--json"]) == 0
    answer: dict[str, object] = json.loads(said.getvalue())["stages"]
    return answer


def first_frame(path: str) -> np.ndarray:
    from sg3cli.video import VideoReader

    with VideoReader(path) as reader:
        return next(iter(reader)).rgb.astype(float)


def test_a_project_of_the_parent_goes_on_with_the_child(
    project: Project, reddened: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    child, parent = str(reddened), str(tiny_bundle)
    for view in ("face", "frame"):
        before = render("before.mp4", "--model", parent, f"--view={view}")
        after = render("after.mp4", "--model", child, f"--view={view}")
        for stages in (before, after):
            assert [stages[name]["status"] for name in ("align", "invert", "finetune")] == ["up to date"] * 3
        assert after["render"]["status"] == "done" and after["render"]["key"] != before["render"]["key"]
        a, b = first_frame("before.mp4"), first_frame("after.mp4")
        redder = (b[..., 0] - b[..., 1:].mean(-1)) - (a[..., 0] - a[..., 1:].mean(-1))
        assert redder.mean() > (8 if view == "face" else 0.2)
    record = json.loads(Path("after.mp4.json").read_text())["models"]
    digests = [load_model(path).digest for path in (reddened, tiny_bundle)]
    assert [record["adapted"]["generator"], record["generator"]] == digests
    assert Project.open(project.path).record("invert").params["model"] == child  # what `sg3 render` goes on with
    capsys.readouterr()
    assert cli.run(["preview", "talk.sg3", "-o", "look.png", "--view", "face", "--at", "0s"]) == 0
    assert "inverted anew" not in capsys.readouterr().err
    assert cli.run(["edit", "talk.sg3", "--edit", "smile=1", "-q"]) == 0
    assert Job(project, Settings().having(invert={"model": child})).key("invert", job_parts(project, child)) == (
        Job(project, Settings().having(invert={"model": parent})).key("invert", job_parts(project, parent))
    )


def test_the_seam_of_a_child_is_tuned_on_the_child(project: Project, reddened: Path, tiny_bundle: Path) -> None:
    """What is tuned to meet the frame is what draws the edited faces; inside it stays as red as the child draws."""
    project.edits = []
    track, found = project.track(), {}
    for stitch, model in (("paste", reddened), ("tune", reddened), ("none", tiny_bundle)):
        more = {"stitch": stitch, "stitch_steps": 12, "stitch_threshold": 0.0, "protect": "none", "detail": 0.0}
        rings, middles = [], []
        for index, (before, after) in enumerate(composed(project, model, **more)):
            paster = FacePaster(track, RenderConfig(protect="none"), RESOLUTION)
            alpha = warp_alpha(paster.opacity(index), paster.window(index), before.shape[:2])
            change = after.astype(float) - before
            rings.append(np.abs(change)[(alpha > 0.3) & (alpha < 0.7)].mean())
            middles.append((change[..., 0] - change[..., 1:].mean(-1))[alpha > 0.95].mean())
        found[stitch] = np.mean(rings), np.mean(middles)
    assert found["tune"][0] < 0.8 * found["paste"][0], found
    assert found["tune"][1] > 0.5 * found["paste"][1] + 0.5 * found["none"][1] + 3, found


def job_parts(project: Project, model: str):
    return Job(project, Settings().having(invert={"model": model})).parts("invert")


def test_another_model_s_codes_are_not_taken(project: Project, reddened: Path, tmp_path: Path) -> None:
    from sg3cli.pipeline.invert import load_codes

    assert len(load_codes(project, load_model(reddened).origin.digest)) == 12
    with pytest.raises(ModelError, match="belong to another generator"):
        load_codes(project, load_model(reddened).digest)


# ---- wrong input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "cause"),
    [
        (["--out", "m"], 2, "either --to TEXT or --to-pictures"),
        (["--out", "m", "--to", "red", "--to-pictures", "."], 2, "either --to TEXT or --to-pictures"),
        (["--out", "m", "--to", "red", "--text-model", "clap"], 2, "unknown text model 'clap'"),
        (["--out", "m", "--to", "a photo", "--from", "a photo"], 2, "mean the same"),
        (["--out", "taken", "--to", "red"], 2, "taken holds something else"),
        (["--out", "file", "--to", "red"], 2, "file is a file"),
        (["--out", "m", "--to-pictures", "nowhere"], 3, "no folder nowhere"),
        (["--out", "m", "--to-pictures", "taken"], 3, "no pictures in taken"),
        (["--out", "m", "--to-pictures", "wide.png", "--text-model", "clip:ViT-B-32"], 3, "wide.png is 64x32"),
        (["--out", "m", "--to", "red", "--codes", "gone.npy"], 3, "there is no gone.npy"),
        (["--out", "m", "--to", "red", "--codes", "odd.npy"], 3, "odd.npy holds an array of (2, 3, 4)"),
    ],
)
def test_what_is_wrong_is_named(
    parent: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, cause: str
) -> None:
    make_tiny_bundle(Path("taken"))
    Path("file").write_text("")
    write_png(Path("wide.png"), np.zeros((32, 64, 3), np.uint8))
    np.save("odd.npy", np.zeros((2, 3, 4), np.float32))
    assert cli.run(["adapt", "--model", str(parent), *words]) == code
    assert cause in capsys.readouterr().err and not Path("m").exists()


def test_without_a_backbone_pictures_say_how_to_get_one(
    parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SG3_MODELS", str(tmp_path / "nothing"))
    write_png(Path("a.png"), np.zeros((32, 32, 3), np.uint8))
    assert cli.run(["adapt", "--model", str(parent), "--to-pictures", "a.png", "--out", "m"]) == 4
    assert "sg3 models pull perceptual" in capsys.readouterr().err


def test_an_encoder_is_not_trained_for_it_by_mistake(
    reddened: Path, parent: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("faces").mkdir()
    words = ["train", "encoder", "faces", "--generator", str(reddened), "--work", "work", "--out", "out"]
    assert cli.run(words) == 4 and "was adapted from tiny" in capsys.readouterr().err

"""`sg3 models import`: official files to a bundle that every command takes."""

from __future__ import annotations

import json
import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from official_files import PICKLES, STATE_DICTS, generator_state, golden_file, save_encoder_checkpoint
from tiny import RESOLUTION, make_tiny_bundle, random_direction, tiny_encoder, tiny_generator

from sg3cli import cli
from sg3cli.errors import ModelError, UsageError
from sg3cli.nets import checkpoint as checkpoint_
from sg3cli.nets.restyle import restyle
from sg3cli.video.probe import probe
from sg3cli.weights import convert, store
from sg3cli.weights.bundle import load_model
from sg3cli.weights.convert import Sources, import_bundle
from sg3cli.weights.direction_file import load_direction
from sg3cli.weights.import_networks import read_official
from sg3cli.weights.registry import TABLE, Model, ModelFile

LANDMARKS = store.folder_of("face-mesh")  # before the tests look elsewhere


@pytest.fixture(autouse=True)
def empty_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SG3_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("SG3_CONFIG", str(tmp_path / "none.toml"))
    return tmp_path / "models"


@pytest.fixture
def generator_file(tmp_path: Path) -> Path:
    torch.save(generator_state(), tmp_path / "g.pt")
    return tmp_path / "g.pt"


def take(name: str, generator: Path, encoder: Path | None = None, *directions: Path) -> tuple[dict, bool]:
    return import_bundle(name, Sources(generator, encoder, directions), "the tests", "CC0-1.0")


def visible(folder: Path) -> list[str]:
    """What is in the store, without its locks."""
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


# ---- what an import makes


@pytest.mark.parametrize("name", [*PICKLES.values(), STATE_DICTS[0]])
def test_a_golden_file_becomes_a_bundle_bit_by_bit(tmp_path: Path, name: str) -> None:
    source = golden_file(name, tmp_path)
    meta, made = take("mine", source)
    part, bundle = read_official(source).generator, load_model("mine")
    assert made and part is not None
    G = bundle.generator()
    state = G.state_dict()
    assert list(state) == list(part.state) and G.config == part.config
    assert all(state[key].numpy().tobytes() == values.tobytes() for key, values in part.state.items())
    assert bundle.meta == meta and meta["licence"] == "CC0-1.0" and meta["resolution"] == 32
    assert meta["made_from"]["generator"] == {
        "file": name,
        "bytes": source.stat().st_size,
        "sha256": store.sha256_of(source),
    }
    assert meta["self_check"]["std"] > 0 and not bundle.has_encoder
    assert store.verify("mine") == meta["parts"] == {"generator.safetensors": bundle.digest.removeprefix("sha256:")}


def test_the_same_weights_have_the_same_digest_wherever_they_came_from(tmp_path: Path) -> None:
    """Codes and directions carry it; a file's name or format must not make them foreign."""
    take("one", golden_file(PICKLES["r"], tmp_path))
    for number, name in enumerate(STATE_DICTS):
        take(f"pt{number}", golden_file(name, tmp_path))
        assert load_model(f"pt{number}").digest == load_model("one").digest


def test_an_encoder_checkpoint_is_a_whole_bundle(tmp_path: Path) -> None:
    meta, _ = take("both", save_encoder_checkpoint(tmp_path / "e.pt", "ProgressiveBackboneEncoder"))
    bundle = load_model("both")
    G, encoder = bundle.generator(), bundle.encoder()
    assert encoder.config.kind == "e4e" and meta["encoder"]["options"]["input_nc"] == 6
    expected = tiny_encoder().state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in encoder.state_dict().items())
    with torch.inference_mode():
        ws, image = restyle(encoder, G, torch.zeros(1, 3, RESOLUTION, RESOLUTION), steps=2)
    assert ws.shape == (1, 8, 32) and torch.isfinite(image).all()
    assert set(store.verify("both")) == {"generator.safetensors", "encoder.safetensors"}


def test_generator_encoder_and_directions_from_files_of_their_own(tmp_path: Path, generator_file: Path) -> None:
    np.save(tmp_path / "age_boundary.npy", random_direction(0).numpy()[:1])
    np.save(tmp_path / "smile_boundary.npy", random_direction(1).numpy())
    encoder = save_encoder_checkpoint(tmp_path / "e.pt")
    take("mine", generator_file, encoder, tmp_path / "age_boundary.npy", tmp_path / "smile_boundary.npy")
    bundle = load_model("mine")
    assert bundle.direction_names() == ["age", "smile"] and bundle.has_encoder
    age = load_direction(bundle.direction_path("age"))
    assert (age.vector == random_direction(0).numpy()[:1]).all()
    assert (age.generator, age.meta["unit"]) == (bundle.digest, 1.0)


def test_without_an_encoder_it_generates_and_says_why_it_cannot_invert(generator_file: Path) -> None:
    take("mine", generator_file)
    bundle = load_model("mine")
    assert bundle.generator().img_resolution == RESOLUTION
    for use in (bundle.encoder, lambda: bundle.encoder_digest):
        with pytest.raises(ModelError, match=r"mine has no encoder \(encoder\.safetensors\)") as caught:
            use()
        assert "--encoder" in caught.value.hint


# ---- what does not belong together


def test_an_encoder_for_other_codes_is_refused(tmp_path: Path) -> None:
    torch.save(generator_state(num_layers=7), tmp_path / "g.pt")
    with pytest.raises(ModelError, match="codes of 8x32, the generator takes 9x32"):
        take("mine", tmp_path / "g.pt", save_encoder_checkpoint(tmp_path / "e.pt"))
    assert visible(tmp_path / "models") == []


def test_an_encoder_of_another_mean_code_is_noticed(tmp_path: Path) -> None:
    torch.save(generator_state(seed=5), tmp_path / "g.pt")
    meta, _ = take("mine", tmp_path / "g.pt", save_encoder_checkpoint(tmp_path / "e.pt"))
    assert any("belong together" in notice for notice in meta["notices"])
    meta, _ = take("own", save_encoder_checkpoint(tmp_path / "e.pt"))
    assert all("published values are assumed" in notice for notice in meta["notices"])


def test_parts_in_the_wrong_place_are_named(tmp_path: Path, generator_file: Path) -> None:
    with pytest.raises(ModelError, match=r"g\.pt holds no encoder"):
        take("mine", generator_file, generator_file)
    state = {f"encoder.{key}": value for key, value in tiny_encoder().state_dict().items()}
    torch.save({"state_dict": state, "opts": {"encoder_type": "BackboneEncoder"}}, tmp_path / "e.pt")
    with pytest.raises(ModelError, match="an encoder and no generator") as caught:
        take("mine", tmp_path / "e.pt")
    assert "--encoder" in caught.value.hint


def test_directions_of_another_generator_or_shape_are_refused(tmp_path: Path, generator_file: Path) -> None:
    np.save(tmp_path / "wide.npy", np.ones((1, 512), np.float32))
    with pytest.raises(ModelError, match="1x512"):
        take("mine", generator_file, None, tmp_path / "wide.npy")
    foreign = make_tiny_bundle(tmp_path / "tiny") / "directions" / "age.safetensors"
    torch.save(generator_state(seed=3), tmp_path / "other.pt")
    with pytest.raises(ModelError, match="another generator"):
        take("mine", tmp_path / "other.pt", None, foreign)
    (tmp_path / "again").mkdir()
    for path in (tmp_path / "age.npy", tmp_path / "again" / "age_boundary.npy"):
        np.save(path, np.ones((1, 32), np.float32))
    with pytest.raises(UsageError, match="two directions are called age"):
        take("mine", generator_file, None, tmp_path / "age.npy", tmp_path / "again" / "age_boundary.npy")
    assert visible(tmp_path / "models") == []


# ---- the self-check


def test_the_self_check_finds_a_tensor_that_changed(generator_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = checkpoint_.save_generator
    monkeypatch.setattr(convert, "save_generator", lambda path, G: exact(path, G, dtype=torch.float16))
    with pytest.raises(ModelError, match="changed while it was converted"):
        take("mine", generator_file)
    assert not store.has_bundle("mine")


def test_the_self_check_finds_a_generator_that_renders_nothing(tmp_path: Path) -> None:
    state = generator_state()
    name = next(key for key in state if key.endswith("magnitude_ema"))
    state[name] = torch.tensor(-1.0)  # finite, but its root is not
    torch.save(state, tmp_path / "g.pt")
    with pytest.raises(ModelError, match="renders values that are not finite"):
        take("mine", tmp_path / "g.pt")
    assert not store.has_bundle("mine")


# ---- once, atomically, under a lock


def test_the_same_files_again_are_no_work_and_others_are_no_replacement(tmp_path: Path, generator_file: Path) -> None:
    assert take("mine", generator_file)[1]
    renamed = Path(shutil.copy(generator_file, tmp_path / "renamed.pt"))
    assert not take("mine", renamed)[1]
    torch.save(generator_state(seed=9), tmp_path / "other.pt")
    with pytest.raises(UsageError, match="already here") as caught:
        take("mine", tmp_path / "other.pt")
    assert "sg3 models remove mine" in caught.value.hint
    assert take("mine", generator_file, save_encoder_checkpoint(tmp_path / "e.pt"))[1]  # an encoder may come later
    assert load_model("mine").has_encoder


def test_a_failed_update_leaves_the_model_as_it_was(tmp_path: Path, generator_file: Path) -> None:
    take("mine", generator_file, save_encoder_checkpoint(tmp_path / "e.pt"))
    before = {path.name: path.read_bytes() for path in store.bundle_folder("mine").iterdir()}
    np.save(tmp_path / "wide.npy", np.ones((1, 512), np.float32))
    with pytest.raises(ModelError):
        take("mine", generator_file, None, tmp_path / "wide.npy")
    assert {path.name: path.read_bytes() for path in store.bundle_folder("mine").iterdir()} == before


def test_a_failed_import_leaves_nothing_not_even_its_lock(tmp_path: Path, generator_file: Path) -> None:
    torch.save({"w": torch.zeros(3)}, tmp_path / "bad.pt")
    for name in ("mine", "stylegan3-r-ffhq-1024"):
        with pytest.raises(ModelError):
            take(name, tmp_path / "bad.pt")
    assert [path.name for path in store.models_dir().iterdir() if path.is_file()] == []
    take("mine", generator_file)
    with pytest.raises(ModelError):
        take("mine", generator_file, tmp_path / "bad.pt")
    assert store.has_bundle("mine")


def test_a_reference_picture_tells_whether_the_settings_are_right(tmp_path: Path) -> None:
    """Another `output_scale` leaves no trace in a state dict, and the picture comes out paler."""
    torch.save(generator_state(output_scale=1.0), tmp_path / "g.pt")
    G = tiny_generator(output_scale=1.0)
    with torch.no_grad():
        z = torch.from_numpy(np.random.RandomState(3).randn(1, G.config.z_dim)).float()
        drawn = ((G(z)[0].permute(1, 2, 0) + 1) * 127.5).clamp(0, 255).round().numpy().astype(np.uint8)
    assert drawn.std() > 20
    cv2.imwrite(str(tmp_path / "seed3.png"), drawn[:, :, ::-1])
    line = [
        "models",
        "import",
        str(tmp_path / "g.pt"),
        "--reference",
        str(tmp_path / "seed3.png"),
        "--reference-seed=3",
    ]
    assert cli.run(line) == 4 and not store.has_bundle("g")
    assert cli.run([*line, "--config", "output_scale=1"]) == 0
    meta = json.loads((store.bundle_folder("g") / "model.json").read_text())
    assert meta["self_check"]["reference"]["levels"] < 0.5 and meta["generator"]["config"]["output_scale"] == 1
    assert not any("output_scale" in notice for notice in meta["notices"])
    assert cli.run(["models", "import", str(tmp_path / "g.pt")]) == 2  # the same file with other settings is another


@pytest.mark.parametrize("word", ["nonsense=1", "output_scale=much", "output_scale", "num_layers=1.5", "w_dim=none"])
def test_settings_that_are_none(word: str, generator_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["models", "import", str(generator_file), "--name", "x", "--config", word]) in (2, 4)
    assert "bug in sg3" not in capsys.readouterr().err and not store.has_bundle("x")


def test_what_a_killed_import_left_is_no_model_and_is_cleaned(tmp_path: Path, generator_file: Path) -> None:
    folder = store.bundle_folder("mine")
    (folder / ".staging-mine-x").mkdir(parents=True)
    (folder / "directions").mkdir()
    (folder / "directions" / "old.safetensors").write_bytes(b"half")
    assert not store.has_bundle("mine") and store.imported() == []
    take("mine", generator_file)
    assert sorted(path.name for path in folder.iterdir()) == ["generator.safetensors", "model.json"]


def test_two_imports_at_once_make_one_model(generator_file: Path) -> None:
    results: list[bool] = []
    threads = [threading.Thread(target=lambda: results.append(take("mine", generator_file)[1])) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(results) == [False, True] and store.verify("mine")


def test_damage_is_found_later(generator_file: Path) -> None:
    take("mine", generator_file)
    path = store.bundle_folder("mine") / "generator.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"abcd")
    with pytest.raises(ModelError, match="expected"):
        store.verify("mine")
    path.unlink()
    with pytest.raises(ModelError, match="is missing"):
        store.verify("mine")


def test_a_damaged_model_is_listed_as_such(generator_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    take("mine", generator_file)
    (store.bundle_folder("mine") / "model.json").write_text("{")
    assert cli.run(["models", "list"]) == 0
    assert "mine                       damaged" in capsys.readouterr().out
    assert cli.run(["models", "verify", "mine"]) == 4
    assert store.remove("mine") and store.imported() == []


@pytest.mark.parametrize("name", ["../evil", "a/b", "", ".hidden", "-x", "a b", "x" * 100])
def test_names_cannot_lead_out_of_the_store(tmp_path: Path, generator_file: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be a model's name"):
        take(name, generator_file)
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "model.json").write_text("{}")
    (tmp_path / "models").mkdir()
    with pytest.raises(ModelError, match="no model is called"):
        store.remove("../evil")
    assert (tmp_path / "evil" / "model.json").exists()


# ---- the command


def result(capsys: pytest.CaptureFixture[str]) -> dict:
    return json.loads(capsys.readouterr().out)


def test_the_command_s_result_and_the_commands_around_it(
    tmp_path: Path, generator_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["models", "import", str(generator_file), "--name", "mine", "--licence", "CC0", "--json"]) == 0
    found = result(capsys)
    assert (found["name"], found["path"], found["imported"]) == ("mine", str(store.bundle_folder("mine")), True)
    assert found["licence"] == "CC0" and found["generator"]["config"]["img_resolution"] == RESOLUTION
    assert "without an encoder" in " ".join(found["notices"])
    assert cli.run(["models", "import", str(generator_file), "--name", "mine", "--json"]) == 0
    assert not result(capsys)["imported"]
    assert cli.run(["models", "list", "--json"]) == 0
    (row,) = [row for row in result(capsys)["models"] if row["name"] == "mine"]
    assert row["how"] == "imported" and row["present"]
    for word in ("verify", "path", "pull"):
        assert cli.run(["models", word, "mine", "--json"]) == 0
        assert result(capsys)["ok"]
    assert cli.run(["models", "remove", "mine", "--json"]) == 0
    assert result(capsys)["removed"] and visible(tmp_path / "models") == []
    assert not (tmp_path / "models" / ".mine.lock").exists()
    assert cli.run(["models", "path", "mine"]) == 4


def test_a_name_behind_a_file_is_told_where_it_goes(generator_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["models", "import", str(generator_file), "mine"]) == 2
    told = capsys.readouterr().err
    assert "is a file already" in told and "--name NAME" in told


def test_a_file_called_as_a_row_of_the_table_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = golden_file(PICKLES["t"], tmp_path)
    row = Model("toy", "generator", "NVIDIA's toy", "toy licence", "url", (ModelFile(source.name, "http://x/"),))
    monkeypatch.setitem(TABLE, "toy", row)
    with pytest.raises(ModelError) as caught:
        load_model("toy")
    assert caught.value.hint == "sg3 models import toy"
    assert cli.run(["models", "import", "toy", "--offline"]) == 4
    assert "offline" in capsys.readouterr().err
    assert cli.run(["models", "import", str(source), "--json"]) == 0
    found = result(capsys)
    assert (found["name"], found["licence"], found["source"]) == ("toy", "toy licence", "NVIDIA's toy")
    assert store.is_present("toy") and load_model("toy").generator().img_resolution == 32
    assert store.remove("toy") and not store.is_present("toy")
    assert cli.run(["models", "import", "toy", str(source)]) == 0 and store.is_present("toy")
    store.remove("toy")
    store.folder_of("toy").mkdir()
    shutil.copy(source, store.folder_of("toy"))  # as `models pull` leaves it
    assert cli.run(["models", "import", "toy", "--offline"]) == 0
    assert load_model("toy").meta["resolution"] == 32
    monkeypatch.setitem(TABLE, "toy", replace(row, files=(ModelFile(source.name, "", "0" * 64),)))
    capsys.readouterr()
    assert cli.run(["models", "import", "toy", str(source), "--name", "bad"]) == 4
    assert "sha256" in capsys.readouterr().err


def test_rows_that_need_no_conversion_are_copied_as_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "age.npy", np.ones((1, 512), np.float32))
    assert cli.run(["models", "import", "boundary-age-ffhq", str(tmp_path / "age.npy"), "--json"]) == 0
    assert result(capsys)["path"] == str(store.path_of("boundary-age-ffhq"))
    assert store.is_present("boundary-age-ffhq")


@pytest.mark.parametrize(
    ("line", "code", "word"),
    [
        (["absent.pkl"], 4, "neither a file nor a name"),
        (["nobody", "g.pt"], 4, "no model is called"),
        (["people-128"], 2, "file of people-128"),
        (["boundary-age-ffhq"], 2, "file of boundary-age-ffhq"),
        (["boundary-age-ffhq", "g.pt", "--name", "x"], 2, "--name"),
        (["g.pt", "--name", "people-128"], 2, "people-128 is another model"),
        (["g.pt", "--name", "stylegan3-r-ffhq-1024"], 2, "is another model of the table"),
        (["g.pt", "--name", "../x"], 2, "cannot be a model's name"),
        (["g.pt", "--encoder", "absent.pt"], 4, "absent.pt"),
        (["g.pt", "--directions", "absent.npy"], 4, "absent.npy"),
        (["restyle-psp-ffhq"], 4, "no direct download"),
    ],
)
def test_wrong_lines_name_what_is_wrong(
    generator_file: Path, line: list[str], code: int, word: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(generator_file.parent)
    assert cli.run(["models", "import", *line]) == code
    error = capsys.readouterr().err.strip().splitlines()
    assert word in error[-2] and error[-1].startswith("hint: ")


def test_a_file_given_as_a_model_says_how_to_import_it(generator_file: Path) -> None:
    with pytest.raises(ModelError) as caught:
        load_model(generator_file)
    assert caught.value.hint == f"sg3 models import {generator_file}"


def test_an_imported_model_edits_a_video(
    tmp_path: Path, talk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "models").mkdir()
    os.symlink(LANDMARKS, tmp_path / "models" / "face-mesh")
    np.save(tmp_path / "age_boundary.npy", random_direction(0).numpy()[:1])
    monkeypatch.chdir(tmp_path)
    shutil.copy(talk, tmp_path / "talk.mp4")
    checkpoint = save_encoder_checkpoint(tmp_path / "e.pt")
    line = ["models", "import", str(checkpoint), "--name", "mine", "--directions", "age_boundary.npy", "-q"]
    assert cli.run(line) == 0
    run = ["run", "talk.mp4", "-o", "out.mp4", "--edit", "age=1", "--no-finetune", "-q"]
    assert cli.run([*run, "--model", "mine"]) == 0
    assert probe(tmp_path / "out.mp4").frames == probe(tmp_path / "talk.mp4").frames
    torch.save(tiny_generator().state_dict(), tmp_path / "g.pt")
    assert cli.run(["models", "import", "g.pt", "--name", "half", "-q"]) == 0
    capsys.readouterr()
    assert cli.run(["invert", "talk.mp4", "--model", "half", "--project", "new.sg3"]) == 4
    assert "half has no encoder" in capsys.readouterr().err

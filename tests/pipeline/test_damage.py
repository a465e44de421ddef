"""Damaged projects: a stage is computed again and says so, or the file is named; never another video in silence."""

from __future__ import annotations

import contextlib
import io
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from damage import DAMAGES, files_of
from running import relocate

from sg3cli import cli
from sg3cli.errors import InputError
from sg3cli.files import Chunks, RowFile, digest_of, read_arrays, write_arrays
from sg3cli.manifest import MANIFEST, read_manifest, write_manifest
from sg3cli.project import CODES, DIGESTS, TRACK, Project
from sg3cli.video.segments import EncodedChunks

TUNING = ("--finetune-steps=3", "--finetune-batch=2", "--loss=structural")
KEPT = ("align/faces", "stitch/visible")  # chunks, which hold their own digests; faces: read when others are chosen


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory, tuned: Path, tiny_bundle: Path) -> Path:
    """A folder with `talk.mp4`, its project, and the video that was rendered from it."""
    folder = tmp_path_factory.mktemp("rendered")
    shutil.copytree(tuned, folder, dirs_exist_ok=True)
    relocate(folder / "talk.sg3", tuned, folder)
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        assert cli.run(line(tiny_bundle)) == 0
    return folder


def line(bundle: Path, *more: str) -> list[str]:
    return ["run", "talk.mp4", "-o", "out.mp4", *TUNING, "--model", str(bundle), "--preset=ultrafast", *more]


@pytest.fixture
def renders(
    rendered: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> Callable[..., None]:
    """Damage a file of a copy and render: the same video with a word about the file, or exit 3 that names it."""

    def check(name: str, damage: str, seed: int) -> None:
        folder = tmp_path / f"{name.replace('/', '-')}-{damage}"
        shutil.copytree(rendered, folder)
        relocate(folder / "talk.sg3", rendered, folder)
        (folder / "out.mp4").unlink()
        monkeypatch.chdir(folder)
        DAMAGES[damage](folder / "talk.sg3" / name, random.Random(seed))
        capsys.readouterr()
        code, said = cli.run(line(tiny_bundle)), capsys.readouterr().err
        if code == 0:
            assert digest_of(folder / "out.mp4") == digest_of(rendered / "out.mp4"), f"{name} {damage}"
            silent = (
                name.startswith(KEPT[0])
                or (damage == "deleted" and name.startswith(KEPT[1]))
                or (damage == "deleted" and "smooth-" in name)
            )
            assert silent or f"talk.sg3/{name} is " in said
        else:
            assert code == 3 and f"talk.sg3/{name} is " in said.splitlines()[-2] and not (folder / "out.mp4").exists()
        shutil.rmtree(folder)

    return check


@pytest.mark.parametrize("kind", ["smooth-", "track", "ws.npy", "delta", MANIFEST])
def test_one_flipped_bit_renders_the_same_video_or_none(
    rendered: Path, renders: Callable[..., None], kind: str
) -> None:
    (name,) = (str(path) for path in files_of(rendered / "talk.sg3") if kind in path.name)
    renders(name, "flipped", 5)


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_of_every_file_of_a_project(rendered: Path, renders: Callable[..., None], damage: str) -> None:
    names = [str(path) for path in files_of(rendered / "talk.sg3")]
    assert len(names) > 7
    for seed, name in enumerate(names):
        renders(name, damage, seed)


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_is_seen_before_a_file_is_used(rendered: Path, tmp_path: Path, damage: str) -> None:
    """The same without the work: at five places of every file, that stage or that file and no other is named."""
    path = tmp_path / "talk.sg3"
    shutil.copytree(rendered / "talk.sg3", path)
    for name in files_of(path):
        whole = (path / name).read_bytes()
        for seed in range(5):
            DAMAGES[damage](path / name, random.Random(seed))
            if str(name) == MANIFEST:
                with pytest.raises(InputError, match=rf"{MANIFEST} is (damaged|missing)"):
                    Project.open(path)
            elif str(name).startswith(KEPT):
                assert seen_in_chunks((path / name).parent) == (damage != "deleted")
            else:
                assert named(Project.open(path)) == [str(name)]
            (path / name).write_bytes(whole)
    assert named(Project.open(path)) == []


def seen_in_chunks(folder: Path) -> bool:
    """Whether chunks hold nothing, and say that something was damaged."""
    found = Chunks(folder, "key of no importance")
    assert found.rows == 0
    return bool(found.damaged)


def named(project: Project) -> list[str]:
    """The files that are not what they were."""
    return [name for name in project.manifest[DIGESTS] if project.damage(name)]


# ---- what reads a project's results by itself


def test_a_damaged_result_is_an_error_by_name_for_who_reads_it(rendered: Path, tmp_path: Path) -> None:
    path = tmp_path / "talk.sg3"
    shutil.copytree(rendered / "talk.sg3", path)
    for name, read in ((TRACK, Project.track), (CODES, Project.codes)):
        read(Project.open(path))
        DAMAGES["flipped"](path / name, random.Random(1))
        with pytest.raises(InputError, match=rf"{name} is damaged") as caught:
            read(Project.open(path))
        assert caught.value.hint == f"sg3 {name.split('/')[0]} {path} computes it again"
        (path / name).unlink()
        with pytest.raises(InputError, match=rf"{name} is missing"):
            read(Project.open(path))


def test_a_file_is_read_for_its_digest_once_as_long_as_it_stays(
    rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "talk.sg3"
    shutil.copytree(rendered / "talk.sg3", path)
    project, read = Project.open(path), []
    monkeypatch.setattr("sg3cli.project.digest_of", lambda file: read.append(file) or digest_of(file))
    assert [project.damage(TRACK) for _ in range(3)] == [""] * 3 and len(read) == 1
    DAMAGES["zeroed"](path / TRACK, random.Random(0))
    assert project.damage(TRACK) == "damaged" and len(read) == 2


def test_an_early_project_without_digests_is_used_as_it_is(rendered: Path, tmp_path: Path) -> None:
    path = tmp_path / "talk.sg3"
    shutil.copytree(rendered / "talk.sg3", path)
    manifest = read_manifest(path)
    del manifest[DIGESTS]
    write_manifest(path, manifest)
    project = Project.open(path)
    assert not any(project.damages(stage) for stage in ("align", "invert", "finetune"))
    (path / CODES).write_bytes((path / CODES).read_bytes()[:-10])
    with pytest.raises(InputError, match=r"ws\.npy is damaged"):
        project.codes()


@pytest.mark.parametrize(
    "change", [{"source": None}, {"source": {"path": 3}}, {"stages": []}, {"edits": {}}, {"stream": "x"}]
)
def test_a_manifest_that_does_not_tell_what_it_must(rendered: Path, tmp_path: Path, change: dict) -> None:
    write_manifest(tmp_path, {**read_manifest(rendered / "talk.sg3"), **change})
    with pytest.raises(InputError, match=rf"{MANIFEST} is damaged: it does not tell"):
        Project.open(tmp_path)


# ---- what a stage that was interrupted has left


def test_kept_rows_that_were_damaged_are_dropped_with_those_after_them(tmp_path: Path) -> None:
    whole = Chunks(tmp_path / "parts", "key")
    for first in range(3):
        whole.append({"x": np.arange(first, first + 2.0)}, 2, {"seen": first})
    middle = whole.paths[1].read_bytes()
    for seed, damage in enumerate([*DAMAGES.values()] * 3):
        for path in whole.paths[1:]:
            path.write_bytes(middle if path == whole.paths[1] else path.read_bytes() if path.exists() else b"")
        damage(whole.paths[1], random.Random(seed))
        left = Chunks(tmp_path / "parts", "key")
        assert left.rows == 2 and left.state == {"seen": 0}
        assert [chunk["x"].tolist() for chunk in left] == [[0, 1]]


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_encoded_chunk_that_was_damaged_is_encoded_again(tmp_path: Path, damage: str) -> None:
    rng = random.Random(3)
    for end in (".bin", ".safetensors"):
        kept = EncodedChunks(tmp_path, "key", [2, 4])
        for first in range(kept.rows, 4, 2):
            kept.payload(first).parent.mkdir(exist_ok=True)
            kept.payload(first).write_bytes(rng.randbytes(100))
            rows = [(k, k, 1, 1, 50, 0) for k in range(first, first + 2)]
            kept.append(rows, b"extra", digest_of(kept.payload(first)))
        again = EncodedChunks(tmp_path, "key", [2, 4])
        assert again.rows == 4 and not again.damaged
        DAMAGES[damage](kept.payload(2).with_suffix(end), rng)
        left = EncodedChunks(tmp_path, "key", [2, 4])
        assert left.rows == 2 and sorted(p.name for p in tmp_path.iterdir()) == [
            "000000000.bin",
            "000000000.safetensors",
        ]
        silent = damage == "deleted" and end == ".safetensors"  # as if it had never been finished
        assert left.damaged == ([] if silent else [kept.payload(2)])


def test_arrays_know_their_own_damage_down_to_a_bit(tmp_path: Path) -> None:
    """Every bit of a small file, its names and shapes included; also those of no size."""
    path, rng = tmp_path / "x.safetensors", random.Random(0)
    arrays = {
        "a": np.arange(3, dtype=np.float16),
        "none": np.zeros((0, 4)),
        "one": np.array(7),
        "yes": np.array([True]),
    }
    write_arrays(path, arrays, {"key": "k", "state": {"t": [1.5, None]}})
    found, meta = read_arrays(path)
    assert meta == {"key": "k", "state": {"t": [1.5, None]}} and {k: v.shape for k, v in found.items()} == {
        name: array.shape for name, array in arrays.items()
    }
    whole = path.read_bytes()
    for bit in rng.sample(range(8 * len(whole)), 300):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        try:
            changed, told = read_arrays(path)
        except InputError:
            continue
        same = all((changed[name] == arrays[name]).all() for name in arrays)  # spaces at the header's end
        assert same and told.get("key") == "k" and told["state"] == meta["state"]


def test_rows_of_a_broken_file_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "w.npy"
    for content in (b"", b"\x93NUMPY", b"rubbish" * 30):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"w\.npy"):
            RowFile(path)
    np.save(path, np.array([{}], object), allow_pickle=True)
    with pytest.raises(InputError, match=r"w\.npy"):
        RowFile(path)

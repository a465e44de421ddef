"""The project folder: writes that are whole or absent, keys, locks, identity of the clip, chunks of running stages."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from sg3cli.errors import InputError, UsageError
from sg3cli.files import Chunks, RowFile, atomic_path, npy_writer, read_arrays, write_arrays
from sg3cli.project import Project, Source, content_key


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"not really a video")
    return path


@pytest.fixture
def project(clip: Path, tmp_path: Path) -> Project:
    made = Project.of_source(clip, tmp_path / "a.sg3", {"frames": 3})
    with made.lock("test"):
        made.save()
    return made


# ---- writing


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "x.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(target) as temp:
        temp.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["x.txt"]


def test_a_full_disk_is_an_input_error_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no space left") as caught, atomic_path(tmp_path / "x") as temp:
        temp.write_text("half")
        raise OSError(28, "No space left on device")
    assert str(tmp_path / "x") in str(caught.value) and list(tmp_path.iterdir()) == []


def test_equal_arrays_give_equal_bytes(tmp_path: Path) -> None:
    arrays = {"b": np.arange(6.0).reshape(2, 3), "a": np.arange(3, dtype=np.int64)}
    meta = {"z": 1, "state": {"y": [1.5, 0.1], "x": None}}
    write_arrays(tmp_path / "1", arrays, meta)
    write_arrays(tmp_path / "2", dict(reversed(arrays.items())), dict(reversed(meta.items())))
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    loaded, described = read_arrays(tmp_path / "1")
    assert (loaded["b"] == arrays["b"]).all() and loaded["a"].dtype == np.int64 and described == meta


def test_a_broken_array_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"rubbish")
    with pytest.raises(InputError, match=r"x\.safetensors"):
        read_arrays(tmp_path / "x.safetensors")


def test_rows_are_written_in_chunks_and_read_in_any_order(tmp_path: Path) -> None:
    whole = np.random.default_rng(0).normal(size=(7, 2, 3)).astype(np.float32)
    with npy_writer(tmp_path / "w.npy", whole.shape) as write:
        for first in range(0, 7, 3):
            write(whole[first : first + 3])
    assert (np.load(tmp_path / "w.npy", allow_pickle=False) == whole).all()
    rows = RowFile(tmp_path / "w.npy")
    assert len(rows) == 7 and (rows.rows(2, 5) == whole[2:5]).all() and (rows.rows(5, 99) == whole[5:]).all()
    assert (rows.take(np.array([6, 0, 0])) == whole[[6, 0, 0]]).all()


def test_an_array_that_is_not_filled_never_appears(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shape"), npy_writer(tmp_path / "w.npy", (4, 2)) as write:
        write(np.zeros((3, 2), np.float32))
    assert list(tmp_path.iterdir()) == []


# ---- keys


@dataclass(frozen=True)
class Params:
    steps: int = 3


def test_keys_depend_on_every_part_and_on_nothing_else() -> None:
    base = content_key(params=Params(), models={"a": "1", "b": "2"})
    assert base == content_key(models={"b": "2", "a": "1"}, params=Params(3))
    others = [
        content_key(params=Params(4), models={"a": "1", "b": "2"}),
        content_key(params=Params(), models={"a": "1"}),
    ]
    assert len({base, *others}) == 3


def commit(project: Project, stage: str, key: str, *inputs: str) -> None:
    name = f"{stage}/x.npy"
    (project.path / stage).mkdir(exist_ok=True)
    (project.path / name).write_bytes(b"x")
    project.commit(stage, key, params={}, files=[name], seconds=1.0, inputs=inputs)


def test_a_stage_is_fresh_while_its_key_and_files_stay(project: Project) -> None:
    commit(project, "align", "k1")
    again = Project.open(project.path)
    assert again.is_fresh("align", "k1") and not again.is_fresh("align", "k2") and not again.is_fresh("invert", "k1")
    (project.path / "align/x.npy").unlink()
    assert not again.is_fresh("align", "k1")


def test_what_follows_a_changed_stage_is_stale(project: Project) -> None:
    commit(project, "align", "k1")
    commit(project, "invert", "i1", "align")
    commit(project, "finetune", "f1", "invert")
    assert [project.status(s) for s in ("align", "invert", "finetune", "render")] == ["done"] * 3 + ["missing"]
    commit(project, "align", "k2")
    assert [project.status(s) for s in ("align", "invert", "finetune")] == ["done", "stale", "stale"]


# ---- identity of the clip


def test_the_project_of_another_clip_is_refused_and_unharmed(project: Project, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / "a.mp4"
    other.parent.mkdir()
    other.write_bytes(b"somebody else")
    before = (project.path / "project.json").read_bytes()
    with pytest.raises(InputError, match="project of another clip"):
        Project.of_source(other, project.path, {})
    assert (project.path / "project.json").read_bytes() == before


def test_a_clip_that_moved_is_found_again_when_named(project: Project, clip: Path, tmp_path: Path) -> None:
    moved = clip.rename(tmp_path / "b.mp4")
    with pytest.raises(InputError, match="no longer at"):
        Project.open(project.path).source()
    again = Project.of_source(moved, project.path, {})
    with again.lock("test"):
        again.save()
    assert Project.open(project.path).source() == moved


def test_a_clip_that_changed_is_noticed_and_a_touched_one_is_not(project: Project, clip: Path) -> None:
    os.utime(clip, ns=(1, 1))
    assert Project.open(project.path).source() == clip
    clip.write_bytes(b"another take, same name")
    with pytest.raises(InputError, match="is not the clip"):
        Project.open(project.path).source()


def test_a_folder_with_other_things_is_not_taken_over(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "a.sg3").mkdir()
    (tmp_path / "a.sg3" / "diary.txt").write_text("mine")
    with pytest.raises(UsageError, match="not a project"):
        Project.of_source(clip, tmp_path / "a.sg3", {})


def test_a_project_that_was_only_begun_is_not_in_the_way(clip: Path, tmp_path: Path) -> None:
    """Between its lock and its first manifest a process may be at work, as the lock tells, or have been killed."""
    begun = Project.of_source(clip, tmp_path / "b.sg3", {})
    with begun.lock("align"):
        assert sorted(p.name for p in begun.path.iterdir()) == [".lock", ".owner.json"]
        late = Project.of_source(clip, begun.path, {})
        with pytest.raises(InputError, match=r"being written by process .* \(sg3 align"), late.lock("align"):
            pass
        left = {p.name: p.read_bytes() for p in begun.path.iterdir()}
    for name in (*left, "..owner.json.7.tmp", ".project.json.7.tmp"):
        (begun.path / name).write_bytes(left.get(name, b"{"))
    with Project.of_source(clip, begun.path, {}).lock("align") as project:
        project.save()
    assert Project.open(begun.path).source() == clip
    assert not list(begun.path.glob(".*.tmp"))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": "x"}'])
def test_a_broken_manifest_is_named(project: Project, text: str) -> None:
    (project.path / "project.json").write_text(text)
    with pytest.raises(InputError, match="manifest"):
        Project.open(project.path)


def test_a_newer_project_is_refused(project: Project) -> None:
    (project.path / "project.json").write_text(json.dumps({"schema": 99}))
    with pytest.raises(InputError, match="newer"):
        Project.open(project.path)


def test_identity_is_size_and_digest(clip: Path) -> None:
    source = Source.of(clip)
    assert source.size == 18 and source.sha256.startswith("sha256:")
    with pytest.raises(InputError):
        Source.of(clip.with_name("missing.mp4"))


# ---- locks

HOLD = """
    import sys, time
    from pathlib import Path
    from sg3cli.project import Project
    with Project.open(Path(sys.argv[1])).lock("render"):
        print("held", flush=True)
        time.sleep(60)
"""


def holder(project: Project) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLD), str(project.path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_second_writer_is_told_who_the_first_is_and_a_kill_frees_the_lock(project: Project) -> None:
    process = holder(project)
    try:
        with pytest.raises(InputError, match=rf"process {process.pid} on .*sg3 render"), project.lock("invert"):
            pass
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    (project.path / "finetune").mkdir()
    (project.path / ".x.npy.123.tmp").write_bytes(b"left behind")
    (project.path / "finetune" / ".tmpSnnIgb").write_bytes(b"as safetensors does")
    with project.lock("invert"):
        assert not list(project.path.rglob(".*tmp*"))


def test_what_another_writer_finished_meanwhile_is_seen(project: Project) -> None:
    mine, theirs = Project.open(project.path), Project.open(project.path)
    with theirs.lock("align"):
        commit(theirs, "align", "k1")
    with mine.lock("invert"):
        assert mine.is_fresh("align", "k1")


# ---- chunks


def test_chunks_continue_where_the_last_one_ends(tmp_path: Path) -> None:
    first = Chunks(tmp_path / "parts", "key")
    first.append({"x": np.arange(3)}, 3, {"tracks": [0.1]})
    first.append({"x": np.arange(3, 5)}, 2, {"tracks": [0.2]})
    again = Chunks(tmp_path / "parts", "key")
    assert again.rows == 5 and again.state == {"tracks": [0.2]}
    again.append({"x": np.arange(5, 6)}, 1)
    assert np.concatenate([chunk["x"] for chunk in Chunks(tmp_path / "parts", "key")]).tolist() == list(range(6))


def test_chunks_of_another_key_or_after_a_hole_are_dropped(tmp_path: Path) -> None:
    old = Chunks(tmp_path / "parts", "old")
    old.append({"x": np.arange(3)}, 3)
    fresh = Chunks(tmp_path / "parts", "new")
    assert fresh.rows == 0 and not list((tmp_path / "parts").iterdir())
    for _ in range(3):
        fresh.append({"x": np.arange(2)}, 2)
    fresh.paths[1].unlink()
    assert Chunks(tmp_path / "parts", "new").rows == 2
    assert len(list((tmp_path / "parts").iterdir())) == 1


def test_sources_that_are_read_in_another_way_than_before_have_another_key(tmp_path):
    source = {"path": "a.mp4", "size": 1, "sha256": "sha256:abc", "mtime_ns": 1}
    kinds = [{}, {"interlaced": False, "color": {"transfer": 1}}, {"interlaced": True}, {"color": {"transfer": 16}}]
    keys = [Project(tmp_path, {"source": source, "stream": stream}).source_key for stream in kinds]
    assert keys[0] == keys[1] == "sha256:abc" and keys[2] == keys[3] != keys[0]

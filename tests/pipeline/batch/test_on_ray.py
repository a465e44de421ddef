"""Workers on Ray: equal bytes, workers that are killed, several batches on one cluster, a full object store."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from running import ROOT, environment, example_clip, halved, sg3

from sg3cli import cli
from sg3cli.console import Console
from sg3cli.errors import DeviceError, UsageError
from sg3cli.latents.edits import parse_edits
from sg3cli.pipeline import Job
from sg3cli.pipeline.batch import on_ray
from sg3cli.pipeline.batch.clip import BatchClip
from sg3cli.pipeline.batch.on_ray import RayPool, Workers
from sg3cli.pipeline.batch.schedule import Flow, Schedule
from sg3cli.pipeline.batch.tasks import Task
from sg3cli.pipeline.open_project import open_project
from sg3cli.settings import EncodeConfig, Settings

FAST = ["--no-finetune", "--preset=ultrafast", "--edit", "age=2"]
STORE_BYTES = 80 << 20  # Ray's object store of a node
SECONDS, RATE = 40, 10


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_ray, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="needs the package ray") as caught:
        RayPool("local", Workers(), print)
    assert ".[cluster]" in caught.value.hint


@pytest.fixture(scope="module")
def ray() -> Any:
    return pytest.importorskip("ray", reason="the extra cluster is not installed")


def test_a_batch_on_a_cluster_of_its_own(
    ray: Any,
    tmp_path: Path,
    talk: Path,
    tiny_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One command: what it writes is what the same command writes without Ray; a bad file fails alone."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(talk, tmp_path / "talk.mp4")
    (tmp_path / "bad.mp4").write_text("no video")
    line = ["batch", "talk.mp4", "bad.mp4", "--model", str(tiny_bundle), *FAST, "--json"]
    ran = sg3(*line, "--out-dir", "far", "--ray", "local", "--workers", 1, cwd=tmp_path)
    assert ran.code == 6, ran.err
    told = ran.json
    assert [entry["status"] for entry in told["inputs"]] == ["done", "failed"]
    assert told["inputs"][1]["error"]["code"] == 3 and "bad.mp4: error: " in ran.err
    assert (told["tasks"], told["lost"], len(told["workers"])) == (1, 0, 1)
    names = {"bad.sg3", "talk.sg3", "talk_edited.mp4", "talk_edited.mp4.json"}
    assert {path.name for path in (tmp_path / "far").iterdir()} <= names  # the store has gone with its last clip
    here = sg3(*line, "--out-dir", "near", cwd=tmp_path)
    assert (here.code, here.json["command"]) == (6, "batch")
    for name in ("talk_edited.mp4", "talk_edited.mp4.json", "talk.sg3/invert/ws.npy"):
        assert (tmp_path / "far" / name).read_bytes() == (tmp_path / "near" / name).read_bytes(), name
    assert cli.run([*line, "--out-dir", "far", "--dry-run"]) == 0
    assert json.loads(capsys.readouterr().out)["plan"][0]["tasks"] == 0  # up to date


# ---- three nodes


@pytest.fixture(scope="module")
def cluster(ray: Any) -> Iterator[Any]:
    """Three nodes of one processor on this machine, with small object stores."""
    from ray.cluster_utils import Cluster

    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT)
    node = {"num_cpus": 1, "object_store_memory": STORE_BYTES}
    found = Cluster(initialize_head=True, head_node_args=node)
    try:
        for _ in range(2):
            found.add_node(**node)
        yield found
    finally:
        ray.shutdown()
        found.shutdown()
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


@pytest.fixture(scope="module")
def settings(tiny_bundle: Path) -> Settings:
    return Settings().having(
        invert={"model": str(tiny_bundle), "likeness": 2},
        finetune={"steps": 3, "batch": 2, "loss": "structural"},
        encode={"preset": "ultrafast"},
    )


@pytest.fixture(scope="module")
def forty_seconds(tmp_path_factory: pytest.TempPathFactory, face_model: None) -> Path:
    """A clip of 40 s, there and back again, without sound."""
    from sg3cli.video import VideoReader, VideoWriter, drawn

    with VideoReader(example_clip("woman_talks.mp4")) as reader:
        images = [halved(frame.rgb) for frame in reader]
    images += images[-2:0:-1]
    height, width = images[0].shape[:2]
    info = drawn(width, height, Fraction(RATE), SECONDS * RATE)
    path = tmp_path_factory.mktemp("forty") / "forty.mp4"
    from sg3cli.video import Frame

    with VideoWriter(path, info, EncodeConfig(crf=10, preset="veryfast")) as writer:
        for k in range(SECONDS * RATE):
            writer.write(Frame(k, k, info.time_base, images[k % len(images)], 1))
    return path


class Killing(RayPool):
    """Kills the worker of the second range that is rendered, while it is at work."""

    titles: list[str]
    victim = 0

    def submit(self, number: int, task: Task) -> None:
        self.titles = [*getattr(self, "titles", []), task.title]
        name = self._names[self._idle[0]]
        super().submit(number, task)
        if not self.victim and task.kind == "render" and any(title.startswith("render") for title in self.titles[:-1]):
            found = re.match(r"process (\d+) ", name)
            assert found is not None
            self.victim = int(found[1])
            threading.Timer(1.0, os.kill, (self.victim, signal.SIGKILL)).start()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As many as a worker has."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_killed_worker_and_a_full_object_store_change_no_byte(
    ray: Any, cluster: Any, forty_seconds: Path, settings: Settings, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    edits = parse_edits(["age=2"])
    job = Job(open_project(forty_seconds, tmp_path / "single" / "forty.sg3"), settings, Console(quiet=True))
    with job.project.lock("test"):
        job.run(str(tmp_path / "single" / "forty_edited.mp4"), edits)

    def begin() -> BatchClip:
        own = Job(open_project(forty_seconds, tmp_path / "many" / "forty.sg3"), settings, Console(quiet=True))
        return BatchClip(own, str(tmp_path / "many" / "forty_edited.mp4"), edits, False, str(tmp_path / "store"))

    request.addfinalizer(ray.shutdown)
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
    filling = [ray.put(np.full(40 << 20, value, np.uint8)) for value in range(5)]  # twice what a node holds
    spilled = list(Path(cluster.head_node.get_session_dir_path()).rglob("ray_spilled_objects_*/*"))
    assert spilled, "the object store was to be full"
    said: list[str] = []
    failed: list[Exception | None] = []
    pool = Killing(cluster.address, Workers(), print)
    try:
        schedule = Schedule([Flow("forty", begin, lambda clip, error: failed.append(error))], pool, said.append)
        titles = [title for title in schedule.run() if title]
    finally:
        pool.close()
    assert failed == [None] and schedule.lost == 1
    assert len(said) == 1 and f"process {pool.victim} " in said[0] and "it is done again" in said[0]
    assert len(pool.names) == 4  # three, and one in the place of the lost one
    ranges = [title for title in titles if title.startswith("render")]
    assert len(ranges) == 4 and len([t for t in pool.titles if t.startswith("render")]) == 5
    for name in ("forty_edited.mp4", "forty_edited.mp4.json", "forty.sg3/invert/ws.npy"):
        assert (tmp_path / "many" / name).read_bytes() == (tmp_path / "single" / name).read_bytes(), name
    assert (ray.get(filling[0]) == 0).all()  # what was spilled is read back


@pytest.mark.slow
def test_two_batches_at_once_on_one_cluster(
    ray: Any, cluster: Any, talk: Path, other: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    for clip in (talk, other):
        shutil.copy(clip, tmp_path / clip.name)
    line = [sys.executable, "-m", "sg3cli", "batch", "talk.mp4", "other.mp4", "--model", str(tiny_bundle), *FAST]
    line += ["--ray", cluster.address, "--workers", "1", "--store", "shared", "--json"]
    env = environment(PYTHONPATH=str(ROOT))
    both = [
        subprocess.Popen([*line, "--out-dir", name], cwd=tmp_path, env=env, stdout=-1, stderr=-1) for name in ("a", "b")
    ]
    ended = [process.communicate(timeout=400) for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    assert all([entry["status"] for entry in json.loads(out)["inputs"]] == ["done", "done"] for out, _ in ended)
    for name in ("talk_edited.mp4", "other_edited.mp4"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_an_address_without_a_cluster_is_said(ray: Any) -> None:
    with pytest.raises(DeviceError, match=r"there is no Ray cluster at 127\.0\.0\.1:1: "):
        RayPool("127.0.0.1:1", Workers(), print)
    assert not ray.is_initialized()


def test_an_exception_of_a_signal_s_handler_stays_what_it_is() -> None:
    """Ray's compiled code reports it as an error of the interpreter's."""
    pool = RayPool.__new__(RayPool)
    pool._running, pool._starting = {}, {}

    def interrupted(*given: object, **options: object) -> None:
        raise SystemError("returned a result with an exception set") from KeyboardInterrupt()

    pool._ray = SimpleNamespace(wait=interrupted)
    with pytest.raises(KeyboardInterrupt):
        pool.wait()


@pytest.mark.slow
def test_a_cluster_without_room_is_said(ray: Any, cluster: Any) -> None:
    with pytest.raises(DeviceError, match=r"no machine has room for a worker of 1 CPUs and 1 GPUs"):
        RayPool(cluster.address, Workers(gpus=1), print)
    assert not ray.is_initialized()

"""A clip that workers do in ranges: output, record and the project's arrays are those of one run, to the byte."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from batch_pool import LocalPool
from running import cut, example_clip

from sg3cli.console import Console
from sg3cli.errors import InputError, ModelError
from sg3cli.latents.edits import parse_edits
from sg3cli.pipeline import Job
from sg3cli.pipeline.batch.clip import BatchClip
from sg3cli.pipeline.batch.schedule import Flow, Schedule
from sg3cli.pipeline.batch.tasks import Task
from sg3cli.pipeline.open_project import open_project
from sg3cli.project import Project
from sg3cli.settings import Settings

EDITS = parse_edits(["age=2", "smile=0s:0,2s:1"])
FRAMES = 40


@dataclass
class Recorded(LocalPool):
    """A pool that notes what it was given; `break_at` is a title at which the command is killed."""

    break_at: str = ""
    titles: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def submit(self, number: int, task: Task) -> None:
        if task.title == self.break_at:
            raise KeyboardInterrupt
        self.titles.append(task.title)
        super().submit(number, task)


@pytest.fixture(scope="module")
def settings(tiny_bundle: Path) -> Settings:
    return Settings().having(
        invert={"model": str(tiny_bundle), "likeness": 2},
        finetune={"steps": 3, "batch": 2, "loss": "structural"},
        encode={"preset": "ultrafast", "segment": 0.48},
    )


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory, face_model: None) -> Path:
    return cut(example_clip("woman_talks.mp4"), tmp_path_factory.mktemp("clip") / "long.mp4", FRAMES)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory, clip: Path, settings: Settings) -> Path:
    """A folder with the output and the project of one run."""
    folder = tmp_path_factory.mktemp("single")
    job = Job(open_project(clip, folder / "long.sg3"), settings, Console(quiet=True))
    with job.project.lock("test"):
        job.run(str(folder / "long_edited.mp4"), EDITS)
    return folder


def run(
    folder: Path, clip: Path, settings: Settings, pool: LocalPool, store: str = "", longest: float = 1.0
) -> BatchClip:
    """The clip by a pool's worker; raises what ended it."""
    made: list[BatchClip] = []
    failed: list[Exception] = []

    def begin() -> BatchClip:
        job = Job(open_project(clip, folder / "long.sg3"), settings, Console(quiet=True))
        made.append(
            BatchClip(job, str(folder / "long_edited.mp4"), EDITS, False, store or str(folder / "store"), longest)
        )
        return made[0]

    flow = Flow("long.mp4", begin, lambda clip, error: failed.append(error) if error else None)
    list(Schedule([flow], pool, failed.append).run())
    if failed:
        raise failed[0]
    return made[0]


def arrays(project: Path) -> dict[str, bytes]:
    """The results of the stages by name, without logs of time."""
    files = [path for path in project.rglob("*") if path.suffix in (".npy", ".safetensors")]
    kept = [path for path in files if "visible" not in path.parts and "faces" not in path.parts]
    return {path.relative_to(project).as_posix(): path.read_bytes() for path in kept}


def check_equal(folder: Path, single: Path) -> None:
    for name in ("long_edited.mp4", "long_edited.mp4.json"):
        assert (folder / name).read_bytes() == (single / name).read_bytes(), name
    assert arrays(folder / "long.sg3") == arrays(single / "long.sg3")


def test_ranges_give_the_bytes_of_one_run(tmp_path: Path, clip: Path, settings: Settings, single: Path) -> None:
    pool = Recorded()
    done = run(tmp_path, clip, settings, pool)
    spans = [f"{a}-{b}" for a, b in [(0, 12), (12, 24), (24, 40)]]
    assert pool.titles == [
        "align",
        "invert 0-32",
        "invert 32-40",
        "tune",
        *(f"render {s}" for s in spans),
    ]
    check_equal(tmp_path, single)
    project = Project.open(tmp_path / "long.sg3")
    assert [project.status(stage) for stage in ("align", "invert", "finetune", "render")] == ["done"] * 4
    assert project.source() == clip
    assert {name: stage["status"] for name, stage in done.stages.items()} == dict.fromkeys(
        ("align", "invert", "finetune", "render"), "done"
    )
    assert done.stages["render"]["ranges"] == 3 and done.seconds > 0
    assert not list((tmp_path / "store").rglob("*.*"))  # nothing of a finished clip is left there
    assert not (tmp_path / "long.sg3" / "render").exists()


def test_a_short_clip_is_one_task_with_the_same_bytes(
    tmp_path: Path, clip: Path, settings: Settings, single: Path
) -> None:
    pool = Recorded()
    run(tmp_path, clip, settings, pool, store=f"file://{tmp_path / 'store'}", longest=60.0)
    assert pool.titles == ["whole"]
    check_equal(tmp_path, single)
    again = Recorded()
    done = run(tmp_path, clip, settings, again)
    assert again.titles == [] and done.stages["render"]["status"] == "up to date"


def test_a_batch_that_is_killed_goes_on_with_what_is_missing(
    tmp_path: Path, clip: Path, settings: Settings, single: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, clip, settings, Recorded(break_at="invert 32-40"))
    middle = Recorded(break_at="render 24-40")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, clip, settings, middle)
    assert middle.titles == ["invert 32-40", "tune", "render 0-12", "render 12-24"]
    assert not (tmp_path / "long_edited.mp4").exists()
    last = Recorded()
    run(tmp_path, clip, settings, last)
    assert last.titles == ["render 24-40"]
    check_equal(tmp_path, single)


def test_another_edit_costs_the_render_alone(tmp_path: Path, clip: Path, settings: Settings, single: Path) -> None:
    for name in ("long_edited.mp4", "long_edited.mp4.json"):
        shutil.copy(single / name, tmp_path)
    shutil.copytree(single / "long.sg3", tmp_path / "long.sg3")
    pool = Recorded()
    run(tmp_path, clip, settings.having(render={"feather": 0.1}), pool)
    assert [title.partition(" ")[0] for title in pool.titles] == ["render"] * 3
    assert (tmp_path / "long_edited.mp4").read_bytes() != (single / "long_edited.mp4").read_bytes()


def test_the_clip_travels_where_only_a_url_is_shared(
    tmp_path: Path, clip: Path, settings: Settings, single: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker cannot see the clip's path: its own copy has the same name and gives the same bytes."""
    elsewhere = tmp_path / "here" / "long.mp4"
    elsewhere.parent.mkdir()
    shutil.copy(clip, elsewhere)

    class Remote(Recorded):
        def wait(self):  # type: ignore[no-untyped-def]
            elsewhere.rename(elsewhere.with_suffix(".hidden"))
            try:
                return super().wait()
            finally:
                elsewhere.with_suffix(".hidden").rename(elsewhere)

    run(tmp_path, elsewhere, settings, Remote(), store=f"file://{tmp_path / 'store'}", longest=60.0)
    check_equal(tmp_path, single)
    shutil.rmtree(tmp_path / "long.sg3")
    (tmp_path / "long_edited.mp4").unlink()
    with pytest.raises(InputError, match=r"long\.mp4 is not there on"):
        run(tmp_path, elsewhere, settings, Remote(), longest=60.0)  # a folder brings no clips


def test_a_worker_with_another_model_is_refused(
    tmp_path: Path, clip: Path, settings: Settings, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = Job.keys
    calls: list[int] = []

    def other(job: Job) -> dict[str, str]:
        calls.append(1)
        return keys(job) if len(calls) == 1 else {**keys(job), "invert": "another"}

    monkeypatch.setattr(Job, "keys", other)
    with pytest.raises(ModelError, match="invert would be another one on"):
        run(tmp_path, clip, settings, Recorded())
    assert not (tmp_path / "long_edited.mp4").exists()
    assert "align" not in json.loads((tmp_path / "long.sg3" / "project.json").read_text())["stages"]

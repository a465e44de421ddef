"""Two people in one clip, made of two rendered faces: they change sides, then a hard cut swaps and scales them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import make_clip
from running import SHARED
from schematic_faces import SIDE, scene

from sg3cli.compositing.face_mask import face_outline
from sg3cli.errors import InputError, UsageError
from sg3cli.evaluation.project_metrics import open_subject
from sg3cli.faces.alignment import ABSENT
from sg3cli.latents.edits import Edit, edits_of, parse_edit, set_edit
from sg3cli.pipeline import Job
from sg3cli.pipeline.align import load_everybody
from sg3cli.project import Project
from sg3cli.settings import Settings
from sg3cli.video import VideoReader
from sg3cli.video.probe import probe

FRAMES, CUT = 24, 14
SIZE = (384, 216)  # width, height
CENTRES = {}  # (frame, who) -> middle of the face


@pytest.fixture(scope="module")
def two(tmp_path_factory, people, face_model) -> Path:
    """The clip: person 0 goes from left to right past person 1, who goes the other way a little lower."""
    frames = []
    for t in range(FRAMES):
        u = t / (CUT - 1)
        if t < CUT:
            places = [(0, 90 + 200 * u, 70, 0.42, 0), (1, 295 - 200 * u, 150, 0.42, 0)]
        else:
            places = [(1, 270, 100, 0.6, 5), (0, 100, 110, 0.5, -4)]
        image, exact = scene(people, *places, size=SIZE[::-1])
        frames.append(image)
        if t >= CUT:  # another room: the flat background darkens
            background = scene(people, size=SIZE[::-1])[0]
            frames[-1] = np.where(np.abs(image.astype(int) - background).max(2, keepdims=True) < 3, image // 3, image)
        for place, points in zip(places, exact, strict=True):
            CENTRES[t, place[0]] = points.mean(0)
    path = tmp_path_factory.mktemp("two") / "two.mp4"
    return make_clip(path, FRAMES, SIZE, image=lambda index, *_: frames[index].astype(np.uint8))


def job_on(clip: Path, folder: Path, bundle: Path, face: str, tuning: int = 2) -> Job:
    project = Project.of_source(clip, folder / "two.sg3", probe(clip).to_dict())
    settings = Settings().having(
        align={"face": face},
        invert={"model": str(bundle), "steps": 1},
        finetune={"steps": tuning, "batch": 2, "loss": "structural"},
        encode={"crf": 4.0, "preset": "ultrafast"},
    )
    return Job(project, settings)


def changes(clip: Path, out: Path) -> np.ndarray:
    """Mean change `[T, 2]` in levels around the middle of each person's face."""
    with VideoReader(clip) as a, VideoReader(out) as b:
        pairs = [(x.rgb.astype(int), y.rgb.astype(int)) for x, y in zip(a, b, strict=True)]
    result = np.zeros((FRAMES, 2))
    for (t, who), (x, y) in CENTRES.items():
        part = slice(int(y) - 14, int(y) + 14), slice(int(x) - 14, int(x) + 14)
        result[t, who] = np.abs(pairs[t][0][part] - pairs[t][1][part]).mean()
    return result


def number_of(job: Job, who: int) -> int:
    """The number that `who` got: by whose track starts where."""
    return int(np.argmin([np.abs(t.landmarks[0].mean(0) - CENTRES[0, who]).sum() for t in job.project.tracks()]))


def job_edits(job: Job) -> list[Edit]:
    return job.project.edits


def test_the_chosen_person_is_edited_in_every_frame_and_the_other_never(two, tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for choice, who in ((f"{CENTRES[0, 0][0]:.0f},{CENTRES[0, 0][1]:.0f}@0s", 0), ("0.75,0.7@0s", 1)):
        job = job_on(two, tmp_path / str(who), tiny_bundle, choice, tuning=0)
        (tmp_path / str(who)).mkdir()
        with job.project.lock("run"):
            job.edit([parse_edit("age=6")])
            job.render(str(tmp_path / f"{who}.mp4"))
        assert job.project.record("align").facts["people"] == 2 and job.project.record("align").facts["shots"] == 2
        assert (job.project.tracks()[0].status != ABSENT).all()
        change = changes(two, tmp_path / f"{who}.mp4")
        assert change[:, who].min() > 3, change.round(1)
        assert change[:, 1 - who].max() < 2, change.round(1)


def test_two_people_are_edited_differently_in_one_project(two, tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = job_on(two, tmp_path, tiny_bundle, "all")
    with job.project.lock("run"):
        job.align()
        assert job.project.faces == [0, 1]
        first = number_of(job, 0)
        job.edit([parse_edit(f"{first}:age=6"), parse_edit(f"{1 - first}:smile=0.0001")])
        job.finetune()
        job.render(str(tmp_path / "out.mp4"))
    names = {path.relative_to(job.project.path).as_posix() for path in job.project.path.rglob("*") if path.is_file()}
    assert {"align/track.safetensors", "align/track-1.safetensors", "invert/ws.npy", "invert/ws-1.npy"} <= names
    assert not list(job.project.path.glob("invert/parts*"))
    change = changes(two, tmp_path / "out.mp4")
    assert change[:, 0].min() > 3 and change[:, 1].max() < 2, change.round(1)
    measured = open_subject(job, tuned=False).face.edits  # what evaluate and inspect measure is the first face
    assert [edit.title for edit in measured] == [edit.title for edit in edits_of(job_edits(job), 0)]
    assert len(measured) == 1
    with pytest.raises(UsageError, match="face 5"), job.project.lock("edit"):
        job.edit([parse_edit("5:age=1")])


def test_an_image_of_the_person_chooses_them(two, people, tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    reference = np.zeros((SIDE + 100, SIDE + 100, 3), np.uint8)
    reference[50:-50, 50:-50] = people[0][1][:, :, ::-1]
    cv2.imwrite("ref.png", reference)
    cv2.imwrite("empty.png", np.full((64, 64, 3), 90, np.uint8))
    job = job_on(two, tmp_path, tiny_bundle, "ref.png")
    with job.project.lock("align"):
        job.align()
    assert np.abs(job.project.tracks()[0].landmarks[0].mean(0) - CENTRES[0, 1]).max() < 12
    with pytest.raises(InputError, match=r"no face was found in empty\.png"), job.project.lock("align"):
        job_on(two, tmp_path, tiny_bundle, "empty.png").align()


def test_edits_of_one_face_replace_their_own_only():
    edits = set_edit([parse_edit("age=1"), parse_edit("1:age=2")], parse_edit("1:age=3"))
    assert [(edit.title, edit.text) for edit in edits] == [("age", "1"), ("1:age", "3")]
    assert [edit.title for edit in set_edit(edits, parse_edit("1:age=0"))] == ["age"]
    assert "face" not in edits[0].to_dict() and edits[1].to_dict()["face"] == 1
    assert type(edits[1]).from_dict(edits[1].to_dict()) == edits[1]


@pytest.mark.slow
def test_real_people_are_told_apart_in_every_frame(face_model, tmp_path, monkeypatch):
    """The face that is chosen changes in every frame, the other in none; measured on each face's own outline."""
    clip = SHARED / "clips" / "two_faces_headroll_480x270.mp4"
    if not clip.is_file():
        pytest.skip("real footage is not part of the repository")
    monkeypatch.chdir(tmp_path)
    for chosen in (0, 1):
        project = Project.of_source(clip, tmp_path / f"{chosen}.sg3", probe(clip).to_dict())
        settings = Settings().having(
            align={"face": str(chosen)},
            invert={"steps": 1},
            finetune={"steps": 0},
            encode={"crf": 4.0, "preset": "ultrafast"},
        )
        job = Job(project, settings)
        with project.lock("run"):
            job.edit([parse_edit("age=3")])
            job.render(str(tmp_path / "out.mp4"))
        all_faces = load_everybody(project)
        with VideoReader(clip) as before, VideoReader(tmp_path / "out.mp4") as after:
            for a, b in zip(before, after, strict=True):
                change = cv2.absdiff(a.rgb, b.rgb).mean(axis=2)
                for row in np.flatnonzero(all_faces.frames == a.index):
                    mask = np.zeros(change.shape, np.uint8)
                    cv2.fillConvexPoly(mask, face_outline(all_faces.landmarks[row]).astype(np.int32), 1)
                    level = change[mask > 0].mean()
                    assert (level > 2) == (all_faces.people[row] == chosen), (a.index, level)

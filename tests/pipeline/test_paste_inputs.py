"""Masks, masks, seams and a wider view in a render: kept in the project, and the same however it is run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from composed import composed, inverted_project, settings

from sg3cli import cli
from sg3cli.compositing.occlusion import smooth_maps
from sg3cli.compositing.paste import warp_alpha
from sg3cli.errors import InputError
from sg3cli.files import Chunks, digest_of, read_arrays
from sg3cli.pipeline import Job, face_crops, face_paster, occlusion_maps, paste_inputs, render_plan, seam
from sg3cli.project import Project
from sg3cli.settings import RenderConfig
from sg3cli.video.probe import probe


@pytest.fixture(scope="module")
def inverted(tmp_path_factory: pytest.TempPathFactory, talk: Path, tiny_bundle: Path) -> Project:
    """A project with codes and one edit."""
    return inverted_project(tmp_path_factory.mktemp("stitch"), talk, tiny_bundle)


def mask_file(folder: Path, project: Project, value: int, part: slice = slice(None)) -> Path:
    """An image of the source's size that is `value` in the columns `part`, black elsewhere."""
    info = probe(project.source())
    image = np.zeros((info.height, info.width), np.uint8)
    image[:, part] = value
    path = folder / f"mask{value}.png"
    cv2.imwrite(str(path), image)
    return path


@pytest.mark.parametrize("mode", ["multiply", "replace"])
@pytest.mark.parametrize("blend", ["alpha", "gradient"])
def test_a_black_mask_leaves_every_bit(inverted, tiny_bundle, tmp_path, mode, blend):
    mask = str(mask_file(tmp_path, inverted, 0))
    pairs = list(composed(inverted, tiny_bundle, mask=mask, mask_mode=mode, blend=blend, detail=0.0, match=1.0))
    assert all(np.array_equal(before, after) for before, after in pairs)


def test_a_user_mask_limits_the_face_mask_or_takes_its_place(inverted, tiny_bundle, tmp_path):
    middle = probe(inverted.source()).width // 2
    mask = str(mask_file(tmp_path, inverted, 255, slice(0, middle)))
    free, limited, replaced = (
        [np.abs(after.astype(int) - before).max(axis=2) for before, after in composed(inverted, tiny_bundle, **more)]
        for more in (
            {"detail": 0.0},
            {"detail": 0.0, "mask": mask},
            {"detail": 0.0, "mask": mask, "mask_mode": "replace"},
        )
    )
    for a, b, c in zip(free, limited, replaced, strict=True):
        assert b[:, middle:].max() == c[:, middle:].max() == 0
        assert np.array_equal(a[:, :middle], b[:, :middle]) and a[:, middle:].max() > 0
        assert (c > 0).sum() > 1.2 * (b > 0).sum()  # the square, not the face


def test_a_mask_of_another_size_is_refused(inverted, tiny_bundle, tmp_path):
    cv2.imwrite(str(tmp_path / "small.png"), np.zeros((10, 10), np.uint8))
    with pytest.raises(InputError, match="is 10x10"):
        next(composed(inverted, tiny_bundle, mask=str(tmp_path / "small.png")))


def test_the_maps_are_kept_and_do_not_depend_on_the_chunks(inverted, tiny_bundle, monkeypatch):
    """Smoothed chunk by chunk they are what the whole clip at once gives; a later render makes none."""
    monkeypatch.setattr(paste_inputs, "CHUNK", 4)
    shutil.rmtree(inverted.path / paste_inputs.VISIBLE, ignore_errors=True)
    first = [after for _, after in composed(inverted, tiny_bundle)]
    chunks = sorted((inverted.path / paste_inputs.VISIBLE).glob("*.safetensors"))
    assert [path.stem for path in chunks] == ["000000000", "000000004", "000000008"]
    whole = np.concatenate([read_arrays(path)[0]["visible"] for path in chunks])
    track = inverted.track()
    key = read_arrays(chunks[0])[1]["key"]
    maps = occlusion_maps.VisibleMaps(Chunks(inverted.path / paste_inputs.VISIBLE, key), track)
    expected = smooth_maps(whole / 255, track.times, np.zeros(len(track.times), int))
    for index in (5, 0, 11, 3, 4):
        np.testing.assert_allclose(maps.at(index), expected[index], atol=1e-6)
    chunks[-1].unlink()  # as after a kill
    assert all(np.array_equal(a, b) for a, (_, b) in zip(first, composed(inverted, tiny_bundle), strict=True))
    monkeypatch.setattr(paste_inputs, "make_maps", None)
    assert all(np.array_equal(a, b) for a, (_, b) in zip(first, composed(inverted, tiny_bundle), strict=True))


def test_a_range_has_its_maps_alone_and_they_are_those_of_the_whole(inverted, tiny_bundle, monkeypatch):
    """No face is drawn far from the range, and what is shown inside is what a render of everything shows."""
    whole = [after for _, after in composed(inverted, tiny_bundle)]
    drawn: list[int] = []
    crops = face_crops.FaceEdits.crops

    def counted(self: Any, frames: Any, *rest: Any) -> Any:
        drawn.extend(frame.index for frame in frames)
        return crops(self, frames, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(face_crops.FaceEdits, "crops", counted)
        next(composed(inverted, tiny_bundle, range="..0.1"))  # the maps of the whole clip are there and will do
        assert set(drawn) == set(range(8))  # for a batch of two: 0.24 s of steadying, whole batches
        shutil.rmtree(inverted.path / paste_inputs.VISIBLE)
        drawn.clear()
        first = next(composed(inverted, tiny_bundle, range="..0.1"))[1]
    assert set(drawn) == set(range(8))  # 0.1 s of 25 frames a second, 0.2 s of smoothing, whole batches of two
    assert np.array_equal(first, whole[0])
    ranged = [after for _, after in composed(inverted, tiny_bundle, range="..0.1")]
    assert all(np.array_equal(a, b) for a, b in zip(whole[:3], ranged[:3], strict=True))
    assert (
        len(list(composed(inverted, tiny_bundle))) == 12
    )  # and the whole clip's maps are made again, not taken from it
    assert all(np.array_equal(a, b) for a, (_, b) in zip(whole, composed(inverted, tiny_bundle), strict=True))


def test_the_seam_is_tuned_once_and_closer_to_the_frame(inverted, tiny_bundle, monkeypatch, capsys):
    def at_the_seam(**changes: Any) -> float:
        track, total = inverted.track(), []
        for index, (before, after) in enumerate(composed(inverted, tiny_bundle, protect="none", **changes)):
            paster = face_paster.FacePaster(track, RenderConfig(protect="none"), 32)
            edge = warp_alpha(paster.opacity(index), paster.window(index), before.shape[:2])
            ring = (edge > 0.3) & (edge < 0.7)
            total.append(np.abs(after.astype(float) - before)[ring].mean())
        return float(np.mean(total))

    pasted = at_the_seam(stitch="paste")
    tuned = at_the_seam(stitch="tune", stitch_steps=12, stitch_threshold=0.0)
    assert tuned < 0.8 * pasted
    assert read_arrays(inverted.path / seam.SEAM)[1]["key"]
    assert not (inverted.path / seam.SEAM_CHECKPOINT).exists()
    monkeypatch.setattr(seam, "seam_tuner", None)  # the second time nothing is tuned
    assert at_the_seam(stitch="tune", stitch_steps=12, stitch_threshold=0.0) == tuned


def test_a_wider_view_of_the_face_and_of_the_mask(inverted, tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = ["render", str(inverted.path), "--no-finetune", "-q", "--model", str(tiny_bundle)]
    assert cli.run([*line, "-o", "face.mp4", "--view", "face", "--expand", "left=0.25,top=0.1"]) == 0
    info = probe(tmp_path / "face.mp4")
    assert (info.width, info.height, info.frames) == (40, 35, 12)
    assert cli.run([*line, "-o", "out.mp4", "--expand", "left=0.25,bottom=0.3"]) == 0
    assert probe(tmp_path / "out.mp4").width == probe(inverted.source()).width
    square, wide = (list(composed(inverted, tiny_bundle, expand=text, detail=0.0)) for text in (None, "bottom=0.3"))
    grown = [np.abs(w.astype(int) - s).max() for (_, s), (_, w) in zip(square, wide, strict=True)]
    assert max(grown) > 0


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("left=1.5", "from 0 to 1"),
        ("side=0.1", "'side' is no side"),
        ("left=x", "must be a number"),
        ("left", "must be"),
    ],
)
def test_an_expansion_that_cannot_be_names_the_range(inverted, tmp_path, capsys, text, what):
    assert cli.run(["render", str(inverted.path), "-o", str(tmp_path / "o.mp4"), "--expand", text]) == 2
    assert what in capsys.readouterr().err


def test_the_user_mask_s_bytes_belong_to_the_render_s_key(inverted, tiny_bundle, tmp_path):
    path = mask_file(tmp_path, inverted, 255)
    keys = []
    for value in (255, 255, 128):
        mask_file(tmp_path, inverted, value).rename(path)
        job = Job(inverted, settings(tiny_bundle, mask=str(path)))
        keys.append(render_plan.plan(job, job.bundle(), False).key)
    assert keys[0] == keys[1] != keys[2]
    assert digest_of(path)


def test_a_mask_that_is_not_there_is_bad_usage(inverted, tmp_path, capsys):
    assert cli.run(["render", str(inverted.path), "-o", str(tmp_path / "o.mp4"), "--mask", "nowhere.png"]) == 2
    assert "there is no nowhere.png" in capsys.readouterr().err
